"""Keep a list of the months whose sessions were archived."""

from migrations.twin import run_twin

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Run the SQL twin of this file."""
    run_twin(__file__)

"""Create rates and payments."""

from migrations.twin import run_twin

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Run the SQL twin of this file."""
    run_twin(__file__)

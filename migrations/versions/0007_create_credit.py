"""Keep each credit that comes in by itself, matched to a payment or not."""

from migrations.twin import run_twin

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Run the SQL twin of this file."""
    run_twin(__file__)

"""Create areas, zones, counts, sessions and checks."""

from migrations.twin import run_twin

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Run the SQL twin of this file."""
    run_twin(__file__)

"""Keep which part of what is earned is the city's, and what was booked of it for each district and day."""

from migrations.twin import run_twin

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Run the SQL twin of this file."""
    run_twin(__file__)

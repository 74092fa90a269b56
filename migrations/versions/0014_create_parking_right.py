"""Keep the rights by which vehicles park without paying, and until when a running session is free by one."""

from migrations.twin import run_twin

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Run the SQL twin of this file."""
    run_twin(__file__)

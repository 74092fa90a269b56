"""Keep the idempotency key of a plate check on the check itself."""

from migrations.twin import run_twin

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Run the SQL twin of this file."""
    run_twin(__file__)

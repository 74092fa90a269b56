"""Keep what the gateways tell us, and what we ask of them, before anything is done about it."""

from migrations.twin import run_twin

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Run the SQL twin of this file."""
    run_twin(__file__)

"""Keep refunds, withdrawals, attendants' shifts with the cash that moved in them, and who decided what and why."""

from migrations.twin import run_twin

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Run the SQL twin of this file."""
    run_twin(__file__)

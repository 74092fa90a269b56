"""Find what moved on a day by its instant, for the reconciliation of shifts, withdrawals and credits."""

from migrations.concurrently import create_index
from migrations.twin import run_twin

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Run the SQL twin of this file, after the indexes that find a day's rows."""
    create_index("credit_at", "credit", "(gateway, at)")
    create_index("cash_movement_at", "cash_movement", "(at)")
    create_index("shift_closed", "shift", "(closed_at) WHERE closed_at IS NOT NULL")
    create_index("withdrawal_decided", "withdrawal", "(decided_at) WHERE decided_at IS NOT NULL")
    create_index("hold_float_placed", "hold", "(created_at) WHERE kind = 'float'")
    create_index("hold_float_ended", "hold", "(ended_at) WHERE kind = 'float'")
    create_index("ledger_account_float", "ledger_account", "(id) WHERE kind = 'float'")
    create_index("reconciliation_difference_name", "reconciliation_difference", "(gateway, booking, reference)")
    run_twin(__file__)

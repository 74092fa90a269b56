"""Keep a double-entry ledger, wallets and holds; payments become movements at a gateway."""

from migrations.twin import run_twin

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Run the SQL twin of this file."""
    run_twin(__file__)

"""Create receipts, their number series, and the e-invoices that are made of them."""

from migrations.twin import run_twin

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Run the SQL twin of this file."""
    run_twin(__file__)

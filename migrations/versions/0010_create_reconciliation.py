"""Keep what each gateway's own list said of a day, and how it differed from the ledger."""

from migrations.concurrently import create_index
from migrations.twin import run_twin

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Run the SQL twin of this file, after an index by which the payments of a day are found."""
    create_index("payment_settled", "payment", "(settled_at) WHERE state = 'paid'")
    run_twin(__file__)

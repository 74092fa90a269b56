"""Keep each refund that a gateway told of, with where its money came from; find what was given back in a span."""

from migrations.concurrently import create_index
from migrations.twin import run_twin

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Run the SQL twin of this file, after an index by which the refunds of a span are found."""
    create_index("refund_decided", "refund", "(decided_at) WHERE amount IS NOT NULL")
    run_twin(__file__)

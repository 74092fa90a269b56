"""Keep each refund that a gateway told of, with where its money came from."""

from migrations.twin import run_twin

revision = "0013"
down_revision = "0010"


def upgrade() -> None:
    """Run the SQL twin of this file."""
    run_twin(__file__)

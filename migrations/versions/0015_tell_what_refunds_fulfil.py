"""Keep which payment a refund takes back, and how much of one on a gateway's page was what operators had ordered."""

from migrations.twin import run_twin

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Run the SQL twin of this file."""
    run_twin(__file__)

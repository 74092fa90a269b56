"""A migration keeps its SQL in a twin file, where a database administrator can read and run it."""

from pathlib import Path

from alembic import op


def run_twin(path: str) -> None:
    """Execute the .sql file that stands beside the migration at `path`, in the migration's transaction."""
    op.get_bind().exec_driver_sql(Path(path).with_suffix(".sql").read_text(encoding="utf-8").replace("%", "%%"))

"""Alembic's entry: brings a database to head, then installs the SQL functions of `zones` and `billing`.

The functions are not versioned: they belong to the code that calls them and are replaced at every upgrade.
"""

import re
from collections.abc import Iterator
from importlib import resources

from alembic import context
from sqlalchemy import Connection, create_engine, pool, text

# Two upgrades at once (two containers that start together) run one after the other.
UPGRADE_LOCK = 7_264_001
# A function with another result cannot be replaced; one with other arguments would stand there twice.
FUNCTIONS = text(
    "SELECT oid::regprocedure::text FROM pg_proc "
    "WHERE proname = :name AND pronamespace = current_schema()::regnamespace"
)


def function_sources() -> Iterator[str]:
    """Every CREATE OR REPLACE FUNCTION file, in the order of its name."""
    for package in ("zones", "billing"):
        folder = resources.files(package) / "sql" / "functions"
        for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
            yield file.read_text(encoding="utf-8")


def migrate(connection: Connection) -> None:
    """Run the missing migrations and install the functions, in one transaction."""
    context.configure(connection=connection)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": UPGRADE_LOCK})
        context.run_migrations()
        for source in function_sources():
            for name in re.findall(r"^CREATE OR REPLACE FUNCTION (\w+)", source, re.MULTILINE):
                for signature in connection.execute(FUNCTIONS, {"name": name}).scalars().all():
                    connection.exec_driver_sql(f"DROP FUNCTION {signature}")
            connection.exec_driver_sql(source.replace("%", "%%"))


engine = create_engine(context.config.get_main_option("sqlalchemy.url") or "", poolclass=pool.NullPool)
with engine.connect() as connection:
    migrate(connection)

"""Alembic's entry: brings a database to head, installs the SQL functions of `zones` and `billing`, and says what the
service may do (grants.sql).

It runs beside a service under load. A statement that needs a strong lock on a table waits in a queue, and everybody who
comes later waits behind it; so it waits LOCK_TIMEOUT at most, then the migration is undone, all others go first, and it
is tried again. Each migration is a transaction of its own, so that its locks are held no longer than it takes. Indexes
are made without locks: migrations/concurrently.py.

The functions are not versioned: they belong to the code that calls them and are replaced at every upgrade.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

from alembic import context
from psycopg.errors import DeadlockDetected, InvalidFunctionDefinition, LockNotAvailable
from sqlalchemy import Connection, create_engine, pool, text
from sqlalchemy.exc import DBAPIError

log = logging.getLogger("alembic.iparking")
# Two upgrades at once (two containers that start together) run one after the other.
UPGRADE_LOCK = 7_264_001
# The longest that a start may wait behind a migration is this and the time of the migration's own statements.
LOCK_TIMEOUT = "200ms"
# Long enough for those who waited behind a try to go first.
PAUSE_SECONDS = 0.5
# A transaction that is open for longer than this must be looked into before the schema can change.
PATIENCE_SECONDS = 600.0
GRANTS = Path(__file__).with_name("grants.sql")
FUNCTIONS = text(
    "SELECT oid::regprocedure::text, xmin::text = pg_current_xact_id()::xid::text FROM pg_proc "
    "WHERE proname = :name AND pronamespace = current_schema()::regnamespace"
)


def function_sources() -> Iterator[str]:
    """Every CREATE OR REPLACE FUNCTION file, in the order of its name."""
    for package in ("zones", "billing"):
        folder = resources.files(package) / "sql" / "functions"
        for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
            yield file.read_text(encoding="utf-8")


def migrate(connection: Connection) -> None:
    """Run the missing migrations, each in its transaction. Raises DBAPIError where one failed; those before it stay."""
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()


def install_functions(connection: Connection) -> None:
    """Replace all functions in one transaction. Those whose form stayed keep their identity: calls under way go on."""
    with connection.begin():
        for source in function_sources():
            connection.exec_driver_sql(source.replace("%", "%%"))
            _drop_others(connection, source)


def reinstall_functions(connection: Connection) -> None:
    """Drop all functions and make them anew: one that gives another result cannot be replaced."""
    with connection.begin():
        for source in function_sources():
            _drop_others(connection, source)
        for source in function_sources():
            connection.exec_driver_sql(source.replace("%", "%%"))


def grant(connection: Connection) -> None:
    """Give the service's role its rights, where there is such a role."""
    with connection.begin():
        connection.exec_driver_sql(GRANTS.read_text(encoding="utf-8").replace("%", "%%"))


def _drop_others(connection: Connection, source: str) -> None:
    """Drop the functions of a file's names that were not made in this transaction: older forms with other arguments."""
    for name in re.findall(r"^CREATE OR REPLACE FUNCTION (\w+)", source, re.MULTILINE):
        for signature, is_new in connection.execute(FUNCTIONS, {"name": name}).all():
            if not is_new:
                connection.exec_driver_sql(f"DROP FUNCTION {signature}")


def insist(connection: Connection, do: Callable[[Connection], None]) -> None:
    """Do it, again and again while others hold the locks. Raises DBAPIError after PATIENCE_SECONDS."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return do(connection)
        except DBAPIError as error:
            connection.rollback()
            if not isinstance(error.orig, LockNotAvailable | DeadlockDetected) or time.monotonic() > until:
                raise
            log.warning("others hold what the migration needs, again in %g s", PAUSE_SECONDS)
            time.sleep(PAUSE_SECONDS)


def claim(connection: Connection) -> None:
    """Wait for other upgrades to end. By asking, not by waiting in a statement: an index that is being made without
    locks waits for all statements that are under way."""
    while not connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": UPGRADE_LOCK}).scalar_one():
        connection.commit()
        time.sleep(PAUSE_SECONDS)
    connection.execute(text("SELECT set_config('lock_timeout', :value, false)"), {"value": LOCK_TIMEOUT})
    connection.commit()


def upgrade(connection: Connection) -> None:
    """Bring the database to head and install the functions of this code."""
    claim(connection)
    insist(connection, migrate)
    try:
        insist(connection, install_functions)
    except DBAPIError as error:
        if not isinstance(error.orig, InvalidFunctionDefinition):
            raise
        insist(connection, reinstall_functions)
    insist(connection, grant)


engine = create_engine(
    context.config.get_main_option("sqlalchemy.url") or "",
    poolclass=pool.NullPool,  # the lock and its time-out end with the connection
    connect_args={"prepare_threshold": None},
)
with engine.connect() as connection:
    upgrade(connection)

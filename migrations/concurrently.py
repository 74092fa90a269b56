"""Indexes for big tables, made while the service writes to them."""

from alembic import op
from sqlalchemy import Connection, text

_PARTITIONS = text("""
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = to_regclass(:table) AND c.relkind = 'r' ORDER BY c.relname
""")
_STATE = text("SELECT i.indisvalid FROM pg_index i WHERE i.indexrelid = to_regclass(:name)")
_IS_PARTITIONED = text("SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(:table)")
_IS_ATTACHED = text("SELECT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(:name))")
LONGEST_NAME = 63


def create_index(name: str, table: str, definition: str, *, unique: bool = False) -> None:
    """Make index `name` on `table (definition)` without a lock that anybody waits for; safe to repeat.

    `definition` is what follows the table's name: "(client, received_at) WHERE …". A partitioned table's index is made
    partition by partition, then each is attached; partitions that are made meanwhile bring their own.

    It must come first in its migration, or in one of its own: what stands before it is committed.
    """
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        if connection.execute(_IS_PARTITIONED, {"table": table}).scalar_one():
            _create_partitioned(connection, name, table, definition, unique)
        else:
            _create_one(connection, name, table, definition, unique)


def _create_partitioned(connection: Connection, name: str, table: str, definition: str, unique: bool) -> None:
    kind = "UNIQUE INDEX" if unique else "INDEX"
    connection.exec_driver_sql(_escaped(f"CREATE {kind} IF NOT EXISTS {name} ON ONLY {table} {definition}"))
    for partition in connection.execute(_PARTITIONS, {"table": table}).scalars().all():
        child = f"{partition}_{name.removeprefix(f'{table}_')}"[:LONGEST_NAME]
        _create_one(connection, child, partition, definition, unique)
        if not connection.execute(_IS_ATTACHED, {"name": child}).scalar_one():
            connection.exec_driver_sql(f"ALTER INDEX {name} ATTACH PARTITION {child}")


def _create_one(connection: Connection, name: str, table: str, definition: str, unique: bool) -> None:
    """One table's index. What a try before this one left unfinished is invalid, and is made anew."""
    state = connection.execute(_STATE, {"name": name}).scalar_one_or_none()
    if state is True:
        return
    before = connection.exec_driver_sql("SHOW lock_timeout").scalar_one()
    # It waits for transactions that are older than it, and nobody waits for it: no time-out.
    connection.exec_driver_sql("SET lock_timeout = 0")
    try:
        if state is False:
            connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY {name}")
        kind = "UNIQUE INDEX" if unique else "INDEX"
        connection.exec_driver_sql(_escaped(f"CREATE {kind} CONCURRENTLY {name} ON {table} {definition}"))
    finally:
        connection.exec_driver_sql(f"SET lock_timeout = '{before}'")


def _escaped(statement: str) -> str:
    return statement.replace("%", "%%")

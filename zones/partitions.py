"""The month partitions of parking_session: made ahead, and taken out and put back by the archive.

A month is one of Hanoi's. Whoever changes a partitioned table needs a lock that starts and stops would queue behind.
So each change is a short transaction that waits for its locks for LOCK_TIMEOUT at most and is then tried again, after
those who came meanwhile.
"""

import time
from collections.abc import Callable
from datetime import date, datetime
from typing import TypeVar
from zoneinfo import ZoneInfo

import psycopg

# Months, and a report's hours and days, are those of the city.
CITY_TIME = ZoneInfo("Asia/Ho_Chi_Minh")
T = TypeVar("T")
PARENT = "parking_session"
LOCK_TIMEOUT = "200ms"
PAUSE_SECONDS = 0.5
PATIENCE_SECONDS = 60.0


def patiently(connection: psycopg.Connection, do: Callable[[], T], patience: float = PATIENCE_SECONDS) -> T:
    """Do it in a transaction that keeps nobody waiting for long. Raises LockNotAvailable after `patience` seconds."""
    until = time.monotonic() + patience
    while True:
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                return do()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if time.monotonic() > until:
                raise
            time.sleep(PAUSE_SECONDS)


def make_ahead(connection: psycopg.Connection, now: datetime, months: int, patience: float = 2.0) -> list[str]:
    """Make the partitions from this month to so many months later; the names of those made. Raises LockNotAvailable."""
    query = "SELECT make_month_partitions(%s, %s)"
    return patiently(connection, lambda: [row[0] for row in connection.execute(query, (now, months))], patience)


def left_in_default(connection: psycopg.Connection) -> int:
    """How many sessions have no month of their own: more than may be moved beside the service."""
    row = connection.execute(f"SELECT count(*) FROM {PARENT}_default").fetchone()
    assert row is not None
    return int(row[0])


def name_of(month: date) -> str:
    """The table that holds a month."""
    return f"{PARENT}_{month:%Y_%m}"


def month_of(instant: datetime) -> date:
    """The first day of the Hanoi month in which an instant lies."""
    return instant.astimezone(CITY_TIME).date().replace(day=1)


def later(month: date, months: int) -> date:
    """The month so many months later, or (negative) earlier."""
    years, index = divmod(month.year * 12 + month.month - 1 + months, 12)
    return date(years, index + 1, 1)


def bounds_of(month: date) -> tuple[datetime, datetime]:
    """When a month begins, and when the next one does."""
    start, end = (datetime(day.year, day.month, 1, tzinfo=CITY_TIME) for day in (month, later(month, 1)))
    return start, end


_TABLES = """
SELECT to_date(substr(c.relname, length(%(parent)s) + 2), 'YYYY_MM'), c.relispartition FROM pg_class c
 WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'
   AND c.relname ~ ('^' || %(parent)s || '_[0-9]{4}_(0[1-9]|1[0-2])$')
 ORDER BY 1
"""


def months(connection: psycopg.Connection, *, attached: bool) -> list[date]:
    """The months that have a table, part of parking_session or (attached=False) by itself."""
    rows = connection.execute(_TABLES, {"parent": PARENT})
    return [month for month, is_attached in rows if is_attached == attached]


def detach(connection: psycopg.Connection, month: date) -> None:
    """Take a month's table out of parking_session; call it patiently.

    Not CONCURRENTLY: PostgreSQL refuses that beside a default partition. It changes the catalogue only, so that the
    lock is held for milliseconds.
    """
    connection.execute(f"ALTER TABLE {PARENT} DETACH PARTITION {name_of(month)}")


def attach(connection: psycopg.Connection, month: date) -> None:
    """Put a month's table back; call it patiently. One made by `make_table` need not be looked through again."""
    start, end = bounds_of(month)
    bound = psycopg.sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
        psycopg.sql.Identifier(PARENT), psycopg.sql.Identifier(name_of(month)), start, end
    )
    connection.execute(bound)
    connection.execute(f"ALTER TABLE {name_of(month)} DROP CONSTRAINT IF EXISTS {name_of(month)}_bounds")


def make_table(connection: psycopg.Connection, month: date) -> None:
    """An empty table for a month, by itself, that takes no session of another month."""
    name = name_of(month)
    connection.execute(f"CREATE TABLE {name} (LIKE {PARENT} INCLUDING ALL)")
    check = psycopg.sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK (started_at >= {} AND started_at < {})").format(
        psycopg.sql.Identifier(name), psycopg.sql.Identifier(f"{name}_bounds"), *bounds_of(month)
    )
    connection.execute(check)

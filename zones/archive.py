"""Months of finished sessions that are long over: put into Parquet files, and brought back.

A month's way out, each step of which may be the last one before a crash; the next run goes on from there:

    1. its table is written to a file with another name, and kept by the disk      the month is where it was
    2. the file is loaded into a temporary table, which must have the same rows
    3. the file gets its name
    4. its table is taken out of parking_session, and listed as archived: one transaction
    5. its table, which nobody uses any more, is compared with the list once more, and dropped

Rows are the same where their number and the sum of their hashes are. A month goes out only when no session that began
in it, or before it, is still running, so nothing can be added to it.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from zones import parquet, partitions

log = logging.getLogger(__name__)
ARCHIVE_LOCK = 7_264_005
# A report's sessions may have begun so long before its span (longer stays are few, and in no month that is out).
STAY = timedelta(hours=24)


class ArchiveError(Exception):
    """What is archived and what is in the database do not agree, or cannot be put together. Nothing was dropped."""


class ArchiveBusy(ArchiveError):
    """Another process is archiving or restoring."""


class Sum(NamedTuple):
    """The number of rows of a table, and the sum of their hashes."""

    rows: int
    checksum: int


class Entry(NamedTuple):
    """One month in the list."""

    month: date
    state: str
    file: str
    file_sha256: str
    rows: int
    checksum: int
    archived_at: datetime
    restored_at: datetime | None


def connect(url: str) -> psycopg.Connection:
    """A connection fit for the archive: PostgreSQL's own URL, no pooler's. Hashes depend on how times are written."""
    return psycopg.connect(url, autocommit=True, options="-c timezone=UTC -c datestyle=ISO", prepare_threshold=None)


def entries(connection: psycopg.Connection) -> list[Entry]:
    """The list, by month."""
    query = """SELECT month, state, file, file_sha256, rows, checksum::text, archived_at, restored_at
        FROM archived_month ORDER BY month"""
    return [Entry._make((*row[:5], int(row[5]), *row[6:])) for row in connection.execute(query)]


def described(entry: Entry) -> dict[str, Any]:
    """A month of the list as JSON has it."""
    instants = {name: value and value.isoformat() for name, value in entry._asdict().items() if name.endswith("_at")}
    facts = {"state": entry.state, "rows": entry.rows, "file": entry.file, "file_sha256": entry.file_sha256}
    return {"month": f"{entry.month:%Y-%m}"} | facts | instants


def missing(connection: psycopg.Connection, start: datetime, end: datetime) -> list[date]:
    """The archived months whose sessions a report from `start` to `end` would have needed."""
    first, last = partitions.month_of(start - STAY), partitions.month_of(end)
    query = """SELECT month FROM archived_month WHERE state = 'archived' AND month BETWEEN %s AND %s ORDER BY month"""
    return [month for (month,) in connection.execute(query, (first, last)) if partitions.bounds_of(month)[0] < end]


def run(
    connection: psycopg.Connection, folder: Path, now: datetime, after_months: int, only: date | None = None
) -> list[date]:
    """Archive the months that ended `after_months` months ago or before, or only one of these, also one that was
    restored. The months that are out now and were not before; one that a running session holds back is not.

    Raises ArchiveBusy where another process is at it; ArchiveError, UnknownColumns, OSError, psycopg.Error: months
    before the one that failed stay out.
    """
    done = []
    with _alone(connection):
        folder.mkdir(parents=True, exist_ok=True)
        for entry in entries(connection):
            if entry.state == "archived" and entry.month in partitions.months(connection, attached=False):
                _finish(connection, folder, entry)
                done.append(entry.month)
        for month in _due(connection, now, after_months, only):
            if _archive(connection, folder, month, now):
                done.append(month)
    return done


def restore(connection: psycopg.Connection, folder: Path, month: date, now: datetime) -> int:
    """Bring a month back into parking_session, where it stays; the number of its sessions.

    Raises ArchiveError where it is not out, its file is not the one that was written, or a table of its name is there
    that holds anything else: rename that one, and look into it.
    """
    with _alone(connection):
        entry = next((one for one in entries(connection) if one.month == month), None)
        if entry is None or entry.state != "archived":
            raise ArchiveError(f"{month:%Y-%m} is not archived")
        if month in partitions.months(connection, attached=True):
            raise ArchiveError(f"{partitions.name_of(month)} is there: sessions of that month came later")
        _check_file(folder, entry)
        _fill_table(connection, folder, entry)
        partitions.patiently(connection, lambda: _put_back(connection, entry, now))
        return entry.rows


def check_sum(connection: psycopg.Connection, table: str, names: Sequence[str]) -> Sum:
    """The sum of a table's rows over some columns."""
    query = f"SELECT count(*), COALESCE(sum(hashtextextended(ROW({', '.join(names)})::text, 0)), 0)::text FROM {table}"
    row = connection.execute(query).fetchone()
    assert row is not None
    return Sum(row[0], int(row[1]))


@contextmanager
def _alone(connection: psycopg.Connection) -> Iterator[None]:
    """Nobody else is at it until the end of the block. Raises ArchiveBusy where somebody is."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", (ARCHIVE_LOCK,)).fetchone()
    if row is None or not row[0]:
        raise ArchiveBusy("another process is archiving or restoring at this moment")
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(%s)", (ARCHIVE_LOCK,))


def _due(connection: psycopg.Connection, now: datetime, after_months: int, only: date | None) -> list[date]:
    newest = partitions.later(partitions.month_of(now), -after_months - 1)
    attached = [month for month in partitions.months(connection, attached=True) if month <= newest]
    if only is not None:
        return [month for month in attached if month == only]
    listed = {entry.month for entry in entries(connection)}
    return [month for month in attached if month not in listed]


def _archive(connection: psycopg.Connection, folder: Path, month: date, now: datetime) -> bool:
    """Take one month out; False where a session that began in it still runs."""
    table = partitions.name_of(month)
    file = folder / f"{table}.parquet"
    draft = folder / f"{table}.unfinished"
    try:
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            if _is_awaited(connection, month):
                return False
            names = parquet.write(connection, table, draft)
            found = check_sum(connection, table, names)
        _compare(connection, draft, table, found)
        digest = _sha256(draft)
        _put_in_place(draft, file)
    except BaseException:
        with suppress(FileNotFoundError):
            draft.unlink()
        raise
    entry = Entry(month, "archived", file.name, digest, *found, now, None)
    partitions.patiently(connection, lambda: _take_out(connection, entry))
    _finish(connection, folder, entry)
    log.info("%s: %d sessions archived in %s", table, found.rows, file)
    return True


def _is_awaited(connection: psycopg.Connection, month: date) -> bool:
    """Whether a session that runs may still become a row of this month."""
    query = "SELECT EXISTS (SELECT FROM active_session WHERE started_at < %s)"
    row = connection.execute(query, (partitions.bounds_of(month)[1],)).fetchone()
    assert row is not None
    return bool(row[0])


def _compare(connection: psycopg.Connection, file: Path, table: str, expected: Sum) -> None:
    """Load a file into a temporary table. Raises ArchiveError unless it has the rows that are expected."""
    copy = f"{table}_read_back"
    with connection.transaction():
        connection.execute(f"CREATE TEMPORARY TABLE {copy} (LIKE {table}) ON COMMIT DROP")
        parquet.load(connection, file, copy)
        found = check_sum(connection, copy, parquet.columns(file))
    if found != expected:
        raise ArchiveError(f"{file.name} does not hold what {table} holds: {found} is not {expected}")


def _put_in_place(draft: Path, file: Path) -> None:
    os.replace(draft, file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _take_out(connection: psycopg.Connection, entry: Entry) -> None:
    partitions.detach(connection, entry.month)
    connection.execute(
        """INSERT INTO archived_month (month, state, file, file_sha256, rows, checksum, archived_at, restored_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (month) DO UPDATE SET (state, file, file_sha256, rows, checksum, archived_at, restored_at) =
            (excluded.state, excluded.file, excluded.file_sha256, excluded.rows, excluded.checksum,
             excluded.archived_at, excluded.restored_at)""",
        entry,
    )


def _finish(connection: psycopg.Connection, folder: Path, entry: Entry) -> None:
    """Drop a month's table, which is by itself by now. Raises ArchiveError where the file or it is another one."""
    _check_file(folder, entry)
    with connection.transaction():
        _drop_table(connection, folder, entry)


def _drop_table(connection: psycopg.Connection, folder: Path, entry: Entry) -> None:
    """Drop a month's table in the caller's transaction. Raises ArchiveError unless it holds what was archived."""
    table = partitions.name_of(entry.month)
    connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
    found = check_sum(connection, table, parquet.columns(folder / entry.file))
    if found != Sum(entry.rows, entry.checksum):
        raise ArchiveError(f"{table} has changed since it was archived: {found}; it is left where it is")
    connection.execute(f"DROP TABLE {table}")


def _check_file(folder: Path, entry: Entry) -> None:
    file = folder / entry.file
    if not file.exists():
        raise ArchiveError(f"{file} is missing")
    if _sha256(file) != entry.file_sha256:
        raise ArchiveError(f"{file} is not the file that was written: its SHA-256 differs")


def _sha256(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _fill_table(connection: psycopg.Connection, folder: Path, entry: Entry) -> None:
    """A month's table by itself, with the rows of its file, in place of one that was left. Raises ArchiveError where
    that one holds anything else.
    """
    table, file = partitions.name_of(entry.month), folder / entry.file
    with connection.transaction():
        if entry.month in partitions.months(connection, attached=False):
            _drop_table(connection, folder, entry)
        partitions.make_table(connection, entry.month)
        parquet.load(connection, file, table)
        found = check_sum(connection, table, parquet.columns(file))
        if found != Sum(entry.rows, entry.checksum):
            raise ArchiveError(f"{file} does not hold what was archived: {found}")
    connection.execute(f"ANALYZE {table}")


def _put_back(connection: psycopg.Connection, entry: Entry, now: datetime) -> None:
    partitions.attach(connection, entry.month)
    connection.execute(
        "UPDATE archived_month SET state = 'restored', restored_at = %s WHERE month = %s", (now, entry.month)
    )

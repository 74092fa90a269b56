"""Past sessions in bulk: a year and more of finished sessions, as the service would have left them.

Each month is loaded into a table of its own, without indexes; then it is given the indexes of parking_session and made
its partition: several times as fast as inserting into the partition. Two months are loaded at a time, one a core. What
a month was made from is noted on its table, so that a later run may take it as it is.
"""

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import LiteralString
from zoneinfo import ZoneInfo

import psycopg
from psycopg import sql

from bench import requests
from bench.errors import BenchError
from zones import partitions

MONTHS = 13
HANOI = ZoneInfo("Asia/Ho_Chi_Minh")
# Heap and indexes were 514 bytes a session when measured; the write-ahead log adds up to 2 GB (max_wal_size).
BYTES_A_SESSION = 600
BYTES_BESIDE = 4_000_000_000
# Vehicles and accounts that parked: so many that a plate has been there some ten times a year.
PLATES = 2_000_000
# A month's index is sorted in memory, by one process: the other core has a month of its own.
LOADING = "-c maintenance_work_mem=512MB -c max_parallel_maintenance_workers=0 -c synchronous_commit=off"
CLIENTS = 400_000


@dataclass(frozen=True, slots=True)
class Month:
    """One partition: its name, its bounds, and the instant before which its sessions began."""

    name: str
    start: datetime
    end: datetime
    until: datetime


def months(now: datetime, number: int = MONTHS) -> list[Month]:
    """The last `number` months of Hanoi, this one included, up to yesterday's first instant: the same the whole day."""
    local = now.astimezone(HANOI)
    latest = datetime(local.year, local.month, local.day, tzinfo=HANOI) - timedelta(days=1)
    first = local.year * 12 + local.month - number
    return [_month(first + n, latest) for n in range(number) if _start(first + n) < latest]


def _start(month: int) -> datetime:
    return datetime(month // 12, month % 12 + 1, 1, tzinfo=HANOI)


def _month(month: int, latest: datetime) -> Month:
    start, end = _start(month), _start(month + 1)
    return Month(f"parking_session_{start:%Y_%m}", start, end, min(end, latest))


def shares(sessions: int, spans: Sequence[Month]) -> list[int]:
    """How many of the sessions each month has, by its length; together they are all."""
    total = sum((span.until - span.start).total_seconds() for span in spans)
    ends, passed = [0], 0.0
    for span in spans:
        passed += (span.until - span.start).total_seconds()
        ends.append(round(sessions * passed / total))
    return [end - begin for begin, end in pairwise(ends)]


def bytes_needed(sessions: int) -> int:
    """What loading so many sessions takes on the disk of PostgreSQL."""
    return sessions * BYTES_A_SESSION + BYTES_BESIDE


def require_space(folder: Path, sessions: int, there: int = 0) -> None:
    """Raises BenchError where the disk of `folder` has no room for so many sessions, `there` bytes of them there."""
    free, needed = shutil.disk_usage(folder).free + there, bytes_needed(sessions)
    if free < needed:
        raise BenchError(
            f"{sessions:,} sessions need {needed / 1e9:.1f} GB on the disk, and {free / 1e9:.1f} GB are free"
        )


# n runs with time, as rows do that are inserted when sessions end; id is a UUIDv7 of started_at; plates are those of
# wrk/common.lua. Half are prepaid; stays are about log-normal with a median of 75 minutes.
_FILL = """
INSERT INTO {table}
SELECT ('0' || to_hex(ms) || '7' || left(hash, 3) || '8' || substr(hash, 4, 15))::uuid,
       ({provinces}::text[])[p / {digits} / 20 + 1] || substr({letters}, p / {digits} % 20 + 1, 1) || '-'
       || lpad(((p % {digits} + 1) / 100)::text, 3, '0') || '.' || lpad(((p % {digits} + 1) % 100)::text, 2, '0'),
       CASE WHEN p % 5 = 0 THEN 'motorbike' ELSE 'car' END,
       'driver-' || (p % {clients} + 1), hash, zone, 'advisory', started_at, minutes,
       started_at + minutes * interval '1 minute', over_at, LEAST(over_at, gone_at), 'driver', gone_at, 'wallet',
       {rate_version}, 25000 * ceil(stay / 60)::bigint, left(hash, 31), NULL
  FROM (SELECT *, started_at + COALESCE(minutes, 720) * interval '1 minute' AS over_at,
               started_at + stay * interval '1 minute' AS gone_at
          FROM (SELECT *, to_timestamp(ms / 1000.0::float8) AS started_at FROM (
                SELECT md5({salt} || n) AS hash,
                       (ceil(random() * {plates})::bigint * {step} % {all_plates})::integer AS p,
                       ({zones}::text[])[ceil(random() * cardinality({zones}::text[]))::integer] AS zone,
                       ({start} + (n + random()) / {sessions} * ({until} - {start}))::bigint AS ms,
                       CASE WHEN n % 2 = 0 THEN 60 * (n / 2 % 4 + 1) END::integer AS minutes,
                       LEAST(719, 75 * exp(1.8 * (random() + random() + random() - 1.5))) AS stay
                  FROM generate_series(0, {sessions} - 1) n OFFSET 0) drawn
               ) seen
       ) stay
"""


def fill(url: str, sessions: int, now: datetime, zones: Sequence[str]) -> None:
    """Put `sessions` finished sessions of the months up to `now` in the place of all that are there.

    Full months that are there already, made from the same, are left; the month that loads write to is made anew.
    """
    spans = months(now)
    _drop_others(url, {span.name for span in spans})
    jobs = list(zip(spans, shares(sessions, spans), strict=True))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: _load(url, job[0], job[1], zones), reversed(jobs)))
    with psycopg.connect(url, autocommit=True) as connection:
        # It makes no month, but tells of each what its statistics are to say.
        partitions.make_ahead(connection, spans[-1].start, months=0)
        connection.execute("ANALYZE parking_session")


def _drop_others(url: str, names: Collection[str]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE parking_session_default")
        for name in set(_partitions(connection)) - {*names, "parking_session_default"}:
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))


def _partitions(connection: psycopg.Connection) -> list[str]:
    query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'parking_session'::regclass"
    return [row[0] for row in connection.execute(query).fetchall()]


def size(connection: psycopg.Connection) -> int:
    """Bytes that the finished sessions take on the disk, their indexes included."""
    query = """SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits
        WHERE inhparent = 'parking_session'::regclass"""
    row = connection.execute(query).fetchone()
    return int(row[0] or 0) if row else 0


def _load(url: str, month: Month, sessions: int, zones: Sequence[str]) -> None:
    """Load one month beside its place, index it, then put it there."""
    table = sql.Identifier(f"{month.name}_loading")
    with psycopg.connect(url, autocommit=True, options=LOADING) as connection:
        statement = _filling(connection, table, month, sessions, zones)
        indexes = [sql.SQL(index).format(table=table) for index in _indexes(connection)]
        note = _digest(connection, statement, *indexes)
        if month.until == month.end and note == _note(connection, month.name):
            return
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
        connection.execute(
            sql.SQL("CREATE TABLE {} (LIKE parking_session INCLUDING DEFAULTS INCLUDING CONSTRAINTS)").format(table)
        )
        if sessions:
            connection.execute(statement)
        for index in indexes:
            connection.execute(index)
        connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(table))
        connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(table, sql.Literal(note)))
        _attach(connection, table, month)


def _filling(
    connection: psycopg.Connection, table: sql.Identifier, month: Month, sessions: int, zones: Sequence[str]
) -> sql.Composed:
    rate = connection.execute("SELECT min(version) FROM rate_plan WHERE vehicle_class = 'car'").fetchone()
    values = {
        "digits": requests.DIGITS, "clients": CLIENTS, "plates": PLATES, "step": requests.STEP,
        "all_plates": requests.PLATES, "provinces": list(requests.PROVINCES), "letters": requests.LETTERS,
        "salt": month.name, "start": _milliseconds(month.start), "until": _milliseconds(month.until),
        "sessions": sessions, "zones": list(zones), "rate_version": rate and rate[0],
    }  # fmt: skip
    return sql.SQL(_FILL).format(table=table, **{name: sql.Literal(value) for name, value in values.items()})


def _milliseconds(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


def _digest(connection: psycopg.Connection, *statements: sql.Composed) -> str:
    """What a table is made from, in short."""
    text = "".join(statement.as_string(connection) for statement in statements)
    return f"bench {hashlib.sha256(text.encode()).hexdigest()}"


def _note(connection: psycopg.Connection, table: str) -> str | None:
    row = connection.execute("SELECT obj_description(to_regclass(%s), 'pg_class')", (table,)).fetchone()
    return row[0] if row else None


def _indexes(connection: psycopg.Connection) -> Iterator[LiteralString]:
    """What makes the primary key and the indexes of parking_session on another table, {table}."""
    query = """SELECT indisprimary, regexp_replace(pg_get_indexdef(indexrelid), '^.* USING ', '')
        FROM pg_index WHERE indrelid = 'parking_session'::regclass ORDER BY indexrelid"""
    for is_primary, definition in connection.execute(query).fetchall():
        columns = definition.partition(" ")[2]
        yield (
            f"ALTER TABLE {{table}} ADD PRIMARY KEY {columns}"
            if is_primary
            else (f"CREATE INDEX ON {{table}} USING {definition}")
        )


def _attach(connection: psycopg.Connection, table: sql.Identifier, month: Month) -> None:
    name = sql.Identifier(month.name)
    with connection.transaction():
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(name))
        connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(table, name))
        connection.execute(
            sql.SQL("ALTER TABLE parking_session ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
                name, sql.Literal(month.start), sql.Literal(month.end)
            )
        )

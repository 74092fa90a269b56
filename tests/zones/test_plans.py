"""Starts, stops and expiries look every row up, also where their plans were made before the tables had any rows."""

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import Engine

from tests.zones.parked import at, zone
from zones import sessions
from zones.sessions import AgreedPrice, Start, Started, StopCall

NOON = at("2026-10-14T12:00")
HOUR = timedelta(hours=1)
PRICE = AgreedPrice("v", "unused", (0, 43_200_000_001), (25_000,))
# So many others there are, and so few rows are a start, a stop or an expiry of three sessions to read.
MANY, FEW = 3_000, 20
# Rows that PostgreSQL read from tables that grow, in this transaction.
READ = """SELECT sum(seq_tup_read + idx_tup_fetch)::integer FROM pg_stat_xact_user_tables
           WHERE relname = 'active_session' OR relname LIKE 'parking_session%'"""
# Other drivers' sessions, running and over, of the same hours.
CROWD = """
INSERT INTO active_session (
       plate, vehicle_class, id, client, idempotency_key, zone_code, admission, started_at, over_at, max_over_at,
       payment_method, rate_version, refund, fee_after, fee_amount)
SELECT 'R' || n, 'car', gen_random_uuid(), {client}, 'r' || n, 'HK-001', 'advisory', at, at + interval '1 hour',
       at + interval '12 hours', 'wallet', 'v', 'unused', '{{0,1}}', '{{25000}}'
  FROM (SELECT n, %(noon)s - n * interval '1 second' AS at FROM generate_series(1, %(many)s) n) n;
INSERT INTO parking_session (
       id, plate, vehicle_class, client, idempotency_key, zone_code, admission, started_at, over_at, ended_at,
       ended_by, received_at, payment_method, rate_version, fee)
SELECT gen_random_uuid(), 'P' || n, 'car', {client}, 'p' || n, 'HK-001', 'advisory', at, %(noon)s, %(noon)s,
       'driver', %(noon)s, 'wallet', 'v', 25000
  FROM (SELECT n, %(noon)s - n * interval '1 second' AS at FROM generate_series(1, %(many)s) n) n
"""


@pytest.fixture
def connection(engine: Engine) -> Iterator[psycopg.Connection]:
    """A service's connection; nothing but the test gathers statistics of the tables."""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        # Not only emptied: what an earlier test left of statistics is gone too, as where nothing ever was.
        connection.execute("TRUNCATE active_session, parking_session")
        zone(connection, "HK-001", car=100)
        connection.execute("SELECT make_month_partitions(%s, 0)", (NOON,))
        for table in ("active_session", "parking_session_2026_10"):
            connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
        connection.execute("VACUUM ANALYZE active_session")  # as after a quiet night; the month is as it was made
        yield connection


def wanted(client: str, plate: str) -> Start:
    end = NOON + HOUR
    return Start(
        sessions.new_id(NOON), client, f"key-{plate}", "HK-001", plate, "car", NOON, 60, end, end, NOON + 12 * HOUR,
        "wallet", PRICE,
    )  # fmt: skip


def rows_read(connection: psycopg.Connection, client: str, *plates: str) -> dict[str, int]:
    """Start these, stop the first, let the others' time be over; how many rows each verb read."""
    read, seen = {}, 0
    with connection.transaction():
        calls = [wanted(client, plate) for plate in plates]
        for verb in ("start", "stop", "end"):
            if verb == "start":
                answers = sessions.start(connection, calls)
                assert all(isinstance(answer, Started) for answer in answers)
            elif verb == "stop":
                stops = [StopCall(calls[0].id, client, None, NOON, "stop")]
                ended = connection.execute("SELECT * FROM stop_sessions(%s)", (sessions.stop_arguments(stops),))
                assert [row[1] for row in ended] == ["stopped"]
            else:
                others, over = [call.id for call in calls[1:]], NOON + 2 * HOUR
                ended = connection.execute("SELECT * FROM end_sessions(%s, %s, 'expiry')", (others, over))
                assert [row[1] for row in ended] == ["closed"] * len(others)
            row = connection.execute(READ).fetchone()
            assert row is not None
            read[verb], seen = row[0] - seen, row[0]
    return read


def crowd(connection: psycopg.Connection, client: str) -> None:
    connection.execute(CROWD.format(client=client), {"noon": NOON, "many": MANY})


def test_plans_made_on_empty_tables_serve_full_ones(connection: psycopg.Connection) -> None:
    rows_read(connection, "driver", "A1", "A2", "A3")
    crowd(connection, "'client-' || n")
    read = rows_read(connection, "driver", "B1", "B2", "B3")
    assert max(read.values()) <= FEW, read

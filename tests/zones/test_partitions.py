"""Month partitions: made ahead at the edges of months, whatever stands in the default partition, and under locks."""

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.stack.processes import wait_until
from tests.conftest import HANOI
from zones import partitions


@pytest.fixture
def connection(own_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(own_database, autocommit=True, options="-c timezone=UTC") as connection:
        yield connection


def insert(connection: psycopg.Connection, started_at: str, rows: int = 1) -> None:
    connection.execute(
        """INSERT INTO parking_session (id, plate, vehicle_class, client, zone_code, admission, started_at, over_at,
                                        ended_at, ended_by, received_at, payment_method, rate_version, fee)
        SELECT gen_random_uuid(), '29A-' || n, 'car', 'c', 'HK-001', 'advisory', at, at,
               at, 'driver', at, 'cash', 'v', 0
          FROM generate_series(1, %s) n, (SELECT %s::timestamptz) t(at)""",
        (rows, started_at),
    )


def where(connection: psycopg.Connection) -> dict[str, int]:
    query = "SELECT tableoid::regclass::text, count(*) FROM parking_session GROUP BY 1"
    return dict(connection.execute(query).fetchall())


@pytest.mark.parametrize(
    ("now", "first"),
    [
        ("2026-10-31T23:59:59.999999+07:00", "2026_10"),
        ("2026-11-01T00:00:00+07:00", "2026_11"),
        ("2026-10-31T17:00:00+00:00", "2026_11"),  # already November in Hanoi
        ("2026-12-31T18:00:00+00:00", "2027_01"),
        ("2028-02-29T12:00:00+07:00", "2028_02"),
        ("2027-01-31T12:00:00+07:00", "2027_01"),  # a month after it is no 31 February
    ],
)
def test_months_ahead_are_hanois(connection: psycopg.Connection, now: str, first: str):
    made = partitions.make_ahead(connection, datetime.fromisoformat(now), 3)
    year, month = map(int, first.split("_"))
    expected = [partitions.name_of(partitions.later(date(year, month, 1), n)) for n in range(4)]
    assert made == expected and partitions.make_ahead(connection, datetime.fromisoformat(now), 3) == []
    assert partitions.months(connection, attached=True) == [partitions.later(date(year, month, 1), n) for n in range(4)]


def test_a_session_goes_where_its_hanoi_month_is(connection: psycopg.Connection):
    partitions.make_ahead(connection, datetime(2026, 10, 5, tzinfo=HANOI), 1)
    for instant in ("2026-10-31T16:59:59.999999Z", "2026-10-31T17:00:00Z", "2026-09-30T16:59:59.999999Z"):
        insert(connection, instant)
    assert where(connection) == {
        "parking_session_2026_10": 1, "parking_session_2026_11": 1, "parking_session_default": 1,
    }  # fmt: skip


def test_who_waits_for_a_move_finds_the_sessions_where_they_stand_then(
    connection: psycopg.Connection, own_database: str
):
    """A query that has read which partitions there are before it waits would look in the old place."""
    insert(connection, "2026-11-15+07", rows=5)
    found: list[int] = []

    def look() -> None:
        with psycopg.connect(own_database, autocommit=True) as reader:
            query = "SELECT count(*) FROM parking_session WHERE started_at = '2026-11-15+07'"
            found.extend(row[0] for row in reader.execute(query))

    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    waiting = threading.Thread(target=look)
    with psycopg.connect(own_database) as mover, mover.transaction():
        mover.execute("SELECT make_month_partitions('2026-11-20+07', 0)")
        waiting.start()
        assert wait_until(lambda: connection.execute(query).fetchone() == (1,), 10)
    waiting.join()
    assert found == [5]


def test_sessions_in_the_default_partition_move_to_months_of_their_own(connection: psycopg.Connection):
    insert(connection, "2026-11-15+07", rows=1000)
    insert(connection, "2026-03-01+07", rows=3)
    before = connection.execute("SELECT * FROM parking_session ORDER BY id").fetchall()
    made = partitions.make_ahead(connection, datetime(2026, 11, 20, tzinfo=HANOI), 0)
    assert made == ["parking_session_2026_03", "parking_session_2026_11"]
    assert where(connection) == {"parking_session_2026_03": 3, "parking_session_2026_11": 1000}
    assert connection.execute("SELECT * FROM parking_session ORDER BY id").fetchall() == before
    assert partitions.left_in_default(connection) == 0
    insert(connection, "2020-01-01+07")
    for table in ("parking_session_default", "parking_session_2026_03"):
        with pytest.raises(psycopg.errors.RestrictViolation):
            connection.execute(f"DELETE FROM {table}")


def test_too_many_to_move_stay_and_are_no_obstacle(connection: psycopg.Connection):
    insert(connection, "2026-11-15+07", rows=11)
    query = "SELECT make_month_partitions('2026-11-20+07', 1, 10)"
    assert connection.execute(query).fetchall() == [("parking_session_2026_12",)]
    insert(connection, "2026-11-16+07")
    assert where(connection) == {"parking_session_default": 12} and partitions.left_in_default(connection) == 12


def test_indexes_and_checks_are_the_parents(connection: psycopg.Connection):
    partitions.make_ahead(connection, datetime(2026, 10, 5, tzinfo=HANOI), 0)
    query = """SELECT count(*) FROM pg_index p JOIN pg_class c ON c.oid = p.indexrelid
        WHERE p.indrelid = %s::regclass AND (c.relispartition OR c.relkind = 'I')"""
    counts = [connection.execute(query, (name,)).fetchone() for name in ("parking_session", "parking_session_2026_10")]
    assert counts[0] == counts[1]
    query = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass ORDER BY 1"
    rules = [connection.execute(query, (name,)).fetchall() for name in ("parking_session", "parking_session_2026_10")]
    assert rules[0] == rules[1] and len(rules[0]) >= 4


def test_it_keeps_nobody_waiting_behind_a_long_reader(connection: psycopg.Connection, own_database: str):
    """A report that is under way holds the default partition; the job gives up, and a stop goes on meanwhile."""
    insert(connection, "2026-11-15+07")
    with psycopg.connect(own_database) as reader, psycopg.connect(own_database, autocommit=True) as driver:
        reader.execute("SELECT count(*) FROM parking_session")
        raised: list[BaseException] = []

        def make() -> None:
            try:
                partitions.make_ahead(connection, datetime(2026, 11, 20, tzinfo=HANOI), 0)
            except psycopg.errors.LockNotAvailable as error:
                raised.append(error)

        maker = threading.Thread(target=make)
        maker.start()
        driver.execute("SET statement_timeout = '1s'")
        while maker.is_alive():
            insert(driver, "2026-11-16+07")
            driver.execute("SELECT count(*) FROM parking_session WHERE client = 'c' AND idempotency_key = 'k'")
        assert len(raised) == 1
        reader.rollback()
    assert partitions.make_ahead(connection, datetime(2026, 11, 20, tzinfo=HANOI), 0) == ["parking_session_2026_11"]


def test_patience_goes_on_once_the_lock_is_free(connection: psycopg.Connection, own_database: str):
    with psycopg.connect(own_database) as rival:
        rival.execute("LOCK TABLE parking_session IN ACCESS SHARE MODE")
        timer = threading.Timer(1.0, rival.rollback)
        timer.start()
        tries = []
        partitions.patiently(connection, lambda: (tries.append(1), connection.execute("LOCK TABLE parking_session")))
        timer.join()
    assert len(tries) > 1 and wait_until(lambda: not timer.is_alive(), 5.0)


@given(st.dates(date(1990, 1, 1), date(2090, 12, 31)).map(lambda day: day.replace(day=1)), st.integers(-30, 30))
def test_months_add_up(month: date, months: int):
    assert partitions.later(partitions.later(month, months), -months) == month
    start, end = partitions.bounds_of(month)
    assert partitions.month_of(start.astimezone(UTC)) == month and partitions.month_of(end) == partitions.later(
        month, 1
    )

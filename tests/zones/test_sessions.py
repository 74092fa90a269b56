"""Starts and stops that come together: each call of a group gets the answer that it would have got by itself."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import permutations
from threading import Barrier
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine

from tests.zones.parked import at, zone
from zones import errors, sessions
from zones.errors import ZoneError
from zones.sessions import AgreedPrice, Ended, Start, Started, StopCall

NOON = at("2026-10-14T12:00")
HOUR = timedelta(hours=1)
PRICE = AgreedPrice("v", "unused", (0, 3_600_000_001, 43_200_000_001), (25_000, 50_000))
KERB, GARAGE = "HK-001", "HK-002"  # advisory, and strict with room for two cars


@pytest.fixture
def url(engine: Engine) -> str:
    return engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
def connection(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        zone(connection, KERB, car=100)
        zone(connection, GARAGE, admission="strict", car=2)
        connection.execute("SELECT make_month_partitions(%s, 1)", (NOON - timedelta(days=2),))
        yield connection


def call(
    plate: str,
    zone: str = KERB,
    *,
    key: str | None = None,
    client: str = "driver",
    at: datetime = NOON,
    minutes: int = 60,
) -> Start:
    over_at = at + timedelta(minutes=minutes)
    return Start(
        sessions.new_id(at),
        client,
        key,
        zone,
        plate,
        "car",
        at,
        minutes,
        over_at,
        over_at,
        at + 12 * HOUR,
        "wallet",
        PRICE,
    )


def start(connection: psycopg.Connection, *calls: Start) -> list[Started | type[ZoneError]]:
    """The answers, a refusal by its kind."""
    return [answer if isinstance(answer, Started) else type(answer) for answer in sessions.start(connection, calls)]


def stop(connection: psycopg.Connection, *calls: StopCall) -> list[Ended | type[ZoneError]]:
    rows = connection.execute("SELECT * FROM stop_sessions(%s)", (sessions.stop_arguments(calls),)).fetchall()
    answers = [sessions.read_ended(row) for row in sorted(rows)]
    return [answer if isinstance(answer, Ended) else type(answer) for answer in answers]


def counts(connection: psycopg.Connection) -> dict[str, int]:
    query = "SELECT zone_code, occupied FROM zone_occupancy WHERE vehicle_class = 'car'"
    return dict(connection.execute(query).fetchall())


def running(connection: psycopg.Connection) -> dict[str, UUID]:
    return dict(connection.execute("SELECT plate, id FROM active_session").fetchall())


def test_all_of_a_group_run_and_each_zone_is_counted_once(connection):
    calls = [call("30A-000.01"), call("30A-000.02", GARAGE), call("30A-000.03")]
    answers = start(connection, *calls)
    assert [answer.id for answer in answers] == [call.id for call in calls]
    assert [(answer.zone_count.zone, answer.zone_count.occupied) for answer in answers] == [
        (KERB, 2), (GARAGE, 1), (KERB, 2),
    ]  # fmt: skip
    assert counts(connection) == {KERB: 2, GARAGE: 1}
    assert running(connection) == {call.plate: call.id for call in calls}


def test_who_comes_first_has_the_last_places(connection):
    calls = [call(f"30A-000.0{n}", GARAGE) for n in (5, 3, 1, 4)]
    answers = start(connection, *calls, call("30A-000.09"))
    assert answers[2:4] == [errors.ZoneFull] * 2
    assert set(running(connection)) == {"30A-000.05", "30A-000.03", "30A-000.09"}
    assert [answer.zone_count.occupied for answer in (answers[0], answers[1], answers[4])] == [2, 2, 1]
    assert start(connection, call("30A-000.06", GARAGE), call("30A-000.07"))[0] is errors.ZoneFull
    assert counts(connection) == {KERB: 2, GARAGE: 2}


def test_a_zone_over_its_capacity_admits_nobody_and_stays_as_it_is(connection):
    start(connection, call("30A-000.01", GARAGE), call("30A-000.02", GARAGE))
    connection.execute(
        "UPDATE zone_occupancy SET capacity = 1 WHERE (zone_code, vehicle_class) = (%s, 'car')", (GARAGE,)
    )
    assert start(connection, call("30A-000.03", GARAGE)) == [errors.ZoneFull]
    assert counts(connection)[GARAGE] == 2


def test_one_plate_twice_in_a_group_runs_once(connection):
    first, second = call("30A-000.01"), call("30A-000.01", GARAGE, client="other")
    answers = start(connection, first, second)
    assert (answers[0].id, answers[1]) == (first.id, errors.AlreadyParked)
    assert counts(connection) == {KERB: 1, GARAGE: 0}


def test_one_key_twice_in_a_group_is_answered_once(connection):
    first, again = call("30A-000.01", key="k"), call("30A-000.01", key="k")
    other = call("30A-000.02", key="k")
    answers = start(connection, first, again, other)
    assert [answers[0].id, answers[1].id, answers[2]] == [first.id, first.id, errors.KeyConflict]
    assert answers[1].zone_count is None, "a repetition changes no count"
    assert running(connection) == {"30A-000.01": first.id}


def test_a_repetition_of_what_the_group_refuses_is_no_answer(connection):
    start(connection, call("30A-000.01", GARAGE), call("30A-000.02", GARAGE))
    full = [call("30A-000.03", GARAGE, key="k"), call("30A-000.03", GARAGE, key="k")]
    assert start(connection, *full) == [errors.ZoneFull, errors.Overtaken], "the second must ask again"
    assert "30A-000.03" not in running(connection)


def test_a_key_whose_session_has_ended_is_answered_from_the_past(connection):
    first = call("30A-000.01", key="k")
    start(connection, first)
    stop(connection, StopCall(first.id, "driver", None, NOON + HOUR / 2, "s"))
    later = NOON + HOUR
    answers = start(
        connection,
        call("30A-000.01", key="k", at=later),
        call("30A-000.02", key="k2", at=later),
        call("30A-000.03", key="k", at=later),
        call("30A-000.04", key="k", client="other", at=later),
    )
    assert answers[0] == Started(first.id, NOON, "v", None) and answers[2] is errors.KeyConflict
    assert set(running(connection)) == {"30A-000.02", "30A-000.04"} and counts(connection)[KERB] == 2


def test_a_key_is_free_again_after_a_day(connection):
    first = call("30A-000.01", key="k", at=NOON - 24 * HOUR)
    start(connection, first)
    stop(connection, StopCall(first.id, "driver", None, NOON - 23.5 * HOUR, None))
    again = call("30A-000.01", key="k", at=NOON)
    assert start(connection, again)[0].id == again.id


def test_a_class_without_places_is_not_served_whatever_the_admission(connection):
    connection.execute("UPDATE zone_occupancy SET capacity = 0")
    answers = start(connection, call("30A-000.01"), call("30A-000.02", GARAGE), call("30A-000.03", "XX-001"))
    assert answers == [errors.ClassNotServed, errors.ClassNotServed, errors.UnknownZone]
    assert counts(connection) == {KERB: 0, GARAGE: 0} and running(connection) == {}


def test_a_session_gives_its_place_back_though_admission_was_turned_while_it_started(connection, url):
    """The zone becomes strict between the session's row, which says advisory, and the zone's count."""
    over_at = NOON + HOUR
    with (
        psycopg.connect(url) as turning,
        psycopg.connect(url, autocommit=True) as starting,
        ThreadPoolExecutor(1) as pool,
    ):
        turning.execute("UPDATE zone_occupancy SET admission = 'strict' WHERE zone_code = %s", (KERB,))
        started = pool.submit(start, starting, call("30A-000.01"))
        waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
        while connection.execute(waits, (starting.info.backend_pid,)).fetchone() != (True,):
            assert not started.done()
        turning.commit()
        assert started.result()[0].zone_count.next_over == over_at
    sessions.release_over(connection, over_at)
    assert counts(connection)[KERB] == 0


def test_unknown_zone_and_session_in_the_way_harm_no_other(connection):
    over = call("30A-000.01", at=NOON - 2 * HOUR)
    start(connection, over)
    answers = start(connection, call("30A-000.01"), call("30A-000.02", "XX-001"), call("30A-000.03"))
    assert answers[:2] == [errors.SessionInTheWay, errors.UnknownZone] and isinstance(answers[2], Started)


def test_groups_that_want_the_same_in_another_order_never_deadlock(connection, url):
    """Every order of the same plates and zones, from two connections at once."""
    orders = list(permutations([("30A-000.01", KERB), ("30A-000.02", GARAGE), ("30A-000.03", KERB)]))
    other_order = orders[::-1]

    def run(order: Sequence[Sequence[tuple[str, str]]], number: int) -> list[str]:
        failed = []
        with psycopg.connect(url, autocommit=True, options="-c deadlock_timeout=10ms") as own:
            for round_ in range(8):
                for pairs in order:
                    plates = [call(plate, zone, key=f"{number}-{round_}-{plate}-{pairs}") for plate, zone in pairs]
                    try:
                        started = [answer for answer in sessions.start(own, plates) if isinstance(answer, Started)]
                        stop(own, *(StopCall(one.id, "driver", None, NOON, None) for one in reversed(started)))
                    except psycopg.errors.DeadlockDetected as error:
                        failed.append(str(error))
        return failed

    with ThreadPoolExecutor(2) as pool:
        deadlocks = list(pool.map(run, [orders, other_order], [1, 2]))
    assert deadlocks == [[], []]
    assert counts(connection) == {KERB: 0, GARAGE: 0} and running(connection) == {}


def test_restarts_that_cross_never_deadlock(connection, url):
    """Each closes a session in one zone and starts its plate's next one in the other's."""
    rounds, barrier = 60, Barrier(2)

    def run(plate: str, here: str, there: str) -> list[str]:
        failed = []
        with psycopg.connect(url, autocommit=True, options="-c deadlock_timeout=10ms") as own:
            for n in range(rounds):
                now = NOON + n * HOUR
                last = sessions.start(own, [call(plate, here, at=now, minutes=1)])[0]
                assert isinstance(last, Started)
                barrier.wait(10)
                try:
                    with own.transaction():
                        sessions.lock_restart(own, errors.SessionInTheWay(last.id, there))
                        own.execute("SELECT FROM end_sessions(%s, %s, 'restart')", ([last.id], now + HOUR / 2))
                        next_ = sessions.start(own, [call(plate, there, at=now + HOUR / 2)])[0]
                    assert isinstance(next_, Started)
                    stop(own, StopCall(next_.id, "driver", None, now + HOUR / 2, None))
                except psycopg.errors.DeadlockDetected as error:
                    failed.append(str(error))
                    own.execute("SELECT FROM end_sessions(%s, %s, 'restart')", ([last.id], now + HOUR / 2))
        return failed

    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run, "30A-000.01", KERB, GARAGE), pool.submit(run, "30A-000.02", GARAGE, KERB)]
        assert [one.result() for one in runs] == [[], []]
    assert counts(connection) == {KERB: 0, GARAGE: 0} and running(connection) == {}


def test_a_group_of_stops_ends_each_session_once(connection):
    first, second = call("30A-000.01"), call("30A-000.02", GARAGE)
    start(connection, first, second)
    now = NOON + HOUR / 2
    answers = stop(
        connection,
        StopCall(second.id, "driver", None, now, "b"),
        StopCall(first.id, "driver", None, now, "a"),
        StopCall(first.id, "driver", None, now, "a"),
        StopCall(first.id, "driver", NOON, now, "a"),
        StopCall(first.id, "driver", None, now, "c"),
        StopCall(first.id, "other", None, now, None),
        StopCall(sessions.new_id(NOON), "driver", None, now, None),
    )
    assert [answer.id for answer in answers[:3]] == [second.id, first.id, first.id]
    assert [answer.zone_count and answer.zone_count.occupied for answer in answers[:3]] == [0, 0, None]
    assert answers[3:] == [errors.KeyConflict, errors.SessionEnded, errors.UnknownSession, errors.UnknownSession]
    assert counts(connection) == {KERB: 0, GARAGE: 0}


def test_a_stop_that_is_refused_harms_no_other(connection):
    early, over, right = call("30A-000.01"), call("30A-000.02", at=NOON - 2 * HOUR), call("30A-000.03")
    start(connection, early, over, right)
    answers = stop(
        connection,
        StopCall(early.id, "driver", NOON - HOUR, NOON, "k"),
        StopCall(early.id, "driver", None, NOON, "other"),
        StopCall(over.id, "driver", None, NOON, None),
        StopCall(right.id, "driver", None, NOON, None),
    )
    assert answers[:3] == [errors.StoppedBeforeStart, errors.Overtaken, errors.SessionExpired]
    assert isinstance(answers[3], Ended) and set(running(connection)) == {"30A-000.01", "30A-000.02"}


def test_a_place_that_was_given_back_before_is_not_given_back_again(connection):
    over = call("30A-000.01", at=NOON - 2 * HOUR)
    start(connection, over, call("30A-000.02"))
    sessions.release_over(connection, NOON)
    assert counts(connection)[KERB] == 1
    rows = connection.execute("SELECT outcome, fee FROM end_sessions(%s, %s, 'expiry')", ([over.id], NOON)).fetchall()
    assert rows == [("closed", 25_000)] and counts(connection)[KERB] == 1


def test_a_column_that_is_added_does_no_harm(connection):
    """Between a migration and the functions of its release, also where their plans were made before."""

    def every_verb() -> list[object]:
        calls = [call(f"30A-000.0{n}", minutes=30) for n in range(1, 6)]
        started = start(connection, *calls)
        stopped, cancelled, voided, ended, extended = (one.id for one in started)
        sessions.extend(connection, extended, "driver", 30, NOON)
        rows = connection.execute("SELECT outcome FROM cancel_sessions(%s, %s)", ([cancelled], NOON)).fetchall()
        rows += connection.execute("SELECT outcome FROM end_sessions(%s, %s, 'expiry')", ([ended], NOON + HOUR))
        sessions.void(connection, [voided], NOON)
        answers = stop(connection, StopCall(stopped, "driver", None, NOON, None))
        assert isinstance(answers[0], Ended) and set(running(connection)) == {"30A-000.05"}
        stop(connection, StopCall(extended, "driver", None, NOON, None))
        return rows

    assert every_verb() == [("closed",)] * 2
    with connection.transaction(force_rollback=True):
        for table in ("active_session", "parking_session", "zone_occupancy", "parking_check"):
            connection.execute(f"ALTER TABLE {table} ADD COLUMN note text DEFAULT 'none'")
        assert every_verb() == [("closed",)] * 2
        query = "SELECT note, count(*) FROM parking_session GROUP BY note"
        assert connection.execute(query).fetchall() == [("none", 10)]

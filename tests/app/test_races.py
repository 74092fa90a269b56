"""What two requests that meet may be answered, and what is left behind: one of few outcomes, never a mixture."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import Any

import psycopg
import pytest
from flask import Flask

from app import create_app, jobs
from app.resources import Resources, make_resources
from tests.app.test_grouping import wait_until
from tests.conftest import Client, SteppedClock
from zones.sessions import release_over

ZONE = "HK-001"
ROUNDS = 25


def together(*calls: Callable[[], Any]) -> list[Any]:
    """The results of calls that begin at the same moment, each on a thread of its own."""
    barrier = Barrier(len(calls))

    def wait_and(call: Callable[[], Any]) -> Any:
        barrier.wait(10)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(wait_and, calls))


@pytest.fixture
def apps(app: Flask, resources: Resources) -> Iterator[list[Flask]]:
    """The service as two processes of it: nothing shared but PostgreSQL, Redis and the clock."""
    others = replace(make_resources(resources.settings), clock=resources.clock)
    found = [app, create_app(others.settings, others)]
    for one in found:
        one.test_client_class = Client
    yield found
    others.close()


@pytest.fixture
def late(resources: Resources) -> Flask:
    """A process whose clock is a moment behind that of the jobs' process, at half past eight."""
    behind = SteppedClock("2026-10-14T08:29:59.999+07:00")
    app = create_app(resources.settings, replace(resources, clock=behind))
    app.test_client_class = Client
    return app


def start(app: Flask, plate: str, *, key: str | None = None, role: str = "driver", **more: Any) -> Any:
    body = {"zone": ZONE, "plate": plate, "vehicle_class": "car", "payment_method": "wallet"} | more
    return app.test_client().post("/v1/sessions", json=body, role=role, key=key)


def stop(app: Flask, session: dict, **more: Any) -> Any:
    return app.test_client().post(f"/v1/sessions/{session['id']}/stop", json=more, role="driver")


def extend(app: Flask, session: dict, minutes: int) -> Any:
    body = {"minutes": minutes}
    return app.test_client().post(f"/v1/sessions/{session['id']}/extend", json=body, role="driver")


def left(resources: Resources) -> dict[str, int]:
    """What the database holds: vehicles counted, sessions running and over, charges."""
    query = """SELECT (SELECT sum(occupied) FROM zone_occupancy), (SELECT count(*) FROM active_session),
                      (SELECT count(*) FROM parking_session),
                      (SELECT count(*) FROM ledger_transaction WHERE kind = 'parking')"""
    with psycopg.connect(resources.settings.owner_url) as connection:
        row = connection.execute(query).fetchone()
    return dict(zip(("occupied", "running", "over", "charges"), row or (), strict=True))


def answered(response: Any) -> str:
    return response.json.get("code") or response.json["state"]


def test_one_key_in_two_processes_at_once_makes_one_session(apps: list[Flask], resources: Resources):
    for n in range(ROUNDS):
        calls = [lambda app=app, n=n: start(app, f"30A-{n:03}.00", key=f"k{n}", minutes=30) for app in apps * 2]
        answers = together(*calls)
        assert {(answer.status_code, answer.data) for answer in answers} == {(201, answers[0].data)}
        stop(apps[0], answers[0].json)
        again = [start(app, f"30A-{n:03}.00", key=f"k{n}", minutes=30) for app in apps]
        assert {(answer.status_code, answer.data) for answer in again} == {(201, answers[0].data)}, "after its end too"
    assert left(resources) == {"occupied": 0, "running": 0, "over": ROUNDS, "charges": ROUNDS}


def test_one_key_with_two_bodies_in_two_processes_makes_the_session_of_one(apps: list[Flask], resources: Resources):
    for n in range(ROUNDS):
        answers = together(
            lambda n=n: start(apps[0], f"30A-{n:03}.00", key=f"k{n}"),
            lambda n=n: start(apps[1], f"30A-{n:03}.01", key=f"k{n}"),
        )
        assert sorted(map(answered, answers)) == ["idempotency_conflict", "running"]
    assert left(resources) == {"occupied": ROUNDS, "running": ROUNDS, "over": 0, "charges": 0}


def test_one_plate_of_two_drivers_in_two_processes_is_parked_once(apps: list[Flask], resources: Resources):
    for n in range(ROUNDS):
        answers = together(
            lambda n=n: start(apps[0], f"30A-{n:03}.00", role="driver-1"),
            lambda n=n: start(apps[1], f"30A-{n:03}.00", role="driver-2", zone="BD-001"),
        )
        assert sorted(map(answered, answers)) == ["already_parked", "running"]
    assert left(resources) == {"occupied": ROUNDS, "running": ROUNDS, "over": 0, "charges": 0}


def test_extension_that_races_a_stop_is_in_its_bill_or_refused(apps: list[Flask], resources: Resources):
    for n in range(ROUNDS):
        session = start(apps[0], f"30A-{n:03}.00", minutes=30).json
        extended, stopped = together(
            lambda session=session: extend(apps[0], session, 30), lambda session=session: stop(apps[1], session)
        )
        assert stopped.status_code == 200
        if extended.status_code == 200:
            assert stopped.json["ends_at"] == extended.json["ends_at"] == "2026-10-14T09:00:00.000+07:00"
        else:
            assert answered(extended) == "session_ended" and stopped.json["ends_at"] == session["ends_at"]
    assert left(resources) == {"occupied": 0, "running": 0, "over": ROUNDS, "charges": ROUNDS}


class TestStopThatRacesExpiry:
    """The request's instant decides, but for an extension of what was given back; a late stop (`stopped_at`) counts
    until something else has closed the session."""

    def test_of_the_instant_before_and_the_instant_itself(self, app: Flask, clock: SteppedClock):
        app.test_client_class = Client
        before, at = start(app, "30A-000.01", minutes=30).json, start(app, "30A-000.02", minutes=30).json
        clock.at("2026-10-14T08:29:59.999999")
        assert answered(stop(app, before)) == "ended"
        clock.at("2026-10-14T08:30:00")
        assert answered(stop(app, at)) == "session_expired"

    def test_late_stop_beside_the_job_that_gives_places_back(
        self, apps: list[Flask], resources: Resources, clock: SteppedClock
    ):
        sessions = [start(apps[0], f"30A-{n:03}.00", minutes=30).json for n in range(ROUNDS)]
        clock.at("2026-10-14T08:31:00")
        for session in sessions:
            stopped, _ = together(
                lambda session=session: stop(apps[1], session, stopped_at="2026-10-14T08:29:00+07:00"),
                lambda: jobs.release(resources),
            )
            assert (answered(stopped), stopped.json["ended_at"]) == ("ended", "2026-10-14T08:29:00.000+07:00")
        assert left(resources) == {"occupied": 0, "running": 0, "over": ROUNDS, "charges": ROUNDS}

    def test_late_stop_beside_the_plates_next_start(self, apps: list[Flask], resources: Resources, clock: SteppedClock):
        sessions = [start(apps[0], f"30A-{n:03}.00", minutes=30).json for n in range(ROUNDS)]
        clock.at("2026-10-14T08:31:00")
        outcomes: Counter[str] = Counter()
        for session in sessions:
            stopped, started = together(
                lambda session=session: stop(apps[0], session, stopped_at="2026-10-14T08:29:00+07:00"),
                lambda session=session: start(apps[1], session["plate"]),
            )
            assert started.status_code == 201
            outcomes[answered(stopped)] += 1
        assert set(outcomes) <= {"ended", "session_expired"}
        assert left(resources) == {"occupied": ROUNDS, "running": ROUNDS, "over": ROUNDS, "charges": ROUNDS}

    def test_extension_that_finds_its_place_given_back_is_refused_and_a_stop_is_not(
        self, app: Flask, late: Flask, resources: Resources, clock: SteppedClock
    ):
        """It came in before the end, and waits for the job that gives the place back."""
        app.test_client_class = Client
        session = start(app, "30A-000.00", minutes=30).json
        clock.at("2026-10-14T08:30:00")
        waits = """SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%extend_session%'"""
        with (
            psycopg.connect(resources.settings.owner_url) as job,
            psycopg.connect(resources.settings.owner_url, autocommit=True) as watching,
            ThreadPoolExecutor(1) as pool,
        ):
            assert [count.occupied for count in release_over(job, clock.now())] == [0]
            extended = pool.submit(extend, late, session, 60)
            wait_until(lambda: watching.execute(waits).fetchone() == (1,))
            job.commit()
            assert answered(extended.result()) == "session_expired"
        assert answered(extend(late, session, 60)) == "session_expired", "also where it need not wait"
        stopped = stop(late, session)
        assert (answered(stopped), stopped.json["ended_at"]) == ("ended", "2026-10-14T08:29:59.999+07:00")
        assert left(resources) == {"occupied": 0, "running": 0, "over": 1, "charges": 1}

    def test_extension_that_was_first_keeps_its_place(
        self, app: Flask, late: Flask, resources: Resources, clock: SteppedClock
    ):
        app.test_client_class = Client
        session = start(app, "30A-000.00", minutes=30).json
        clock.at("2026-10-14T08:30:00")
        assert extend(late, session, 60).json["ends_at"] == "2026-10-14T09:30:00.000+07:00"
        jobs.release(resources)
        assert left(resources) == {"occupied": 1, "running": 1, "over": 0, "charges": 0}

    def test_extension_beside_the_job_that_gives_places_back(
        self, apps: list[Flask], late: Flask, resources: Resources, clock: SteppedClock
    ):
        """Either was first, for the count too."""
        sessions = [start(apps[0], f"30A-{n:03}.00", minutes=30).json for n in range(ROUNDS)]
        clock.at("2026-10-14T08:30:00")
        outcomes = [
            together(lambda session=session: extend(late, session, 60), lambda: jobs.release(resources))[0]
            for session in sessions
        ]
        running = sum(extended.status_code == 200 for extended in outcomes)
        assert {answered(extended) for extended in outcomes} <= {"running", "session_expired"}
        jobs.release(resources)
        counted = apps[0].test_client().get(f"/v1/zones/{ZONE}/availability").json["car"]["occupied"]
        assert counted == running == left(resources)["occupied"]

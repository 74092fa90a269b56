"""A real streaming replica: it answers reports and maps, says as of when, falls behind, dies, and is promoted."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app import create_app, jobs
from app.config import Settings
from app.database import database_id
from app.pulse import BEAT_SECONDS, SILENCE_SECONDS
from app.resources import Resources, make_resources
from app.stack import Stack, prepare_database
from app.stack.folders import prepare
from app.stack.ports import choose_free
from app.stack.postgres import SUPERUSER, PostgreSQL
from app.stack.processes import wait_until, working_in
from bench.faults.site import send, wake
from tests.conftest import Client, fund
from tests.stack.conftest import make_home, open_place, remove_home
from zones.nodes import connect

PATIENCE = 30.0
HANG_SECONDS = 10.0
ZONE = "HK-001"


class Pair:
    """A primary with the shipped city, and its replica."""

    def __init__(self, stack: Stack, replica: PostgreSQL) -> None:
        self.stack = stack
        self.replica = replica
        self.url = prepare_database(stack)
        self.replica_url = replica.url("iparking")

    def on_replica(self, query: str) -> Any:
        with psycopg.connect(self.replica.url("iparking", SUPERUSER), autocommit=True) as connection:
            return connection.execute(query).fetchone()[0]

    def settings(self, keys_path: Path, **more: Any) -> Settings:
        url = f"{self.replica_url}?application_name=reports"
        return Settings(self.url, self.stack.redis_url, keys_path, "test", replica_url=url, **more)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with open_place() as folder:
        home, second = make_home(folder), make_home(folder / "second")
        try:
            with Stack(home, {}) as stack:
                with psycopg.connect(prepare_database(stack)) as connection:
                    fund(connection)
                replica = stack.postgres.copy_to(prepare(second), choose_free())
                replica.start()
                try:
                    yield Pair(stack, replica)
                finally:
                    replica.stop()
        finally:
            remove_home(second)
            remove_home(home)


@contextmanager
def serving(settings: Settings, **replaced: Any) -> Iterator[tuple[Client, Resources]]:
    held = replace(make_resources(settings), **replaced)
    app = create_app(settings, held)
    app.test_client_class = Client
    try:
        yield app.test_client(), held  # type: ignore[misc]
    finally:
        held.close()


def start(client: Client, plate: str, key: str | None = None) -> Any:
    body = {"zone": ZONE, "plate": plate, "vehicle_class": "car", "payment_method": "wallet"}
    return client.post("/v1/sessions", json=body, role="driver", key=key)


def report(client: Client) -> tuple[int, datetime]:
    """Today's arrivals in the zone, and as of when."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    span = {"from": today.isoformat(), "to": datetime.now(UTC).replace(hour=23, minute=59).isoformat(), "bucket": "1d"}
    query = {**span, "zone": ZONE, "vehicle_class": "car"}
    answer = client.get("/v1/reports/occupancy", query_string=query, role="planner")
    assert answer.status_code == 200, answer.text
    return sum(row["arrivals"] for row in answer.json["rows"]), datetime.fromisoformat(answer.json["as_of"])


def readiness(client: Client) -> str:
    return client.get("/readyz").json["checks"]["replica"]


def asked(pair: Pair) -> bool:
    """Whether the service holds a connection to the replica."""
    return pair.on_replica("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'reports'") > 0


def expect_soon(condition: Any) -> None:
    assert wait_until(condition, PATIENCE)


def test_reports_and_maps_come_from_the_replica_and_say_as_of_when(pair: Pair, keys_path: Path):
    lonely = connect("redis://127.0.0.1:1/0", 0.25)
    with serving(pair.settings(keys_path), redis=lonely) as (client, _):
        assert start(client, "30A-123.45").status_code == 201
        expect_soon(lambda: report(client)[0] == 1)
        assert asked(pair) and readiness(client) == "ok"
        began = datetime.now(UTC)
        expect_soon(lambda: report(client)[1] >= began)  # it moves on while nothing happens

        pair.on_replica("SELECT 1 FROM pg_wal_replay_pause()")
        expect_soon(lambda: pair.on_replica("SELECT pg_get_wal_replay_pause_state()") == "paused")
        paused = datetime.now(UTC)
        assert start(client, "30A-999.99").status_code == 201
        began = datetime.now(UTC)
        arrivals, as_of = report(client)
        assert arrivals == 1 and as_of <= began, "the second start is not in it, and as_of does not claim it"
        zone = client.get(f"/v1/zones?q={ZONE}&limit=1000").json["features"]
        found = [one["properties"]["availability"]["car"] for one in zone if one["id"] == ZONE]
        for car in found:
            assert datetime.fromisoformat(car["as_of"]) <= began or car["occupied"] == 2
        live = client.get(f"/v1/zones/{ZONE}/availability").json["car"]
        assert live["occupied"] == 2, "one zone's availability is the primary's"

        pair.on_replica("SELECT 1 FROM pg_wal_replay_resume()")
        expect_soon(lambda: report(client)[0] == 2)
        assert report(client)[1] > paused


def test_a_replica_too_far_behind_is_not_asked(pair: Pair, keys_path: Path):
    with serving(pair.settings(keys_path, replica_lag_seconds=2.0)) as (client, _):
        expect_soon(lambda: readiness(client) == "ok")
        pair.on_replica("SELECT 1 FROM pg_wal_replay_pause()")
        expect_soon(lambda: pair.on_replica("SELECT pg_get_wal_replay_pause_state()") == "paused")
        assert start(client, "30A-123.45").status_code == 201
        expect_soon(lambda: "behind" in readiness(client))
        began = datetime.now(UTC)
        arrivals, as_of = report(client)
        assert arrivals == 1 and as_of >= began.replace(microsecond=0), "the primary's answer"
        pair.on_replica("SELECT 1 FROM pg_wal_replay_resume()")
        expect_soon(lambda: readiness(client) == "ok")


def test_a_replica_that_dies_costs_no_answer_and_is_asked_again(pair: Pair, keys_path: Path):
    with serving(pair.settings(keys_path)) as (client, _):
        start(client, "30A-123.45")
        expect_soon(lambda: readiness(client) == "ok" and report(client)[0] == 1)
        pair.replica.stop()
        for _ in range(3):
            assert report(client)[0] == 1
        assert "not answer" in readiness(client)
        pair.replica.start()
        expect_soon(lambda: readiness(client) == "ok")


@contextmanager
def stopped(server: PostgreSQL) -> Iterator[None]:
    """SIGSTOP of all of a server's processes: connections stay open, and nobody answers."""
    frozen = working_in(server.data)
    for pid in frozen:
        send(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        wake(frozen)


def test_a_replica_that_hangs_keeps_nobody_waiting(pair: Pair, keys_path: Path):
    lonely = connect("redis://127.0.0.1:1/0", 0.25)
    with serving(pair.settings(keys_path), redis=lonely) as (client, held):
        start(client, "30A-123.45")
        expect_soon(lambda: readiness(client) == "ok" and report(client)[0] == 1)
        assert held.replica is not None
        expect_soon(lambda: held.replica._connections.pulse._own is not None)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(report, client).result()[0] == 1, "over a connection that stays open"
            with stopped(pair.replica):
                began = time.monotonic()
                reported, mapped = pool.submit(report, client), pool.submit(client.get, f"/v1/zones?q={ZONE}")
                # A bound of our own: what hangs must not keep us from the SIGCONT at the end of this block.
                done = wait([reported, mapped], HANG_SECONDS).done
                took = time.monotonic() - began
        assert done == {reported, mapped}, "the primary answers for it"
        assert reported.result()[0] == 1 and mapped.result().status_code == 200
        assert took < BEAT_SECONDS + SILENCE_SECONDS + 1
        expect_soon(lambda: readiness(client) == "ok")


def test_reports_go_on_while_the_primary_is_away_as_of_the_last_that_is_known(pair: Pair, keys_path: Path):
    with serving(pair.settings(keys_path)) as (client, _):
        start(client, "30A-123.45")
        expect_soon(lambda: report(client)[0] == 1)
        pair.stack.postgres.stop()
        stopped = datetime.now(UTC)
        assert start(client, "30A-999.99").status_code == 503
        arrivals, as_of = report(client)
        assert arrivals == 1 and as_of <= stopped
        pair.stack.postgres.start()
        expect_soon(lambda: start(client, "30A-999.99").status_code == 201)


def test_a_primary_given_as_replica_is_not_asked(pair: Pair, keys_path: Path):
    settings = replace(pair.settings(keys_path), replica_url=pair.url)
    with serving(settings) as (client, _):
        start(client, "30A-123.45")
        assert readiness(client) == "it is no replica" and report(client)[0] == 1


def test_promoted_it_goes_on_as_the_primary_with_copies_of_its_own(pair: Pair, keys_path: Path):
    """The old primary had counts that never reached the replica: their copies must not be taken for the new one's."""
    old = pair.settings(keys_path)
    with serving(old) as (client, held):
        kept = start(client, "30A-123.45", key="kept").json
        expect_soon(lambda: report(client)[0] == 1)
        pair.replica.stop()  # from here on it hears of nothing
        with psycopg.connect(pair.url, autocommit=True) as connection:
            old_id = database_id(connection)
            connection.execute("UPDATE zone_occupancy SET occupied = occupied + 7, version = version + 5 "
                               "WHERE zone_code = 'HK-001'")  # fmt: skip
        jobs.reconcile(held)
        held.copies.flush()
        assert client.get(f"/v1/zones/{ZONE}/availability").json["car"]["occupied"] == 8
        pair.stack.postgres.stop()
    pair.replica.start()
    assert pair.on_replica("SELECT pg_promote()") is True

    new = Settings(pair.replica_url, pair.stack.redis_url, keys_path, "test", replica_url=pair.url)
    with serving(new) as (client, held):
        assert held.catalogue.database_id.rpartition("-")[0] == old_id.rpartition("-")[0]
        assert held.catalogue.database_id != old_id, "another timeline, at once and not at the next checkpoint"
        live = client.get(f"/v1/zones/{ZONE}/availability").json["car"]
        assert live["occupied"] == 1, "what the old primary knew alone is gone, in every answer"
        assert start(client, "30A-123.45", key="kept").json["id"] == kept["id"]
        started = start(client, "30A-777.77")
        assert started.status_code == 201
        assert client.get(f"/v1/zones/{ZONE}/availability").json["car"]["occupied"] == 2
        for session in (kept, started.json):
            stopped = client.post(f"/v1/sessions/{session['id']}/stop", json={}, role="driver")
            assert stopped.json["state"] == "ended"
        jobs.reconcile(held)
        assert client.get("/v1/admin/consistency", role="operator").json["divergences"] == 0
        assert report(client)[0] == 2
        pair.stack.postgres.start()  # the old one comes back, with another history
        expect_soon(lambda: "no replica" in readiness(client))
        assert report(client)[0] == 2

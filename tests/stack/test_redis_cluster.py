"""The service on a Redis Cluster that loses a master under load: no request fails, and every copy is right again."""

import http.client
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from app.stack import Server, Stack
from app.stack.ports import choose_free
from app.stack.processes import wait_until
from tests.conftest import copy_of
from tests.redis_cluster import MASTERS, PATIENCE, RedisCluster, running_cluster

ZONES = 45
DRIVERS = 4
READERS = 2
# VND of each driver: more than they can park away while the cluster is harmed.
FUNDS = 10**12
# So many starts before the master's end, and again after its replica took over.
STARTS = 60
# A copy that was lost or late is right again after so long (real seconds), once there is a master for it.
RECONCILED_SECONDS = 5.0


class Caller:
    """One client's connection, kept open as a phone or a gateway would; every answer is counted."""

    def __init__(self, url: str, token: str | None, answers: Counter) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._answers = answers

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        text = None if body is None else json.dumps(body)
        self._connection.request(method, path, text, self._headers | headers)
        answer = self._connection.getresponse()
        content = answer.read()
        self._answers[method, answer.status] += 1
        return json.loads(content)


@dataclass
class Load:
    """Threads that start, stop and look, until told to end."""

    url: str
    tokens: list[str]
    zones: list[str]
    answers: Counter = field(default_factory=Counter)
    started: dict[str, str] = field(default_factory=dict)  # session by idempotency key
    stopped: set[str] = field(default_factory=set)
    failures: list[BaseException] = field(default_factory=list)
    _ending: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Load":
        work = [(self._drive, number) for number in range(DRIVERS)]
        work += [(self._look, number) for number in range(DRIVERS, DRIVERS + READERS)]
        self._threads = [threading.Thread(target=self._go_on, args=one) for one in work]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _go_on(self, act: Any, number: int) -> None:
        choice = random.Random(number)
        caller = Caller(self.url, self.tokens[number], self.answers)
        try:
            turn = 0
            while not self._ending.is_set():
                act(caller, choice, number, turn)
                turn += 1
        except BaseException as failure:
            self.failures.append(failure)

    def _drive(self, caller: Caller, choice: random.Random, number: int, turn: int) -> None:
        """A start, the same again with its key, and for two of three the stop."""
        body = {
            "zone": choice.choice(self.zones),
            "plate": f"30{'ABCDEFGH'[number]}-{turn // 100:03}.{turn % 100:02}",
            "vehicle_class": "car",
            "payment_method": "wallet",
        }
        key = f"start-{number}-{turn}"
        session = caller.call("POST", "/v1/sessions", body, **{"Idempotency-Key": key})
        if turn % 5 == 0:
            again = caller.call("POST", "/v1/sessions", body, **{"Idempotency-Key": key})
            assert again["id"] == session["id"]
        self.started[key] = session["id"]
        if turn % 3:
            caller.call("POST", f"/v1/sessions/{session['id']}/stop", {})
            self.stopped.add(session["id"])

    def _look(self, caller: Caller, choice: random.Random, number: int, turn: int) -> None:
        """A zone; now and then the whole map."""
        known = caller.call("GET", f"/v1/zones/{choice.choice(self.zones)}/availability")
        assert known["car"]["occupied"] is not None
        if turn % 10 == 0:
            assert len(caller.call("GET", "/v1/zones?limit=1000")["features"]) >= len(self.zones)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    """As Redis comes: while a master's place is empty the others do not serve either."""
    with running_cluster(full_coverage=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def database_url(worker_id: str) -> Iterator[str]:
    """A city of this module's own."""
    yield from copy_of("city", f"{worker_id}_cluster")


@pytest.fixture(scope="module")
def server(database_url: str, cluster: RedisCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    given = {"IPARKING_DATABASE_URL": database_url, "IPARKING_REDIS_URL": cluster.url}
    stack = Stack(tmp_path_factory.mktemp("clustered") / ".iparking", given)
    assert stack.status()["redis"] == {"running": None, "process": None, "port": None, "given": True}
    environment = {"IPARKING_ENV": "test"}
    server = Server(
        stack, port=choose_free(), workers=2, threads=8, environment=environment, drivers=DRIVERS + READERS, funds=FUNDS
    )
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def test_a_master_dies_under_load(cluster: RedisCluster, server: Server, database: psycopg.Connection) -> None:
    keys = json.loads(server.keys_path.read_text())
    rows = "SELECT zone_code FROM zone_occupancy WHERE vehicle_class = 'car' AND admission = 'advisory' ORDER BY 1"
    zones = [zone for (zone,) in database.execute(rows + f" LIMIT {ZONES}")]
    struck = next(shard for shard in range(MASTERS) if any(cluster.shard(f"{{{zone}}}") == shard for zone in zones))
    load = Load(server.url, keys["drivers"], zones)
    operator = Caller(server.url, keys["operator"], Counter())

    with load:
        assert wait_until(lambda: len(load.started) > STARTS, PATIENCE), load.failures
        heir = cluster.replica(struck)
        cluster.master(struck).kill()
        at_its_end = len(load.started)
        cluster.wait_for_master(heir)
        at_failover = len(load.started)
        assert wait_until(lambda: len(load.started) > at_failover + STARTS, PATIENCE), load.failures

    assert load.failures == []
    assert {status for _, status in load.answers} == {200, 201}, load.answers
    assert at_failover > at_its_end, "it went on without the master"
    assert_every_start_once(database, load)
    assert wait_until(lambda: copies_agree(cluster, database), RECONCILED_SECONDS)
    assert operator.call("GET", "/v1/admin/consistency")["divergences"] == 0
    assert answers_of(server, zones) == rows_of(database, zones)
    assert operator.call("GET", "/readyz")["checks"]["redis"] == "ok"


def assert_every_start_once(database: psycopg.Connection, load: Load) -> None:
    query = """SELECT id::text, true FROM active_session UNION ALL SELECT id::text, false FROM parking_session"""
    found = database.execute(query).fetchall()
    assert len(found) == len({session for session, _ in found}), "a session is both running and over"
    assert {session for session, _ in found} == set(load.started.values())
    assert {session for session, running in found if not running} == load.stopped


def copies_agree(cluster: RedisCluster, database: psycopg.Connection) -> bool:
    """Whether each row has its copy at the master that now serves its zone: read by redis-py's own client."""
    rows = database.execute("SELECT zone_code, vehicle_class, version, occupied FROM zone_occupancy").fetchall()
    held = {}
    for shard in range(MASTERS):
        master = cluster.master(shard).client
        for key in master.scan_iter(match="*:count:*", count=1000):
            held[key.partition(":")[2]] = master.get(key)
    wanted = {f"{{{zone}}}:count:{kind}": f"{version} {occupied} " for zone, kind, version, occupied in rows}
    return held.keys() == wanted.keys() and all(held[key].startswith(text) for key, text in wanted.items())


def rows_of(database: psycopg.Connection, zones: list[str]) -> dict[str, tuple[int, int]]:
    rows = database.execute("SELECT zone_code, occupied, version FROM zone_occupancy WHERE vehicle_class = 'car'")
    return {zone: (occupied, version) for zone, occupied, version in rows if zone in zones}


def answers_of(server: Server, zones: list[str]) -> dict[str, tuple[int, int]]:
    caller = Caller(server.url, None, Counter())
    known = {zone: caller.call("GET", f"/v1/zones/{zone}/availability")["car"] for zone in zones}
    return {zone: (car["occupied"], car["version"]) for zone, car in known.items()}

"""The service on a Redis Cluster that loses a master under the load of the faults (bench/faults), judged as they are:
no request fails, nothing is lost, doubled or wrong, and every copy is right again."""

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from app.stack.processes import wait_until
from bench.faults import THREADS, WORKERS, oracle, traffic, trial
from bench.faults.kinds import Break, Fault
from bench.faults.site import Site, open_site
from bench.faults.strike import Strike
from simulator.answers import Answer
from simulator.users import Keys
from tests.conftest import as_service, copy_of
from tests.redis_cluster import MASTERS, RedisCluster, running_cluster

READERS = 2
RATE = 50.0
# So many starts before the master's end, and again after its replica took over.
STARTS = 60
# How long the traffic goes on after the fault struck: an election is through within that. Real seconds.
AFTER_SECONDS = 9.0
# A copy that was lost or late is right again after so long (real seconds), once there is a master for it.
RECONCILED_SECONDS = 5.0
# The seconds that are promised count so many times: other tests run beside this one.
SLACK = 3.0


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
class Readers:
    """Threads that look at zones beside the traffic, until told to end."""

    url: str
    zones: list[str]
    answers: Counter = field(default_factory=Counter)
    failures: list[BaseException] = field(default_factory=list)
    _ending: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Readers":
        self._threads = [threading.Thread(target=self._go_on, args=(number,)) for number in range(READERS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _go_on(self, number: int) -> None:
        choice = random.Random(number)
        caller = Caller(self.url, None, self.answers)
        try:
            turn = 0
            while not self._ending.wait(0.01):
                self._look(caller, choice, turn)
                turn += 1
        except BaseException as failure:
            self.failures.append(failure)

    def _look(self, caller: Caller, choice: random.Random, turn: int) -> None:
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
def site(database_url: str, cluster: RedisCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    given = {
        "IPARKING_DATABASE_URL": as_service(database_url),
        "IPARKING_OWNER_DATABASE_URL": database_url,
        "IPARKING_REDIS_URL": cluster.url,
    }
    with open_site(tmp_path_factory.mktemp("clustered") / ".iparking", WORKERS, THREADS, given) as site:
        assert site.stack.status()["redis"] == {"running": None, "process": None, "port": None, "given": True}
        yield site


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@dataclass
class Failover:
    """What was there (starts, and the instant) when the master ended and when its replica had taken over."""

    starts: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def note(self, site: Site) -> None:
        self.starts.append(site.starts())
        self.times.append(time.time())


def master_killed(cluster: RedisCluster, shard: int, seen: Failover) -> Break:
    """kill -9 of a shard's master; over once its replica serves in its place."""

    @contextmanager
    def begin(site: Site, chance: random.Random, strike: Strike) -> Iterator[None]:
        master, heir = cluster.master(shard), cluster.replica(shard)
        strike.wait()
        master.kill()
        seen.note(site)
        cluster.wait_for_master(heir)
        seen.note(site)
        if not master.answers():
            strike.proof = f"the master at {master.port} is gone, {heir.port} serves"
        yield

    return begin


def test_the_oracle_sees_a_missing_and_a_wrong_copy(
    cluster: RedisCluster, database_url: str, database: psycopg.Connection
) -> None:
    rows = database.execute("SELECT zone_code, vehicle_class, version, occupied FROM zone_occupancy").fetchall()
    assert len(oracle.copies_that_differ(database_url, cluster.url)) == len(rows) > 100
    (prefix,) = database.execute(oracle._DATABASE).fetchone() or ("",)
    masters = [cluster.master(shard).client for shard in range(MASTERS)]
    for zone, kind, version, occupied in rows:
        key = f"{prefix}:{{{zone}}}:count:{kind}"
        masters[cluster.shard(f"{{{zone}}}")].set(key, f"{version} {occupied} ")
    assert oracle.copies_that_differ(database_url, cluster.url) == []
    masters[cluster.shard(f"{{{zone}}}")].set(key, f"{version} {occupied + 1} ")
    (wrong,) = oracle.copies_that_differ(database_url, cluster.url)
    assert wrong.startswith(f"{zone} {kind}: row {occupied}")
    for master in masters:
        master.flushall()


def test_a_master_dies_under_load(cluster: RedisCluster, site: Site, database: psycopg.Connection) -> None:
    rows = "SELECT zone_code FROM zone_occupancy WHERE vehicle_class = 'car' ORDER BY 1"
    zones = [zone for (zone,) in database.execute(rows)]
    struck = next(shard for shard in range(MASTERS) if any(cluster.shard(f"{{{zone}}}") == shard for zone in zones))
    seen = Failover()
    fault = Fault("redis_master_killed", "kill -9 of a cluster's master", master_killed(cluster, struck, seen))
    operator = Caller(site.service.url, Keys.read(site.service.keys_path).operator, Counter())

    with Readers(site.service.url, zones) as readers:
        result = trial.run(site, fault, traffic.Plates(), random.Random(1), RATE, after=AFTER_SECONDS, slack=SLACK)

    assert result.violations == []
    assert (result.errors, result.lost, result.doubled, result.divergences) == (0, 0, 0, 0)
    assert readers.failures == []
    assert {status for _, status in readers.answers} == {200}, readers.answers
    answers = oracle.read(site.folder / f"{fault.name}.answers")
    assert {answer.status for answer in answers} <= {200, 201, 409}
    at_its_end, at_failover = seen.starts
    assert at_failover > at_its_end > STARTS, "it went on without the master"
    assert result.starts > at_failover + STARTS
    assert_keys_give_the_same_session(site, answers, seen)
    assert wait_until(lambda: copies_agree(cluster, database), RECONCILED_SECONDS)
    assert operator.call("GET", "/v1/admin/consistency")["divergences"] == 0
    # At sixty times the speed sessions still run out meanwhile, and are tidied up.
    assert wait_until(lambda: answers_of(site, zones) == rows_of(database, zones), RECONCILED_SECONDS)
    assert operator.call("GET", "/readyz")["checks"]["redis"] == "ok"


def assert_keys_give_the_same_session(site: Site, answers: list[Answer], seen: Failover) -> None:
    """Of the starts that were sent while there was no master."""
    since, until = seen.times
    starts = [answer for answer in answers if answer.action == "start" and answer.status == 201]
    meanwhile = [answer for answer in starts if since <= answer.sent <= until]
    assert meanwhile
    drivers = Keys.read(site.service.keys_path).drivers
    for start in meanwhile:
        body = {"zone": start.zone, "plate": start.plate, "vehicle_class": "car", "payment_method": "wallet"}
        if start.minutes is not None:
            body["minutes"] = start.minutes
        caller = Caller(site.service.url, drivers[start.driver], Counter())
        again = caller.call("POST", "/v1/sessions", body, **{"Idempotency-Key": start.key})
        assert again["id"] == json.loads(start.body)["id"]


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


def answers_of(site: Site, zones: list[str]) -> dict[str, tuple[int, int]]:
    caller = Caller(site.service.url, None, Counter())
    known = {zone: caller.call("GET", f"/v1/zones/{zone}/availability")["car"] for zone in zones}
    return {zone: (car["occupied"], car["version"]) for zone, car in known.items()}

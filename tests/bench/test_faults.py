"""The judge of the faults can tell: lost and doubled starts, wrong counts and copies, broken promises."""

import json
import random
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from redis import Redis

from app import jobs
from app.resources import Resources
from bench.errors import BenchError
from bench.faults import chosen, in_order, oracle, report, traffic
from bench.faults.kinds import BY_NAME, FAULTS, Fault
from bench.faults.trial import Result, judge
from simulator.answers import Answer
from simulator.city import City
from simulator.trace import TraceReader
from tests.conftest import ROOT, Client
from tests.simulator.runs import START

KEYS = [f"run-{n}" for n in range(1, 7)]


@pytest.fixture
def superuser(database_url: str) -> Iterator[psycopg.Connection]:
    """A connection that may do what no code of the service may: change rows behind every rule."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")  # no trigger runs
        yield connection


@pytest.fixture
def answers(client: Client) -> list[Answer]:
    """Starts of six vehicles as they were answered; the first three were stopped, the last was sent twice."""
    found = []
    for number, key in enumerate(KEYS, 1):
        body = {"zone": "HK-001", "plate": f"30A-000.{number:02d}", "vehicle_class": "car", "payment_method": "cash"}
        answer = client.post("/v1/sessions", json=body, role="driver-1", key=key)
        tries = 2 if number == len(KEYS) else 1
        found.append(
            Answer(
                0.0,
                0.0,
                0.0,
                1.0,
                tries,
                "start",
                body["plate"],
                "car",
                "HK-001",
                None,
                key,
                0,
                None,
                None,
                answer.status_code,
                answer.text,
            )
        )
        if number <= 3:
            stop = client.post(f"/v1/sessions/{answer.json['id']}/stop", json={}, role="driver-1", key=f"{key}-stop")
            assert stop.status_code == 200
    return found


def test_after_a_true_run_nothing_is_lost_or_doubled(answers: list[Answer], database_url: str):
    assert oracle.examine(database_url, answers) == (6, 0, 0, 1)


@pytest.mark.parametrize("table", ["active_session", "parking_session"])
def test_a_start_that_is_gone_is_lost(answers, database_url, superuser, table: str):
    gone = f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} ORDER BY id LIMIT 2)"
    assert superuser.execute(gone).rowcount == 2
    assert oracle.examine(database_url, answers) == (6, 2, 0, 1)


def test_a_start_that_is_there_under_two_ids_is_doubled(answers, database_url, superuser):
    copy = """INSERT INTO parking_session SELECT (r).* FROM (
        SELECT jsonb_populate_record(p, '{"id": "00000000-0000-7000-8000-000000000001"}') AS r
          FROM parking_session p ORDER BY id LIMIT 1) twin"""
    assert superuser.execute(copy).rowcount == 1
    assert oracle.examine(database_url, answers) == (6, 0, 1, 1)


def test_a_session_that_both_runs_and_is_over_is_doubled(answers, database_url, superuser):
    copy = """INSERT INTO parking_session (id, plate, vehicle_class, client, zone_code, admission, started_at, over_at,
            ended_at, ended_by, received_at, payment_method, rate_version, fee)
        SELECT id, plate, vehicle_class, client, zone_code, admission, started_at, over_at, started_at, 'driver',
               started_at, payment_method, rate_version, 0 FROM active_session ORDER BY id LIMIT 1"""
    assert superuser.execute(copy).rowcount == 1
    assert oracle.examine(database_url, answers).doubled == 1


def test_two_starts_answered_with_one_session_are_doubled(answers, database_url):
    assert oracle.examine(database_url, [*answers, answers[0]]).doubled == 1


def test_a_wrong_count_and_a_wrong_or_missing_copy_are_seen(answers, database_url, superuser, resources: Resources):
    redis_url = resources.settings.redis_url
    resources.copies.flush()
    jobs.reconcile(resources)
    resources.copies.flush()
    assert oracle.copies_that_differ(database_url, redis_url) == []
    superuser.execute("UPDATE zone_occupancy SET occupied = 9 WHERE (zone_code, vehicle_class) = ('HK-001', 'car')")
    assert oracle.copies_that_differ(database_url, redis_url)[0] == "HK-001 car: counted 9, sessions 3"
    jobs.reconcile(resources)
    resources.copies.flush()
    superuser.execute("UPDATE zone_occupancy SET occupied = 3 WHERE (zone_code, vehicle_class) = ('HK-001', 'car')")
    (stale,) = oracle.copies_that_differ(database_url, redis_url)
    assert stale.startswith("HK-001 car: row 3")
    with Redis.from_url(redis_url) as redis:
        redis.flushdb()
    assert len(oracle.copies_that_differ(database_url, redis_url)) > 100
    dead = urlsplit(redis_url)._replace(netloc="127.0.0.1:1").geturl()
    assert oracle.copies_that_differ(database_url, dead)[0].startswith("Redis does not answer")


def judged(fault: Fault, **found: object) -> list[str]:
    """What is said of a fault that struck, with requests in flight, and did what it cannot but do."""
    result = Result(fault.name, struck="seen", in_flight=9, recovered_s=0.0)
    found["errors_by_kind"] = dict.fromkeys(fault.must, 1) | found.get("errors_by_kind", {})
    for name, value in found.items():
        setattr(result, name, value)
    judge(fault, {"partial": False}, result)
    return result.violations


@pytest.mark.parametrize(
    ("name", "found", "words"),
    [
        ("redis_killed", {"errors_by_kind": {"503": 1}}, "1 tries ended in 503"),
        ("postgresql_killed", {"errors_by_kind": {"timeout": 2}}, "2 tries ended in timeout"),
        ("postgresql_killed", {"errors_by_kind": {"503_without_retry_after": 3}}, "503_without_retry_after"),
        ("postgresql_killed", {"slowest_503_s": 2.01}, "a 503 came after 2.01 s"),
        ("postgresql_killed", {"recovered_s": 5.1}, "the last failure came 5.1 s after the fault"),
        ("api_worker_killed", {"unanswered": 1}, "1 requests had no answer at all"),
        ("api_worker_killed", {"lost": 1}, "1 starts lost"),
        ("api_worker_killed", {"doubled": 2}, "2 starts doubled"),
        ("redis_killed", {"struck": None}, "nothing shows that the fault struck"),
        ("redis_killed", {"in_flight": 0}, "no request was in flight when the fault struck"),
    ],
)
def test_each_broken_promise_is_named(name: str, found: dict[str, object], words: str):
    (violation,) = judged(BY_NAME[name], **found)
    assert words in violation


@pytest.mark.parametrize("name", ["postgresql_killed", "postgresql_stopped", "connections_exhausted", "disk_full"])
def test_without_the_failures_that_a_fault_must_cause_it_is_not_believed(name: str):
    result = Result(name, struck="seen", in_flight=9, recovered_s=0.0)
    judge(BY_NAME[name], {"partial": False}, result)
    assert result.violations == ["no try ended in 503"]


def test_what_a_fault_may_cause_breaks_no_promise():
    assert judged(BY_NAME["postgresql_killed"], errors_by_kind={"503": 99}, slowest_503_s=1.9, recovered_s=4.9) == []
    assert judged(BY_NAME["api_worker_killed"], errors_by_kind={"lost": 9}) == []


def test_faults_are_chosen_by_name():
    assert chosen(()) == list(FAULTS)
    assert [fault.name for fault in chosen(["redis_killed"])] == ["redis_killed"]
    with pytest.raises(BenchError, match="no fault meteor; there are api_worker_killed"):
        chosen(["meteor"])


def test_a_seed_gives_an_order_and_another_seed_another():
    orders = {seed: [fault.name for fault in in_order(FAULTS, random.Random(seed))] for seed in (1, 2)}
    assert orders[1] == [fault.name for fault in in_order(FAULTS, random.Random(1))]
    assert orders[1] != orders[2] and sorted(orders[1]) == sorted(orders[2]) == sorted(BY_NAME)
    assert orders[1][-1] == orders[2][-1] == "disk_full"


def test_traffic_is_the_same_for_a_seed_and_no_plate_comes_back(tmp_path: Path):
    city = City.from_geojson(ROOT / "zones" / "data" / "zones.geojson")
    plates = traffic.Plates()

    def write(name: str, plates: traffic.Plates) -> Path:
        path = tmp_path / name
        traffic.write(path, datetime.fromisoformat(START), city.zones, plates, random.Random(3), 5.0, 40.0)
        return path

    first, same, later = write("a", plates), write("b", traffic.Plates()), write("c", plates)
    assert first.read_bytes() == same.read_bytes()
    events = [list(TraceReader(path)) for path in (first, later)]
    actions = {event.action for event in events[0]}
    assert actions == {"start", "extend", "check", "stop"}
    assert not {event.plate for event in events[0]} & {event.plate for event in events[1]}


def test_summary_is_one_document():
    found = report.summary([Result("redis_killed", requests=5, recovered_s=0.0, divergences=1)], 7, 1.25)
    assert json.loads(json.dumps(found))["faults"][0]["name"] == "redis_killed"
    assert (found["divergences"], found["seed"]) == (1, 7)

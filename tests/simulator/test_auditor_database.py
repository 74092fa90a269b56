"""The auditor against the real service on real PostgreSQL and Redis: silent after a true run, loud after tampering."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

import psycopg
import pytest

from app.stack.ports import choose_free
from app.stack.processes import wait_until
from simulator.answers import microseconds
from simulator.auditor import Audit, audit
from simulator.replay import Plan, replay
from simulator.service import Service
from tests.conftest import ROOT, copy_of, fund
from tests.simulator.runs import START, event, plan

SPEED = 100.0
TRAFFIC = [
    *(event(n * 2.0, f"v{n}", "start", "HK-001") for n in range(1, 9)),
    event(20.0, "v9", "start", "HK-001", minutes=60),
    event(22.0, "v10", "start", "HK-001", minutes=1),  # runs out
    event(40.0, "v9", "extend", "HK-001", minutes=30),
    *(event(50.0 + n, f"v{n}", "stop", "HK-001") for n in range(1, 5)),
    event(60.0, "v11", "start", "HK-001", plate="30A-000.05"),  # v5 has not left
    event(70.0, "w12", "start", "HK-001", vehicle_class="motorbike", plate="29-AB 123.45"),
    event(130.0, "v13", "start", "HK-001"),
    event(400.0, "v10", "stop", "HK-001"),  # too late, also where its start was seconds late
]


TABLES = (
    "active_session", "parking_session", "parking_check", "zone_occupancy", "ledger_transaction", "ledger_entry",
    "wallet", "hold",
)  # fmt: skip


@pytest.fixture(scope="module")
def database(worker_id: str) -> Iterator[str]:
    """A city of this module's own, whose drivers have money."""
    for url in copy_of("city", f"{worker_id}_auditor"):
        with psycopg.connect(url) as connection:
            fund(connection)
            connection.execute("INSERT INTO ledger_account (code) VALUES ('revenue/001/iparking')")
        yield url


@pytest.fixture(scope="module")
def copies_url() -> str:
    """A Redis database that no worker empties; its keys carry the database's id."""
    return urlunsplit(urlsplit(os.environ["IPARKING_TEST_REDIS_URL"])._replace(path="/15"))


@pytest.fixture(scope="module")
def service(database: str, copies_url: str, keys_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the real service on that city, with a fast clock; without the jobs, so that nothing heals."""
    port = choose_free()
    command = [sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "IPARKING_DATABASE_URL": database,
        "IPARKING_REDIS_URL": copies_url,
        "IPARKING_KEYS": str(keys_path),
        "IPARKING_ENV": "simulation",
        "IPARKING_CLOCK_START": START,
        "IPARKING_CLOCK_SPEED": str(SPEED),
        "IPARKING_CLOCK_ANCHOR": datetime.now(UTC).isoformat(),
    }
    with (tmp_path_factory.mktemp("service") / "log").open("w") as log:
        child = subprocess.Popen(
            [*command, "--blocking-threads", "4", "wsgi:application"], env=environment, cwd=ROOT, stdout=log, stderr=log
        )
        try:
            wait_until_ready(f"http://127.0.0.1:{port}/readyz", child)
            yield f"http://127.0.0.1:{port}"
        finally:
            child.terminate()
            child.wait(20)


def wait_until_ready(url: str, child: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 60
    while child.poll() is None and time.monotonic() < until:
        try:
            with urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"the service is not ready (it ended with {child.poll()})")


@pytest.fixture(scope="module")
def played(service: str, database: str, keys_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The traffic was replayed; what the database holds of it is saved."""
    intended = plan(tmp_path_factory.mktemp("played"), service, TRAFFIC, align="now")
    shutil.copy(keys_path, intended.keys)
    replay(intended)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA saved")
        for table in TABLES:
            connection.execute(f"CREATE TABLE saved.{table} AS TABLE {table}")
    return intended


Examine = Callable[..., Audit]


@pytest.fixture
def examine(played: Plan, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Examine]:
    """`examine(statement, ...)` tampers with the database and audits; afterwards all is as it was."""
    monkeypatch.setattr("simulator.auditor.interface.QUIET_SECONDS", 0.0)
    monkeypatch.setattr("simulator.auditor.money.JOBS_SECONDS", 3600)  # no job runs here
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")  # past the triggers that would refuse it

        def run(*statements: str) -> Audit:
            for statement in statements:
                connection.execute(statement)
            return audit([played.answers], played.keys, database_url=database)

        yield run
        for table in TABLES:
            connection.execute(f"DELETE FROM {table}")
            connection.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM saved.{table}")
    wait_for_a_new_map(played.base_url)


def wait_for_a_new_map(url: str) -> None:
    """The map is kept for a second: the next test must not see what this one did."""
    service = Service(url)
    restored = service.clock().business
    wait_until(lambda: _map_of(service) > restored, 10.0)
    service.close()


def _map_of(service: Service) -> int:
    (feature,) = service.get("/v1/zones?limit=1")["features"]
    return microseconds(feature["properties"]["availability"]["car"]["as_of"])


def test_a_true_run_has_no_divergences(examine: Examine) -> None:
    found = examine()
    assert [str(divergence) for divergence in found.verdict.kept] == []
    assert found.book.codes == {"already_parked": 1, "session_expired": 1}
    assert found.verdict.compared["sessions in PostgreSQL"] == len(found.book.sessions) == 12
    assert found.verdict.compared["charges"] == 4
    assert found.verdict.compared["wallets"] >= 4
    (row,) = (row for row in found.districts if row["code"] == "002")
    assert json.dumps(row), "plain numbers: the demo prints them"
    assert (row["report"], row["ledger"]) == (row["revenue"], row["revenue"] - 30_000), "v10's end is not booked yet"
    revenue = {row["code"]: row["revenue"] for row in found.districts}
    assert revenue["002"] == sum(session.fee or 0 for session in found.book.sessions.values()) + 30_000


ITS_DISTRICT = "SELECT id FROM ledger_account WHERE code = 'revenue/002/iparking'"
ANOTHER_DISTRICT = "SELECT id FROM ledger_account WHERE code = 'revenue/001/iparking'"


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("UPDATE parking_session SET fee = fee + 1", "fee"),
        ("UPDATE parking_session SET fee = fee * 2", "charge"),
        ("UPDATE parking_session SET ended_at = ended_at + interval '1 second'", "session"),
        ("UPDATE parking_session SET zone_code = 'HK-002'", "session"),
        ("UPDATE parking_session SET ended_by = 'expiry'", "session"),
        ("DELETE FROM parking_session", "lost"),
        ("DELETE FROM active_session WHERE plate = '30A-000.13'", "lost"),
        ("UPDATE active_session SET plate = '30A-999.99' WHERE plate = '30A-000.13'", "session"),
        ("UPDATE active_session SET started_at = started_at - interval '1 hour'", "session"),
        ("UPDATE active_session SET over_at = over_at + interval '1 minute'", "session"),
        ("UPDATE zone_occupancy SET occupied = occupied + 1 WHERE zone_code = 'HK-001'", "count"),
        ("UPDATE zone_occupancy SET capacity = capacity + 1 WHERE zone_code = 'HK-001'", "count"),
        ("DELETE FROM ledger_transaction WHERE kind = 'parking'", "charge"),
        ("UPDATE ledger_entry SET amount = amount * 2", "charge"),
        (f"UPDATE ledger_entry SET account_id = ({ANOTHER_DISTRICT}) WHERE account_id = ({ITS_DISTRICT})", "revenue"),
        ("UPDATE wallet SET balance = balance - 1 WHERE owner = 'driver-1'", "wallet"),
        ("UPDATE wallet SET held = held + 1 WHERE owner = 'driver-1'", "wallet"),
        ("UPDATE hold SET id = gen_random_uuid() WHERE state = 'pending'", "wallet"),
    ],
)
def test_a_tampered_row_is_found(examine: Examine, statement: str, kind: str) -> None:
    assert examine(statement).verdict.by_kind[kind] > 0


def test_a_session_that_nobody_started_is_found(examine: Examine) -> None:
    stranger = """INSERT INTO active_session SELECT (jsonb_populate_record(a, '{"plate": "30A-777.77",
        "id": "01900000-0000-7000-8000-000000000000", "idempotency_key": "x"}')).* FROM active_session a
        WHERE plate = '30A-000.13'"""
    counted = """UPDATE zone_occupancy SET occupied = occupied + 1, version = version + 1
        WHERE zone_code = 'HK-001' AND vehicle_class = 'car'"""
    found = examine(stranger, counted)
    assert found.verdict.by_kind["unknown"] == 2  # in the API and in PostgreSQL


BOOK_AGAIN = """
    WITH again AS (
        INSERT INTO ledger_transaction (id, kind, reference, at)
        SELECT gen_random_uuid(), kind, {reference}, at FROM ledger_transaction WHERE kind = 'parking' RETURNING id)
    INSERT INTO ledger_entry
    SELECT again.id, account_id, amount FROM again, ledger_entry
     WHERE transaction_id = (SELECT min(id::text)::uuid FROM ledger_transaction WHERE kind = 'parking')"""


def test_a_charge_for_nobody_is_found(examine: Examine) -> None:
    assert examine(BOOK_AGAIN.format(reference="gen_random_uuid()::text")).verdict.by_kind == {
        "charge": 4,
        "wallet": 1,
    }


def test_a_second_charge_for_one_session_is_found(examine: Examine) -> None:
    unique = "ALTER TABLE ledger_transaction DROP CONSTRAINT ledger_transaction_kind_reference_key"
    assert examine(unique, BOOK_AGAIN.format(reference="reference")).verdict.by_kind == {
        "charge": 4,
        "revenue": 1,
    }

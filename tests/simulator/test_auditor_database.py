"""The auditor against the real service on real PostgreSQL and Redis: silent after a true run, loud after each tampering."""

import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from werkzeug.serving import WSGIRequestHandler, make_server

from app import create_app
from app.config import Settings
from app.resources import Resources, make_resources
from simulator.auditor import Audit, audit
from simulator.replay import replay
from tests.simulator.runs import START, event, plan

SPEED = 60.0
TRAFFIC = [
    *(event(n * 2.0, f"v{n}", "start", "HK-001") for n in range(1, 9)),
    event(20.0, "v9", "start", "HK-001", minutes=60),
    event(22.0, "v10", "start", "HK-001", minutes=1),  # runs out
    event(40.0, "v9", "extend", "HK-001", minutes=30),
    *(event(50.0 + n, f"v{n}", "stop", "HK-001") for n in range(1, 5)),
    event(60.0, "v11", "start", "HK-001", plate="30A-000.05"),  # v5 has not left
    event(70.0, "w12", "start", "HK-001", vehicle_class="motorbike", plate="29-AB 123.45"),
    event(120.0, "v10", "stop", "HK-001"),  # too late
    event(130.0, "v13", "start", "HK-001"),
]


@pytest.fixture(autouse=True)
def _no_need_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.auditor.interface.QUIET_SECONDS", 0.2)


@pytest.fixture
def resources(database_url: str, redis_url: str, keys_path: Path) -> Iterator[Resources]:
    """The service's resources with a clock that runs sixty times as fast, from a second from now."""
    anchor = datetime.now(UTC) + timedelta(seconds=1)
    clock = {"clock_start": datetime.fromisoformat(START), "clock_speed": SPEED, "clock_anchor": anchor}
    held = make_resources(Settings(database_url, redis_url, keys_path, "simulation", **clock))  # type: ignore[arg-type]
    yield held
    held.catalogue.stop()
    held.engine.dispose()
    held.redis.close()


class KeepAlive(WSGIRequestHandler):
    """A thread a connection, not a request: each thread has a connection to PostgreSQL of its own."""

    protocol_version = "HTTP/1.1"

    def log(self, *_: object) -> None:
        """Nothing: pytest would keep a line for each request."""


@pytest.fixture
def service(resources: Resources) -> Iterator[str]:
    """The service's address."""
    server = make_server(
        "127.0.0.1", 0, create_app(resources.settings, resources), threaded=True, request_handler=KeepAlive
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


Examine = Callable[..., Audit]


@pytest.fixture
def examine(service: str, database_url: str, keys_path: Path, tmp_path: Path) -> Examine:
    """Replay the traffic; then `examine(statement)` tampers with the database and audits."""
    intended = plan(tmp_path, service, TRAFFIC, limit=4)
    shutil.copy(keys_path, intended.keys)
    replay(intended)

    def run(*statements: str) -> Audit:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("SET session_replication_role = replica")  # past the triggers that would refuse it
            for statement in statements:
                connection.execute(statement)
        return audit([intended.answers], intended.keys, database_url=database_url)

    return run


def test_a_true_run_has_no_divergences(examine: Examine) -> None:
    found = examine()
    assert [str(divergence) for divergence in found.verdict.kept] == []
    assert found.book.codes == {"already_parked": 1, "session_expired": 1}
    assert found.verdict.compared["sessions in PostgreSQL"] == len(found.book.sessions) == 12
    assert found.verdict.compared["payments"] == 4
    revenue = {row["code"]: row["revenue"] for row in found.districts}
    assert revenue["002"] == sum(session.fee or 0 for session in found.book.sessions.values()) + 25_000


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("UPDATE parking_session SET fee = fee + 1", "fee"),
        ("UPDATE parking_session SET fee = fee * 2", "payment"),
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
        ("DELETE FROM payment", "payment"),
        ("UPDATE payment SET amount = amount * 2", "payment"),
    ],
)
def test_a_tampered_row_is_found(examine: Examine, statement: str, kind: str) -> None:
    assert examine(statement).verdict.by_kind[kind] > 0


def test_a_session_that_nobody_started_is_found(examine: Examine) -> None:
    stranger = """INSERT INTO active_session SELECT (jsonb_populate_record(a, '{"plate": "30A-777.77",
        "id": "01900000-0000-7000-8000-000000000000", "idempotency_key": "x"}')).* FROM active_session a
        WHERE plate = '30A-000.13'"""
    counted = "UPDATE zone_occupancy SET occupied = occupied + 1, version = version + 1 WHERE zone_code = 'HK-001' AND vehicle_class = 'car'"
    found = examine(stranger, counted)
    assert found.verdict.by_kind["unknown"] == 2  # in the API and in PostgreSQL


def test_a_payment_for_nobody_is_found(examine: Examine) -> None:
    stray = """INSERT INTO payment (id, session_id, client, method, amount, currency, state, created_at)
        VALUES (gen_random_uuid(), gen_random_uuid(), 'driver-1', 'cash', 1, 'VND', 'due', '2026-11-23T00:00:00Z')"""
    assert examine(stray).verdict.by_kind == {"payment": 1}


def test_a_second_charge_for_one_session_is_found(examine: Examine) -> None:
    again = """INSERT INTO payment (id, session_id, client, method, amount, currency, state, created_at)
        SELECT gen_random_uuid(), session_id, client, method, amount, currency, state, created_at FROM payment"""
    found = examine("ALTER TABLE payment DROP CONSTRAINT payment_session_id_key", again)
    try:
        assert found.verdict.by_kind == {"payment": 4}
    finally:
        examine("DELETE FROM payment", "ALTER TABLE payment ADD CONSTRAINT payment_session_id_key UNIQUE (session_id)")


def test_a_wrong_copy_in_redis_is_found(examine: Examine, resources: Resources) -> None:
    for key in resources.redis.keys("*{HK-001}:count:car"):
        version, _, capacity, next_over = resources.redis.get(key).decode().split(" ")  # type: ignore[union-attr]
        resources.redis.set(key, f"{int(version) + 1} 0 {capacity} {next_over}")
    found = examine()
    assert found.verdict.by_kind["count"] > 0
    assert found.verdict.by_kind["consistency"] == 1


def test_the_auditor_changes_nothing(examine: Examine, database_url: str) -> None:
    query = "SELECT xact_commit, tup_inserted + tup_updated + tup_deleted FROM pg_stat_database WHERE datname = current_database()"
    with psycopg.connect(database_url, autocommit=True) as connection:
        before = connection.execute(query).fetchone()
        examine()
        after = connection.execute(query).fetchone()
    assert before is not None
    assert after is not None
    assert before[1] == after[1]

"""Migrations beside a service under load: starts go on, also where a long transaction holds what a migration needs."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import count
from pathlib import Path

import psycopg
import pytest
from flask import Flask

from app import create_app
from app.database import upgrade
from app.resources import Resources, make_resources
from app.stack.processes import wait_until
from billing import ledger
from tests.conftest import ROOT, Client, settings_of

LONGEST_SECONDS = 1.0
THREADS = 4
HELD_SECONDS = 3.0

# As the next release might have it: a column on what runs and on what is over, and an index on each.
INDEXES = """
from migrations.concurrently import create_index

revision = "t1"
down_revision = "{head}"

def upgrade():
    create_index("parking_session_received", "parking_session", "(received_at)")
    create_index("active_session_started", "active_session", "(started_at)")
"""
COLUMN = """
from alembic import op

revision = "t2"
down_revision = "t1"

def upgrade():
    op.execute("ALTER TABLE active_session ADD COLUMN note text")
    op.execute("ALTER TABLE zone_occupancy ADD COLUMN note text")
    op.execute("ALTER TABLE parking_session ADD COLUMN note text")
"""


class Starts:
    """Threads that start and stop sessions over and over; how long each start took, and what was no success."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.seconds: list[float] = []
        self.failed: list[str] = []
        self.ending = threading.Event()
        self.numbers = count(1)

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._run, args=(n,)) for n in range(1, THREADS + 1)]
        for thread in threads:
            thread.start()
        try:
            assert wait_until(lambda: len(self.seconds) > 10 * THREADS, 30.0)
            yield
        finally:
            self.ending.set()
            for thread in threads:
                thread.join()

    def _run(self, driver: int) -> None:
        client: Client = self.app.test_client()  # type: ignore[assignment]
        while not self.ending.is_set():
            plate = f"30A-{next(self.numbers) % 100_000:05}"
            body = {"zone": "HK-001", "plate": plate, "vehicle_class": "car", "payment_method": "wallet"}
            began = time.monotonic()
            started = client.post("/v1/sessions", json=body, role=f"driver-{driver}", key=f"{driver}-{plate}")
            self.seconds.append(time.monotonic() - began)
            if started.status_code != 201:
                self.failed.append(f"{started.status_code} {started.text}")
                continue
            stopped = client.post(f"/v1/sessions/{started.json['id']}/stop", json={}, role=f"driver-{driver}")
            if stopped.status_code != 200:
                self.failed.append(f"{stopped.status_code} {stopped.text}")


@pytest.fixture
def database(own_database: str) -> str:
    """With sessions of two months and of no partition."""
    with psycopg.connect(own_database, autocommit=True) as connection:
        connection.execute("SELECT make_month_partitions('2026-09-15+07', 2)")
        connection.execute(PAST)
        drivers = [f"driver-{n}" for n in range(1, THREADS + 1)]
        ledger.fund(connection, drivers, 10**12, datetime.fromisoformat("2026-01-01T00:00+07:00"))
    return own_database


PAST = """
INSERT INTO parking_session (id, plate, vehicle_class, client, zone_code, admission, started_at, over_at, ended_at,
                             ended_by, received_at, payment_method, rate_version, fee)
SELECT gen_random_uuid(), '29A-' || n, 'car', 'old', 'HK-002', 'advisory', at, at + '1 h', at + '1 h',
       'driver', at + '1 h', 'wallet', 'v', 25000
  FROM generate_series(1, 60000) n, LATERAL (SELECT '2026-08-20+07'::timestamptz + n * interval '1 minute') t(at)
"""


@pytest.fixture
def starts(database: str, redis_url: str, resources: Resources) -> Iterator[Starts]:
    settings = settings_of(database, redis_url, resources.settings.keys_path)
    held = replace(make_resources(settings), clock=resources.clock)
    app = create_app(settings, held)
    app.test_client_class = Client
    yield Starts(app)
    held.close()


@pytest.fixture
def versions(database: str, tmp_path: Path) -> Path:
    with psycopg.connect(database) as connection:
        head = connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]
    (tmp_path / "t1_index.py").write_text(INDEXES.format(head=head))
    (tmp_path / "t2_column.py").write_text(COLUMN)
    return tmp_path


@contextmanager
def holding(url: str, statement: str, seconds: float) -> Iterator[threading.Thread]:
    """A transaction that keeps the locks of a statement for so long."""
    begun = threading.Event()

    def hold() -> None:
        with psycopg.connect(url) as connection:
            connection.execute(statement)
            begun.set()
            connection.execute("SELECT pg_sleep(%s)", (seconds,))

    thread = threading.Thread(target=hold)
    thread.start()
    assert begun.wait(10.0)
    yield thread
    thread.join()


def begin_upgrade(url: str, more: Path) -> subprocess.Popen[str]:
    """As it is deployed: in a process of its own."""
    code = "import sys, pathlib; from app.database import upgrade; upgrade(sys.argv[1], more=pathlib.Path(sys.argv[2]))"
    return subprocess.Popen([sys.executable, "-c", code, url, str(more)], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def upgraded(url: str, more: Path) -> None:
    process = begin_upgrade(url, more)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said


def index_states(url: str) -> dict[str, bool]:
    query = """SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE c.relname LIKE '%received' OR c.relname = 'active_session_started'"""
    with psycopg.connect(url) as connection:
        return dict(connection.execute(query).fetchall())


def expect_quick(starts: Starts) -> None:
    assert starts.failed == []
    assert max(starts.seconds) < LONGEST_SECONDS, sorted(starts.seconds)[-5:]


def test_upgrade_keeps_no_start_waiting(starts: Starts, database: str, versions: Path):
    with starts.running():
        upgraded(database, versions)
    expect_quick(starts)
    states = index_states(database)
    assert len(states) >= 5 and all(states.values())  # the parent's, of three months, of the default, and the other one


def test_a_long_transaction_holds_up_the_migration_and_nobody_else(starts: Starts, database: str, versions: Path):
    with starts.running(), holding(database, "SELECT count(*) FROM active_session", HELD_SECONDS) as holder:
        before = len(starts.seconds)
        began = time.monotonic()
        upgraded(database, versions)
        assert time.monotonic() - began > HELD_SECONDS - 1 and not holder.is_alive()
        assert len(starts.seconds) > before + 10, "starts went on meanwhile"
    expect_quick(starts)


def test_functions_are_replaced_under_load_and_old_forms_go(starts: Starts, database: str):
    other_arguments = "CREATE FUNCTION close_sessions(integer) RETURNS integer LANGUAGE sql AS 'SELECT 1'"
    other_result = "CREATE FUNCTION counts_as_of(timestamptz) RETURNS integer LANGUAGE sql AS 'SELECT 1'"
    with starts.running():
        for _ in range(5):
            upgrade(database)
    expect_quick(starts)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(other_arguments)
        connection.execute("DROP FUNCTION counts_as_of(timestamptz)")
        connection.execute(other_result)
        upgrade(database)
        query = "SELECT count(*) FROM pg_proc WHERE proname IN ('close_sessions', 'counts_as_of')"
        assert connection.execute(query).fetchone() == (2,)
        assert connection.execute("SELECT count(*) FROM counts_as_of('2026-10-14+07')").fetchone()[0] > 100


def test_an_index_that_was_left_half_made_is_made_anew(database: str, versions: Path):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO parking_session_default SELECT * FROM parking_session LIMIT 0")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("CREATE UNIQUE INDEX CONCURRENTLY parking_session_2026_09_received "
                               "ON parking_session_2026_09 (client)")  # fmt: skip
    assert index_states(database)["parking_session_2026_09_received"] is False
    upgrade(database, more=versions)
    upgrade(database, more=versions)
    assert all(index_states(database).values())


def test_two_upgrades_at_once_both_succeed(database: str, versions: Path):
    both = [begin_upgrade(database, versions) for _ in range(2)]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert all(index_states(database).values())

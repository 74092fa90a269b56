"""The service through a real PgBouncer in transaction mode (Debian's 1.18, which knows no prepared statements)."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from app.config import Settings
from app.database import ThreadConnections, connect, make_engine
from app.pulse import BEAT_SECONDS, SILENCE_SECONDS
from app.stack.folders import run_user
from app.stack.pooler import PgBouncer
from app.stack.ports import choose_free
from app.stack.processes import wait_until
from tests.conftest import ROOT
from tests.stack.conftest import open_place

# What decides: sessions, groups, checks, keys, jobs, money.
CORE = [
    f"tests/app/test_{name}.py" for name in ("sessions", "round_trips", "grouping", "jobs", "enforcement", "wallet")
]

POOL = 20  # default_pool_size
PATIENCE = 20.0


@pytest.fixture(scope="module")
def pooler() -> Iterator[PgBouncer]:
    """A PgBouncer before the tests' own PostgreSQL."""
    with open_place() as folder:
        user = run_user(folder / "none")
        url = os.environ["IPARKING_TEST_DATABASE_URL"]
        with PgBouncer(folder / "pooler", choose_free(), url, user) as pooler:
            yield pooler


@pytest.fixture
def pooled(pooler: PgBouncer, database_url: str) -> Settings:
    url, nowhere = pooler.url(database_url), "redis://127.0.0.1:1/0"
    return Settings(url, nowhere, environment="test", pooler="transaction", pulse_url=pooler.pulse_url)


def pid(connection: psycopg.Connection) -> int:
    return connection.execute("SELECT pg_backend_pid()").fetchone()[0]


def test_core_part_of_the_suite_passes_through_it(pooler: PgBouncer, tmp_path: Path):
    environment = {**os.environ, "IPARKING_TEST_POOLER_PORT": str(pooler.port)}
    for name in [name for name in environment if name.startswith("PYTEST_")]:
        del environment[name]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/core", *CORE]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE) and "skipped" not in done.stdout


def test_many_clients_share_few_connections(pooled: Settings):
    limit = 20  # default_pool_size
    settings = replace(pooled, database_url=pooled.database_url + "?application_name=shared")
    connections = [connect(settings) for _ in range(60)]
    with ThreadPoolExecutor(60) as threads:
        pids = set(threads.map(lambda connection: pid(connection), connections))
    for connection in connections:
        connection.close()
    assert len(pids) <= limit


def test_locks_and_statements_have_their_time_outs(pooled: Settings, database_url: str):
    held = "SELECT FROM zone_occupancy WHERE zone_code = 'HK-001' FOR UPDATE"
    with (
        closing(connect(pooled, lock_timeout_seconds=0.2)) as short,
        closing(connect(replace(pooled, lock_timeout_seconds=0.5))) as longer,
        psycopg.connect(database_url) as rival,
    ):
        rival.execute(held)
        for connection in (short, longer):
            with pytest.raises(psycopg.errors.LockNotAvailable):
                connection.execute(held)
            with connection.transaction():
                connection.execute("SELECT 1")
                with pytest.raises(psycopg.errors.LockNotAvailable), connection.transaction():
                    connection.execute(held)
            assert connection.execute("SELECT 1").fetchone() == (1,), "the connection is as good as before"
        assert short.execute("SHOW statement_timeout").fetchone() == ("20s",), "only for locks it is in a hurry"
        with pytest.raises(psycopg.errors.QueryCanceled):
            longer.execute("SELECT pg_sleep(5)")  # four times the service's lock time-out is 2 s


def test_a_transaction_that_is_left_open_gives_its_locks_back(pooled: Settings, database_url: str):
    held = "SELECT zone_code FROM zone_occupancy WHERE zone_code = 'HK-001' FOR UPDATE"
    with (
        closing(connect(replace(pooled, lock_timeout_seconds=0.5))) as left,
        psycopg.connect(database_url, options="-c lock_timeout=8s") as rival,
    ):
        left.autocommit = False
        left.execute(held)
        assert rival.execute(held).fetchone() == ("HK-001",), "after 1 s, twice the service's lock time-out"
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            left.execute("SELECT 1")


def test_the_engine_has_them_too(pooled: Settings):
    engine = make_engine(replace(pooled, lock_timeout_seconds=0.2))
    query = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout'), current_setting('timezone')"
    with engine.connect() as connection:
        for number in range(8):  # past the number from which psycopg would prepare a statement
            found = connection.execute(text(f"{query}, :number"), {"number": number}).one()
            assert tuple(found) == ("200ms", "800ms", "UTC", number)
    engine.dispose()


def test_nothing_that_one_client_sets_reaches_another(pooled: Settings):
    with closing(connect(pooled, lock_timeout_seconds=0.2)) as first, closing(connect(pooled)) as second:
        for connection, expected in ((first, "200ms"), (second, "5s"), (first, "200ms")):
            assert connection.execute("SELECT current_setting('lock_timeout')").fetchone() == (expected,)
        raw = psycopg.connect(pooled.database_url, autocommit=True, prepare_threshold=None)
        with closing(raw):
            assert raw.execute("SELECT current_setting('lock_timeout')").fetchone() == ("0",)


def test_a_pool_that_is_full_of_waits_for_a_lock_is_no_hang(pooled: Settings, database_url: str):
    """The pulse has a pool of its own: it does not queue behind what it watches over."""
    wanted = "UPDATE zone_occupancy SET occupied = occupied WHERE zone_code = 'HK-001'"
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    connections = ThreadConnections(replace(pooled, lock_timeout_seconds=PATIENCE))
    connections.pulse.watch()
    with (
        ThreadPoolExecutor(POOL) as threads,
        psycopg.connect(database_url) as rival,
        psycopg.connect(database_url, autocommit=True) as watcher,
    ):
        rival.execute(wanted)
        done = [threads.submit(lambda: connections.get().execute(wanted).rowcount) for _ in range(POOL)]
        assert wait_until(lambda: watcher.execute(waiting).fetchone() == (POOL,), PATIENCE)
        assert not wait(done, BEAT_SECONDS + SILENCE_SECONDS + 1, FIRST_COMPLETED).done
        assert connections.pulse._own is not None and not connections.pulse._silent
        rival.commit()
        assert {one.result(PATIENCE) for one in done} == {2}
    connections.close()


def test_parameters_keep_their_values(pooled: Settings):
    values = ("Phố Trần Hưng Đạo '; DROP TABLE x; --", "back\\slash %s %%", None, -5, 2**60, b"\x00\xff", [1, 2], True)
    query = "SELECT %s::text, %s::text, %s::integer, %s::integer, %s::bigint, %s::bytea, %s::bigint[], %s::boolean"
    with closing(connect(pooled)) as connection:
        assert connection.execute(query, values).fetchone() == values


def test_a_time_zone_of_the_server_changes_no_answer(pooler: PgBouncer, pooled: Settings, database_url: str):
    """Another client of the pool has the server's own; ours stays UTC on whichever connection it is lent."""
    raw = psycopg.connect(pooled.database_url, autocommit=True, prepare_threshold=None)
    with closing(raw), closing(connect(pooled)) as ours:
        raw.execute("SET timezone = 'Asia/Ho_Chi_Minh'")
        for _ in range(3):
            assert raw.execute("SHOW timezone").fetchone() == ("Asia/Ho_Chi_Minh",)
            assert ours.execute("SHOW timezone").fetchone() == ("UTC",)


def test_clients_are_told_soon_where_no_connection_is_free(pooler: PgBouncer, pooled: Settings):
    """The pool is exhausted by transactions that stay open: nobody waits for two minutes."""
    holders = [psycopg.connect(pooled.database_url, prepare_threshold=None) for _ in range(20)]
    for holder in holders:
        holder.execute("SELECT 1")
    waited = threading.Event()

    def ask() -> None:
        try:
            with closing(connect(pooled)) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            waited.set()

    thread = threading.Thread(target=ask)
    thread.start()
    told = wait_until(waited.is_set, 8.0)
    for holder in holders:
        holder.close()
    thread.join()
    assert told

"""PostgreSQL away, in each way in which it can be: 503 with Retry-After, at once, and back as soon as it is."""

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import sqlalchemy.exc
from flask import Flask

from app import create_app, jobs
from app.door import Door
from app.pulse import BEAT_SECONDS, MARGIN_SECONDS, SILENCE_SECONDS, Pulse, TimedConnection
from app.resources import Resources, make_resources
from tests.conftest import Client

SESSION = {"zone": "HK-001", "plate": "30A-123.45", "vehicle_class": "car", "payment_method": "wallet"}
PATIENCE = 20.0


def wait_until(condition: object, seconds: float = PATIENCE) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("the connection is closed"),
        psycopg.errors.DiskFull("could not extend file"),
        psycopg.errors.TooManyConnections("sorry, too many clients already"),
        psycopg.errors.AdminShutdown("terminating connection due to administrator command"),
        psycopg.errors.CrashShutdown("terminating connection because of crash of another server process"),
        psycopg.errors.CannotConnectNow("the database system is starting up"),
        psycopg.errors.IoError("could not read block"),
        psycopg.errors.IdleInTransactionSessionTimeout("terminating connection"),
        psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT in a read-only transaction"),
        sqlalchemy.exc.TimeoutError("QueuePool limit reached"),
        sqlalchemy.exc.InternalError("SELECT 1", None, psycopg.errors.ReadOnlySqlTransaction("a standby")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_passes_is_503_with_retry_after(app: Flask, error: Exception):
    @app.route("/away")
    def away() -> str:
        raise error

    answer = app.test_client().get("/away")
    assert (answer.status_code, answer.json["code"], answer.headers["Retry-After"]) == (503, "unavailable", "1")
    assert str(error) not in answer.text


def test_a_broken_rule_of_the_database_is_a_bug_and_no_503(app: Flask):
    @app.route("/bug")
    def bug() -> str:
        raise psycopg.errors.CheckViolation("secret")

    app.config["PROPAGATE_EXCEPTIONS"] = False
    answer = app.test_client().get("/bug")
    assert answer.status_code == 500 and "secret" not in answer.text


def test_a_connection_that_died_while_idle_fails_nobody(client: Client, resources: Resources):
    """After a restart of PostgreSQL every thread holds a dead one, some for minutes."""
    url = resources.settings.owner_url
    assert client.post("/v1/sessions", json=SESSION, role="driver").status_code == 201
    assert client.get("/v1/sessions", role="driver").status_code == 200
    with psycopg.connect(url, autocommit=True) as connection:
        query = """SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()"""
        assert connection.execute(query).fetchone()[0] >= 2
    again = SESSION | {"plate": "30A-123.46"}
    assert client.post("/v1/sessions", json=again, role="driver").status_code == 201
    assert len(client.get("/v1/sessions", role="driver").json["sessions"]) == 2
    resources.catalogue.refresh()


class Valve:
    """A way to PostgreSQL that can be shut (connections stay open, and nothing passes), swallow answers, and be cut."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.open = threading.Event()
        self.open.set()
        self.swallows = False
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.open.wait()
                far = socket.create_connection(self._target)
                self._sockets += [near, far]
                self._threads.append(threading.Thread(target=self._pass_on, args=(near, far), daemon=True))
                self._threads[-1].start()

    def _pass_on(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError, ValueError):
            while True:
                readable, _, _ = select.select([near, far], [], [])
                self.open.wait()
                for one in readable:
                    data = one.recv(65536)
                    if not data:
                        return [end.shutdown(socket.SHUT_RDWR) for end in (near, far)] and None
                    if one is near or not self.swallows:
                        (far if one is near else near).sendall(data)

    def cut(self) -> None:
        """End all connections that are open now."""
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.open.set()
        self._listener.close()
        self.cut()
        for thread in self._threads[1:]:
            thread.join(PATIENCE)
        for one in self._sockets:
            one.close()


@pytest.fixture
def valve(database_url: str) -> Iterator[Valve]:
    parts = urlsplit(database_url)
    valve = Valve(parts.hostname or "127.0.0.1", parts.port or 5432)
    yield valve
    valve.close()


@pytest.fixture
def behind(resources: Resources, valve: Valve) -> Iterator[Resources]:
    """The resources of a process whose PostgreSQL lies behind the valve."""
    parts = urlsplit(resources.settings.database_url)
    where = parts.netloc.rpartition("@")[0] + f"@127.0.0.1:{valve.port}"
    settings = replace(resources.settings, database_url=urlunsplit(parts._replace(netloc=where)))
    held = replace(make_resources(settings), clock=resources.clock)
    yield held
    valve.open.set()
    held.close()


def test_a_server_that_hangs_keeps_nobody_waiting(behind: Resources, valve: Valve):
    app = create_app(behind.settings, behind)
    app.test_client_class = Client
    client: Client = app.test_client()  # type: ignore[assignment]
    assert client.post("/v1/sessions", json=SESSION, role="driver", key="k").status_code == 201
    assert client.get("/v1/sessions", role="driver").status_code == 200
    assert wait_until(lambda: behind.connections.pulse._own is not None)
    valve.open.clear()
    began = time.monotonic()
    waited = client.post("/v1/sessions", json=SESSION | {"plate": "30A-123.46"}, role="driver", key="k2")
    assert (waited.status_code, waited.headers["Retry-After"]) == (503, "1")
    assert time.monotonic() - began < BEAT_SECONDS + SILENCE_SECONDS + 5, "no time-out of a statement ends it so soon"
    began = time.monotonic()
    for refused in (client.get("/v1/sessions", role="driver"), client.get("/v1/reports/occupancy", role="planner")):
        assert refused.status_code in (400, 503)
    assert client.post("/v1/sessions", json=SESSION, role="driver", key="k").status_code == 503
    assert time.monotonic() - began < SILENCE_SECONDS, "who comes later is told at once"
    valve.open.set()
    assert wait_until(lambda: client.get("/v1/sessions", role="driver").status_code == 200)
    again = client.post("/v1/sessions", json=SESSION | {"plate": "30A-123.46"}, role="driver", key="k2")
    assert again.status_code == 201, "whether the first try was done nobody knew; with its key it is there once"
    assert len(client.get("/v1/sessions", role="driver").json["sessions"]) == 2


def test_who_asks_a_process_that_is_not_ready_is_told_when_to_ask_again(resources: Resources):
    nowhere = replace(resources.settings, database_url="postgresql://127.0.0.1:1/none")
    held = make_resources(nowhere)
    ready = create_app(nowhere, held).test_client().get("/readyz")
    held.close()
    assert (ready.status_code, ready.headers["Retry-After"]) == (503, "1")
    assert (ready.json["status"], ready.json["checks"]["postgresql"]) == ("unready", "down")


def test_a_backend_that_hangs_holds_up_its_group_only_as_long_as_a_statement_may_take(
    resources: Resources, database_url: str
):
    """And the pulse, which has a backend of its own, goes on."""
    settings = replace(resources.settings, lock_timeout_seconds=0.25)
    held = replace(make_resources(settings), clock=resources.clock)
    app = create_app(settings, held)
    app.test_client_class = Client

    def start(number: int) -> Any:
        return app.test_client().post("/v1/sessions", json=SESSION | {"plate": f"30A-000.{number:02d}"}, role="driver")

    assert start(0).status_code == 201
    (group,) = held._groups.values()
    stopped = group._connect().info.backend_pid
    os.kill(stopped, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(4) as pool:
            began = time.monotonic()
            answers = [pool.submit(start, number) for number in range(1, 5)]
            # A bound of our own: what hangs must not keep us from the SIGCONT below.
            waiting = wait(answers, PATIENCE).not_done
            took = time.monotonic() - began
            if waiting:
                os.kill(stopped, signal.SIGCONT)
        assert not waiting and took < 4 * 0.25 + MARGIN_SECONDS + BEAT_SECONDS + SILENCE_SECONDS + 1
        for answer in answers:
            assert (answer.result().status_code, answer.result().headers["Retry-After"]) == (503, "1")
        assert start(5).status_code == 201, "over a new connection, while that backend still hangs"
        assert not held.connections.pulse._silent
    finally:
        os.kill(stopped, signal.SIGCONT)
        held.close()


def test_an_answer_that_waited_for_a_stopped_process_is_no_hang(resources: Resources):
    """A worker that was stopped for a minute has its answer when it wakes: the pulse must not take it away."""
    connection = resources.connections.own(0.2)()
    assert isinstance(connection, TimedConnection)
    connection._since = time.monotonic() - connection.patience - 1
    assert connection.is_overdue()
    connection.pgconn.send_query(b"SELECT 1")
    assert wait_until(lambda: not connection.is_overdue())
    connection.close()


def test_a_commit_whose_answer_was_lost_is_503_and_its_key_gives_the_one_session(
    behind: Resources, valve: Valve, database_url: str
):
    app = create_app(behind.settings, behind)
    app.test_client_class = Client
    answers: list[Any] = []

    def start(plate: str = SESSION["plate"]) -> None:
        body = SESSION | {"plate": plate}
        answers.append(app.test_client().post("/v1/sessions", json=body, role="driver", key=plate))

    def ids() -> list[str]:
        return [str(row[0]) for row in connection.execute("SELECT id FROM active_session ORDER BY id")]

    for number in range(3):  # until starts go over a connection that is open, with a statement that is prepared
        start(f"30A-000.{number:02d}")
    valve.swallows = True
    with psycopg.connect(database_url, autocommit=True) as connection:
        thread = threading.Thread(target=start)
        thread.start()
        assert wait_until(lambda: len(ids()) == 4), "PostgreSQL has committed it"
        valve.cut()
        thread.join(PATIENCE)
        valve.swallows = False
        lost = answers[-1]
        assert (lost.status_code, lost.headers["Retry-After"]) == (503, "1")
        assert wait_until(lambda: start() or answers[-1].status_code == 201)
        assert sorted(one.json["id"] for one in answers if one.status_code == 201) == sorted(ids())
        assert connection.execute("SELECT sum(occupied) FROM zone_occupancy").fetchone() == (4,)


def test_a_wait_for_anothers_lock_is_no_hang(behind: Resources, database_url: str):
    """The pulse asks what waits for no lock: a statement that waits for one goes on."""
    behind.connections.pulse.watch()
    with psycopg.connect(database_url) as other:
        other.execute("SELECT 1 FROM zone_occupancy WHERE zone_code = 'HK-001' FOR UPDATE")
        connection = behind.connections.get()
        done: list[object] = []

        def wait_for_it() -> None:
            done.append(connection.execute("UPDATE zone_occupancy SET occupied = occupied WHERE zone_code = 'HK-001'"))

        thread = threading.Thread(target=wait_for_it)
        thread.start()
        thread.join(BEAT_SECONDS + SILENCE_SECONDS + 0.5)
        assert thread.is_alive() and not done
        other.commit()
        thread.join(PATIENCE)
    assert done and not connection.closed


def test_a_pulse_that_cannot_ask_says_so_once(caplog: pytest.LogCaptureFixture):
    """With a URL of its own that is wrong, no request would tell."""
    tries = threading.Semaphore(0)

    def nowhere() -> psycopg.Connection:
        tries.release()
        return psycopg.connect("postgresql://127.0.0.1:1/none")

    pulse = Pulse(nowhere, list)
    pulse.watch()
    for _ in range(3):
        assert tries.acquire(timeout=PATIENCE)
    pulse.stop()
    assert [record.name for record in caplog.records if "nobody watches" in record.message] == ["app.pulse"]


def test_while_nobody_is_let_in_one_try_is_made_for_all():
    door, tries = Door(), 0

    def connect(fails: bool) -> None:
        nonlocal tries
        with door.passing():
            tries += 1
            if fails:
                raise psycopg.OperationalError("too many connections")

    for _ in range(100):
        with pytest.raises(psycopg.OperationalError):
            connect(fails=True)
    assert tries < 50, "most were turned away without a try"
    tries = 0
    assert wait_until(lambda: suppressed(connect, fails=False))
    assert tries == 1
    connect(fails=False)
    connect(fails=False)
    assert tries == 3, "the door is open again"


def suppressed(call: Any, **arguments: Any) -> bool:
    with suppress(psycopg.OperationalError):
        call(**arguments)
        return True
    return False


def test_a_job_that_breaks_keeps_no_other_from_its_work(resources: Resources, monkeypatch: pytest.MonkeyPatch):
    ran: list[str] = []

    def broken(_: Resources) -> int:
        raise ZeroDivisionError

    def works(_: Resources) -> int:
        ran.append("works")
        return 1

    monkeypatch.setattr(jobs, "JOBS", {"broken": jobs.Job(broken, 1), "works": jobs.Job(works, 1)})
    due: dict[str, float] = {}
    jobs.run_due(resources, due, 10.0)
    assert ran == ["works"] and due == {"broken": 11.0, "works": 11.0}

"""What is broken, one thing at a time. A fault is a block: it holds as long as the block does, and is mended at its
end."""

import contextlib
import random
import signal
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import psycopg

from app.stack.processes import wait_until
from bench.errors import BenchError
from bench.faults.site import PATIENCE, Site, send, wake

Break = Callable[[Site, random.Random], AbstractContextManager[None]]
BUSY = """
SELECT pid FROM pg_stat_activity
 WHERE datname = current_database() AND usename = 'iparking_service' AND backend_type = 'client backend'"""
# An answer of Redis takes so long: once less, once more than the service waits for it.
SLOW_MS = (120, 400)
AN_HOUR = 3600.0
HOGS = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `may` are the kinds of failed tries that it may cause (none: the error rate must be 0), `seconds` how
    long it holds at least (None: it is over as soon as it is done, and what is mended then counts as recovery),
    `own_disk` that it needs servers on a small disk of their own."""

    name: str
    words: str
    begin: Break
    seconds: float | None = None
    may: frozenset[str] = frozenset()
    own_disk: bool = False
    short: bool = True  # worth its time in every run of the tests


AWAY = frozenset({"503"})
BROKEN = frozenset({"lost", "unconnected"})


@contextlib.contextmanager
def api_worker_killed(site: Site, chance: random.Random) -> Iterator[None]:
    """kill -9 of one of granian's workers, which granian must replace."""
    before = site.service.workers_alive()
    victim = chance.choice(before)
    send(victim, signal.SIGKILL)
    yield
    if not wait_until(lambda: len(set(site.service.workers_alive()) - {victim}) == len(before), PATIENCE):
        raise BenchError(f"worker {victim} was killed and not replaced within {PATIENCE:.0f} s")


@contextlib.contextmanager
def api_process_stopped(site: Site, chance: random.Random) -> Iterator[None]:
    """SIGSTOP of one worker, with all that it holds: connections, transactions, its share of new clients."""
    victim = chance.choice(site.service.workers_alive())
    send(victim, signal.SIGSTOP)
    try:
        yield
    finally:
        send(victim, signal.SIGCONT)


@contextlib.contextmanager
def clock_jumps(site: Site, chance: random.Random) -> Iterator[None]:
    """The wall clock of one worker is set by an hour, forward or back, and then right again."""
    jump = chance.choice([-AN_HOUR, AN_HOUR])
    file = site.clocks / str(chance.choice(site.service.workers_alive()))
    file.write_text(str(jump))
    try:
        if not wait_until(lambda: b"set by" in _ready(site), PATIENCE):
            raise BenchError("no worker noticed that its wall clock was set")
        yield
    finally:
        file.unlink()


def _ready(site: Site) -> bytes:
    """What /readyz says on a new connection, which any worker may take."""
    with urllib.request.urlopen(f"{site.service.url}/readyz", timeout=5) as answer:
        return bytes(answer.read())


@contextlib.contextmanager
def postgresql_killed(site: Site, chance: random.Random) -> Iterator[None]:
    """kill -9 of the postmaster and all its processes at once, as a power cut does; started again at the end, which
    recovers from the write-ahead log."""
    for pid in site.postgres_processes():
        send(pid, signal.SIGKILL)
    yield
    site.stack.start()


@contextlib.contextmanager
def backend_killed(site: Site, chance: random.Random) -> Iterator[None]:
    """kill -9 of one busy backend: PostgreSQL ends all connections and recovers by itself."""
    with site.connect() as connection:
        victims = [row[0] for row in connection.execute(BUSY)]
    send(chance.choice(victims), signal.SIGKILL)
    yield
    if not wait_until(lambda: _lets_in(site), PATIENCE):
        raise BenchError(f"PostgreSQL has not recovered within {PATIENCE:.0f} s")


def _lets_in(site: Site) -> bool:
    try:
        site.connect().close()
    except psycopg.OperationalError:
        return False
    return True


@contextlib.contextmanager
def postgresql_stopped(site: Site, chance: random.Random) -> Iterator[None]:
    """SIGSTOP of all of PostgreSQL: connections stay open, and nobody answers."""
    frozen = site.postgres_processes()
    for pid in frozen:
        send(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        wake(frozen)


@contextlib.contextmanager
def connection_dropped(site: Site, chance: random.Random) -> Iterator[None]:
    """pg_terminate_backend on busy backends, twenty times a second."""
    over, dropped = threading.Event(), [0]

    def drop() -> None:
        query = f"SELECT count(pg_terminate_backend(pid)) FROM ({BUSY} AND state <> 'idle' LIMIT 1) AS busy"
        with site.connect() as connection:
            while not over.wait(0.05):
                dropped[0] += connection.execute(query).fetchone()[0]  # type: ignore[index]

    thread = threading.Thread(target=drop)
    thread.start()
    try:
        yield
        if not wait_until(lambda: dropped[0] > 0, PATIENCE):
            raise BenchError("no connection was met in mid-transaction")
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def connections_exhausted(site: Site, chance: random.Random) -> Iterator[None]:
    """Others take every connection there is, and each that the service loses: its own are cut again and again."""
    over, full = threading.Event(), threading.Event()
    hogs = [threading.Thread(target=_hog, args=(site.stack.database_url("postgres"), over, full)) for _ in range(HOGS)]
    cutting = threading.Thread(target=_cut, args=(site, over))
    for thread in (*hogs, cutting):
        thread.start()
    try:
        if not full.wait(PATIENCE):
            raise BenchError(f"PostgreSQL still lets others in after {PATIENCE:.0f} s")
        yield
    finally:
        over.set()
        for thread in (*hogs, cutting):
            thread.join()


def _hog(url: str, over: threading.Event, full: threading.Event) -> None:
    """Take connections and keep them; `full` is set once there are none left."""
    with contextlib.ExitStack() as held:
        while not over.is_set():
            try:
                held.enter_context(psycopg.connect(url, autocommit=True, connect_timeout=5))
            except psycopg.OperationalError:
                full.set()
                over.wait(0.1)


def _cut(site: Site, over: threading.Event) -> None:
    """Cut the service's own connections, again and again."""
    with site.connect() as connection:
        while not over.wait(0.2):
            connection.execute(f"SELECT pg_terminate_backend(pid) FROM ({BUSY}) AS ours")


@contextlib.contextmanager
def disk_full(site: Site, chance: random.Random) -> Iterator[None]:
    """Not a byte is left where PostgreSQL writes; then there is again."""
    filler = site.stack.root.parent / "filler"
    over = threading.Event()

    def fill() -> None:
        with filler.open("ab", buffering=0) as file:
            while not over.is_set():
                try:
                    file.write(b"\0" * 4096 * 16)
                except OSError:
                    with contextlib.suppress(OSError):
                        file.write(b"\0" * 4096)
                    over.wait(0.01)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        filler.unlink()
    # A full disk may have ended PostgreSQL (it cannot go on without a write-ahead log): that is for its keeper to mend.
    site.stack.start()
    if not wait_until(lambda: _lets_in(site), PATIENCE):
        raise BenchError(f"PostgreSQL has not recovered within {PATIENCE:.0f} s")


@contextlib.contextmanager
def redis_killed(site: Site, chance: random.Random) -> Iterator[None]:
    """kill -9 of Redis; an empty one is started at the end."""
    process = site.stack.redis.process()
    assert process is not None
    send(process.pid, signal.SIGKILL)
    yield
    site.stack.start()


@contextlib.contextmanager
def redis_flushed(site: Site, chance: random.Random) -> Iterator[None]:
    """FLUSHALL."""
    with site.redis() as client:
        client.flushall()
    yield


@contextlib.contextmanager
def redis_slow(site: Site, chance: random.Random) -> Iterator[None]:
    """Redis answers, but late: some answers within the service's patience with it, some past it."""
    over = threading.Event()

    def slow() -> None:
        with site.redis() as client:
            while not over.is_set():
                client.execute_command("CLIENT", "PAUSE", chance.choice(SLOW_MS), "ALL")
                client.ping()

    thread = threading.Thread(target=slow)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def redis_stopped(site: Site, chance: random.Random) -> Iterator[None]:
    """SIGSTOP of Redis: connections stay open, and nobody answers."""
    process = site.stack.redis.process()
    assert process is not None
    send(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        send(process.pid, signal.SIGCONT)


FAULTS = (
    Fault("api_worker_killed", "kill -9 of an API worker", api_worker_killed, may=BROKEN),
    Fault(
        "api_process_stopped", "an API worker stopped for 10 s", api_process_stopped, 10.0,
        BROKEN | {"timeout", "request_in_progress"}, short=False,
    ),
    Fault("clock_jump", "the clock of an API process set by an hour", clock_jumps, 3.0, short=False),
    Fault("postgresql_killed", "kill -9 of PostgreSQL, back after 3 s", postgresql_killed, 3.0, AWAY),
    Fault("postgresql_backend_killed", "kill -9 of one backend", backend_killed, 0.0, AWAY, short=False),
    Fault("postgresql_stopped", "PostgreSQL stopped for 5 s", postgresql_stopped, 5.0, AWAY, short=False),
    Fault("connection_dropped", "connections cut in mid-transaction, 3 s", connection_dropped, 3.0, AWAY, short=False),
    Fault(
        "connections_exhausted", "all connections held by others for 4 s", connections_exhausted, 4.0, AWAY, short=False
    ),
    Fault("disk_full", "PostgreSQL's disk full for 4 s", disk_full, 4.0, AWAY, own_disk=True, short=False),
    Fault("redis_killed", "kill -9 of Redis, back (empty) after 3 s", redis_killed, 3.0),
    Fault("redis_flushed", "FLUSHALL", redis_flushed, short=False),
    Fault("redis_slow", "Redis answers late for 4 s", redis_slow, 4.0, short=False),
    Fault("redis_stopped", "Redis stopped for 4 s", redis_stopped, 4.0, short=False),
)  # fmt: skip
BY_NAME = {fault.name: fault for fault in FAULTS}

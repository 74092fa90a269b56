"""What is broken, one thing at a time. A fault is a block: it holds as long as the block does, and is mended at its
end. Each leaves in its strike what was seen of its harm, for one that does nothing shows nothing."""

import contextlib
import errno
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime

import psutil
import psycopg
import redis

from app.stack.processes import replace_file, wait_until
from bench.errors import BenchError
from bench.faults.application import ALL
from bench.faults.site import PATIENCE, Site, send, wake
from bench.faults.strike import Strike

Break = Callable[[Site, random.Random, Strike], AbstractContextManager[None]]
BACKENDS = """
SELECT pid FROM pg_stat_activity
 WHERE datname = current_database() AND usename = 'iparking_service' AND backend_type = 'client backend'"""
# What PostgreSQL says to whom it has no connection left for (libpq gives no code for it).
REFUSALS = ("too many clients already", "remaining connection slots are reserved")
# An answer of Redis takes so long: once less, once more than the service waits for it.
SLOW_MS = (120, 400)
SERVICE_WAITS = 0.25  # seconds, for Redis
FLUSH = ("FLUSHALL",)
AN_HOUR = 3600.0
HOGS = 3
ENDS_SECONDS = 10.0  # within which what a fault did can be seen


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `may` are the kinds of failed tries that it may cause (none: the error rate must be 0), `must` those
    that it cannot but cause, `seconds` how long it holds at least (None: it is over as soon as it is done, and what is
    mended then counts as recovery), `own_disk` that it needs servers on a small disk of their own."""

    name: str
    words: str
    begin: Break
    seconds: float | None = None
    may: frozenset[str] = frozenset()
    must: frozenset[str] = frozenset()
    own_disk: bool = False
    short: bool = True  # worth its time in every run of the tests


AWAY = frozenset({"503"})
BROKEN = frozenset({"lost", "unconnected"})


@contextlib.contextmanager
def api_worker_killed(site: Site, chance: random.Random, strike: Strike) -> Iterator[None]:
    """kill -9 of one of granian's workers, which granian must replace."""
    before = site.service.workers_alive()
    victim = chance.choice(before)
    strike.wait()
    send(victim, signal.SIGKILL)
    yield
    replaced = _replacement(site, before, victim)
    strike.proof = f"process {victim} is gone, {replaced} answers" if replaced else None


def _replacement(site: Site, before: list[int], victim: int) -> int | None:
    """The process that answers in place of the one that was killed; None where that one lives. Raises BenchError."""
    if not wait_until(lambda: victim not in site.service.workers_alive(), ENDS_SECONDS):
        return None
    fresh: list[int] = []

    def answers() -> bool:
        try:
            fresh[:] = {site.ask().process} - set(before)
        except OSError:  # the victim's own queue of new connections goes with it
            return False
        return bool(fresh) and len(site.service.workers_alive()) == len(before)

    if not wait_until(answers, PATIENCE):
        raise BenchError(f"worker {victim} was killed and not replaced within {PATIENCE:.0f} s")
    return fresh[0]


@contextlib.contextmanager
def api_process_stopped(site: Site, chance: random.Random, strike: Strike) -> Iterator[None]:
    """SIGSTOP of one worker, with all that it holds: connections, transactions, its share of new clients."""
    victim = chance.choice(site.service.workers_alive())
    strike.wait()
    send(victim, signal.SIGSTOP)
    try:
        yield
        strike.proof = _stopped("process", [victim])
    finally:
        send(victim, signal.SIGCONT)


def _stopped(name: str, processes: list[int]) -> str | None:
    """What shows that all of these that still run are stopped; None where one is not, or none runs."""
    states = []
    for pid in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            states.append(psutil.Process(pid).status())
    return f"{name} {processes[0]} was in state T at the end" if set(states) == {psutil.STATUS_STOPPED} else None


@contextlib.contextmanager
def clock_jumps(site: Site, chance: random.Random, strike: Strike) -> Iterator[None]:
    """The wall clock of one worker is set by an hour, forward or back, and then right again."""
    victim = chance.choice(site.service.workers_alive())
    strike.wait()
    with _clock_set(site, str(victim), chance):
        if wait_until(lambda: site.ask("/readyz").tells(victim, b"set by"), ENDS_SECONDS):
            strike.proof = f"process {victim} says that its clock was set"
        yield


@contextlib.contextmanager
def clock_jumps_and_worker_begins(site: Site, chance: random.Random, strike: Strike) -> Iterator[None]:
    """The wall clock of all is set by an hour, and one worker is killed: another begins by that clock, and serves."""
    before = site.service.workers_alive()
    victim = chance.choice(before)
    strike.wait()
    with _clock_set(site, ALL, chance):
        send(victim, signal.SIGKILL)
        yield
        fresh = _replacement(site, before, victim)
        if fresh and wait_until(lambda: site.ask().tells(fresh), ENDS_SECONDS):
            strike.proof = f"process {victim} is gone, {fresh} began with its clock an hour off"


@contextlib.contextmanager
def _clock_set(site: Site, whose: str, chance: random.Random) -> Iterator[None]:
    file = site.clocks / whose
    replace_file(file, str(chance.choice([-AN_HOUR, AN_HOUR])))
    try:
        yield
    finally:
        file.unlink()


@contextlib.contextmanager
def postgresql_killed(site: Site, chance: random.Random, strike: Strike) -> Iterator[None]:
    """kill -9 of the postmaster and all its processes at once, as a power cut does; started again at the end, which
    recovers from the write-ahead log."""
    before, processes = _began(site), site.postgres_processes()
    strike.wait()
    for pid in processes:
        send(pid, signal.SIGKILL)
    yield
    site.stack.start()
    if (after := _began(site)) != before:
        strike.proof = f"PostgreSQL began at {after:%H:%M:%S.%f}, before that at {before:%H:%M:%S.%f}"


def _began(site: Site) -> datetime:
    """When the postmaster was started."""
    with site.connect() as connection:
        return connection.execute("SELECT pg_postmaster_start_time()").fetchone()[0]  # type: ignore[index]


@contextlib.contextmanager
def backend_killed(site: Site, chance: random.Random, strike: Strike) -> Iterator[None]:
    """kill -9 of one busy backend: PostgreSQL ends all connections and recovers by itself."""
    strike.wait()
    with site.connect() as connection:
        victims = [row[0] for row in connection.execute(BACKENDS)]
    send(chance.choice(victims), signal.SIGKILL)
    yield
    if wait_until(lambda: not any(map(psutil.pid_exists, victims)), ENDS_SECONDS):
        strike.proof = f"all {len(victims)} backends are gone"
    _wait_until_let_in(site)


def _wait_until_let_in(site: Site) -> None:
    if not wait_until(lambda: _lets_in(site), PATIENCE):
        raise BenchError(f"PostgreSQL has not recovered within {PATIENCE:.0f} s")


def _lets_in(site: Site) -> bool:
    try:
        site.connect().close()
    except psycopg.OperationalError:
        return False
    return True


@contextlib.contextmanager
def postgresql_stopped(site: Site, chance: random.Random, strike: Strike) -> Iterator[None]:
    """SIGSTOP of all of PostgreSQL: connections stay open, and nobody answers."""
    frozen = site.postgres_processes()
    strike.wait()
    try:
        for pid in frozen:
            send(pid, signal.SIGSTOP)
        frozen = site.postgres_processes()  # with those that the postmaster made before it was stopped
        for pid in frozen:
            send(pid, signal.SIGSTOP)
        yield
        strike.proof = _stopped("PostgreSQL", frozen)
    finally:
        wake(frozen)


@contextlib.contextmanager
def connection_dropped(site: Site, chance: random.Random, strike: Strike) -> Iterator[None]:
    """pg_terminate_backend on busy backends, twenty times a second."""
    over = threading.Event()
    dropped: list[int] = []

    def drop() -> None:
        query = f"SELECT pid, pg_terminate_backend(pid) FROM ({BACKENDS} AND state <> 'idle' LIMIT 1) AS busy"
        with site.connect() as connection:
            while not over.wait(0.05):
                dropped.extend(pid for pid, ended in connection.execute(query) if ended)

    thread = threading.Thread(target=drop)
    strike.wait()
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if dropped and wait_until(lambda: not any(map(psutil.pid_exists, dropped)), ENDS_SECONDS):
        strike.proof = f"{len(dropped)} backends are gone that were in mid-transaction"


@contextlib.contextmanager
def connections_exhausted(site: Site, chance: random.Random, strike: Strike) -> Iterator[None]:
    """Others take every connection there is, and each that the service loses: its own are cut again and again."""
    over, full = threading.Event(), threading.Event()
    hogs = [threading.Thread(target=_hog, args=(site.stack.database_url("postgres"), over, full)) for _ in range(HOGS)]
    cutting = threading.Thread(target=_cut, args=(site, over))
    strike.wait()
    for thread in (*hogs, cutting):
        thread.start()
    try:
        if full.wait(ENDS_SECONDS):
            strike.proof = "PostgreSQL refused a connection: there are too many"
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
            except psycopg.OperationalError as error:
                if any(words in str(error) for words in REFUSALS):
                    full.set()
                over.wait(0.1)


def _cut(site: Site, over: threading.Event) -> None:
    """Cut the service's own connections, again and again."""
    with site.connect() as connection:
        while not over.wait(0.2):
            connection.execute(f"SELECT pg_terminate_backend(pid) FROM ({BACKENDS}) AS ours")


@contextlib.contextmanager
def disk_full(site: Site, chance: random.Random, strike: Strike) -> Iterator[None]:
    """Not a byte is left where PostgreSQL writes; then there is again."""
    filler = site.stack.root.parent / "filler"
    over = threading.Event()

    def fill() -> None:
        with filler.open("ab", buffering=0) as file:
            while not over.is_set():
                try:
                    file.write(b"\0" * 4096 * 16)
                except OSError as error:
                    if error.errno == errno.ENOSPC:
                        strike.proof = f"ENOSPC: {error.strerror}"
                    with contextlib.suppress(OSError):
                        file.write(b"\0" * 4096)
                    over.wait(0.01)

    thread = threading.Thread(target=fill)
    strike.wait()
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        filler.unlink()
    # A full disk may have ended PostgreSQL (it cannot go on without a write-ahead log): that is for its keeper to mend.
    site.stack.start()
    _wait_until_let_in(site)


@contextlib.contextmanager
def redis_killed(site: Site, chance: random.Random, strike: Strike) -> Iterator[None]:
    """kill -9 of Redis; an empty one is started at the end."""
    before = site.redis_process()
    strike.wait()
    send(before, signal.SIGKILL)
    yield
    is_away = _is_away(site)
    site.stack.start()
    if is_away and (after := site.redis_process()) != before:
        strike.proof = f"Redis {before} did not answer, {after} began"


def _is_away(site: Site) -> bool:
    """Whether Redis leaves a question without an answer."""
    with redis.Redis.from_url(site.stack.redis_url, socket_timeout=0.5, retry=None) as client:
        try:
            return not client.ping()
        except (redis.ConnectionError, redis.TimeoutError):
            return True


@contextlib.contextmanager
def redis_flushed(site: Site, chance: random.Random, strike: Strike) -> Iterator[None]:
    """FLUSHALL."""
    with site.redis() as client:
        strike.wait()
        at_once = client.pipeline()
        at_once.dbsize().execute_command(*FLUSH).dbsize()
        before, _, after = at_once.execute()
    if before and not after:
        strike.proof = f"{before} keys, and in the same instant none"
    yield


@contextlib.contextmanager
def redis_slow(site: Site, chance: random.Random, strike: Strike) -> Iterator[None]:
    """Redis answers, but late: some answers within the service's patience with it, some past it."""
    over = threading.Event()
    waits = [0.0]

    def slow() -> None:
        with site.redis() as client:
            while not over.is_set():
                client.execute_command("CLIENT", "PAUSE", chance.choice(SLOW_MS), "ALL")
                began = time.monotonic()
                client.ping()
                waits.append(time.monotonic() - began)

    thread = threading.Thread(target=slow)
    strike.wait()
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if max(waits) > SERVICE_WAITS:
        strike.proof = f"an answer took {max(waits):.2f} s"


@contextlib.contextmanager
def redis_stopped(site: Site, chance: random.Random, strike: Strike) -> Iterator[None]:
    """SIGSTOP of Redis: connections stay open, and nobody answers."""
    victim = site.redis_process()
    strike.wait()
    send(victim, signal.SIGSTOP)
    try:
        yield
        strike.proof = _stopped("Redis", [victim]) if _is_away(site) else None
    finally:
        send(victim, signal.SIGCONT)


FAULTS = (
    Fault("api_worker_killed", "kill -9 of an API worker", api_worker_killed, may=BROKEN),
    Fault(
        "api_process_stopped", "an API worker stopped for 10 s", api_process_stopped, 10.0,
        BROKEN | {"timeout", "request_in_progress"}, short=False,
    ),
    Fault("clock_jump", "the clock of an API process set by an hour", clock_jumps, 3.0, short=False),
    Fault(
        "clock_jump_restart", "an API worker killed while all clocks are off by an hour", clock_jumps_and_worker_begins,
        6.0, BROKEN,
    ),
    Fault("postgresql_killed", "kill -9 of PostgreSQL, back after 3 s", postgresql_killed, 3.0, AWAY, AWAY),
    Fault("postgresql_backend_killed", "kill -9 of one backend", backend_killed, 0.0, AWAY, short=False),
    Fault("postgresql_stopped", "PostgreSQL stopped for 5 s", postgresql_stopped, 5.0, AWAY, AWAY, short=False),
    Fault("connection_dropped", "connections cut in mid-transaction, 3 s", connection_dropped, 3.0, AWAY, short=False),
    Fault(
        "connections_exhausted", "all connections held by others for 4 s", connections_exhausted, 4.0, AWAY, AWAY,
        short=False,
    ),
    Fault("disk_full", "PostgreSQL's disk full for 4 s", disk_full, 4.0, AWAY, AWAY, own_disk=True, short=False),
    Fault("redis_killed", "kill -9 of Redis, back (empty) after 3 s", redis_killed, 3.0),
    Fault("redis_flushed", "FLUSHALL", redis_flushed, short=False),
    Fault("redis_slow", "Redis answers late for 4 s", redis_slow, 4.0, short=False),
    Fault("redis_stopped", "Redis stopped for 4 s", redis_stopped, 4.0, short=False),
)  # fmt: skip
BY_NAME = {fault.name: fault for fault in FAULTS}

"""The place where things are broken: servers of its own, so that nobody else's are harmed."""

import contextlib
import os
import signal
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import psutil
import psycopg
import redis

from app.stack import Server, Stack, clock_environment, prepare_database
from app.stack.ports import choose_free
from app.stack.processes import wait_until, working_in
from bench.errors import BenchError
from bench.faults.application import CLOCKS, TOLD
from bench.faults.oracle import copies_that_differ
from bench.faults.traffic import SPEED
from simulator.city import City

DATABASE = "faults"
OPENS = datetime.fromisoformat("2026-11-23T07:00:00+07:00")
DRIVERS = 32
MOST_CONNECTIONS = 64
PATIENCE = 60.0
# What the city is made of stays between trials; whatever else there is was left by traffic.
KEPT = (
    "alembic_version", "spatial_ref_sys", "revision", "archived_month", "district", "ward", "zone", "zone_occupancy",
    "rate_plan", "rate_line", "vat_rate", "city_share_rate",
)  # fmt: skip
_LEFT_BY_TRAFFIC = """
SELECT string_agg(quote_ident(relname), ', ') FROM pg_class
 WHERE relkind IN ('r', 'p') AND NOT relispartition AND relnamespace = 'public'::regnamespace AND relname <> ALL (%s)"""
# What each driver has at the begin of a trial: more than its traffic can spend, so that no wallet refuses a start. VND.
FUNDS = 100_000_000


class Service(Server):
    """The full service under the command line of `./iparking up`; only its wall clock can be set."""

    def _commands(self) -> dict[str, list[str]]:
        commands = super()._commands()
        return {**commands, "api": [*commands["api"][:-1], "bench.faults.application:application"]}

    def main(self) -> int:
        """The process id of granian."""
        return self._started["api"].pid

    def workers_alive(self) -> list[int]:
        """The process ids of granian's workers."""
        children = psutil.Process(self.main()).children()
        return sorted(child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE)


class Told(NamedTuple):
    """An answer of one of the service's processes, and by how many seconds its wall clock was off."""

    process: int
    off: float
    body: bytes

    def tells(self, process: int, words: bytes = b"") -> bool:
        """Whether this process answers, with these words, and its clock is off."""
        return self.process == process and self.off != 0 and words in self.body


@dataclass
class Site:
    """The servers that run, and what may be done to them."""

    stack: Stack
    service: Service
    folder: Path
    database: str = DATABASE
    city: City = field(init=False)

    def __post_init__(self) -> None:
        self.city = City.from_api(self.service.url)

    @property
    def database_url(self) -> str:
        """The bench's database, for a superuser."""
        return self.stack.given_database or self.stack.postgres.url(self.database, "postgres")

    @property
    def clocks(self) -> Path:
        """Where a process's wall clock is set."""
        return self.folder / "clocks"

    def connect(self) -> psycopg.Connection:
        """A superuser's connection, which a full server still lets in."""
        return psycopg.connect(self.database_url, autocommit=True, connect_timeout=5)

    def redis(self) -> redis.Redis:
        """A client that waits as long as it takes."""
        return redis.Redis.from_url(self.stack.redis_url, socket_timeout=10)

    def redis_process(self) -> int:
        """The process id of Redis, by its own word."""
        with self.redis() as client:
            return int(client.info("server")["process_id"])

    def ask(self, path: str = "/healthz") -> Told:
        """What is answered on a new connection, which any worker may take."""
        with urllib.request.urlopen(f"{self.service.url}{path}", timeout=5) as answer:
            process, off = answer.headers[TOLD].split()
            return Told(int(process), float(off), answer.read())

    def postgres_processes(self) -> list[int]:
        """All of PostgreSQL's, the postmaster first."""
        process = self.stack.postgres.process()
        leader = process.pid if process else 0
        return sorted(working_in(self.stack.postgres.data), key=lambda pid: (pid != leader, pid))

    def empty(self) -> None:
        """Nobody is parked, nothing was ever answered or paid, wallets are as full as at first; returns once Redis
        says so too."""
        with self.connect() as connection:
            with connection.transaction():
                # The ledger refuses to be emptied by anybody who minds its triggers.
                connection.execute("SET LOCAL session_replication_role = replica")
                (tables,) = connection.execute(_LEFT_BY_TRAFFIC, (list(KEPT),)).fetchone()  # type: ignore[misc]
                connection.execute(f"TRUNCATE {tables}")
            connection.execute("UPDATE zone_occupancy SET occupied = 0, version = version + 1, next_over = NULL")
        self.service.fund()
        if not wait_until(lambda: not copies_that_differ(self.database_url, self.stack.redis_url), PATIENCE):
            raise BenchError(f"the copies in Redis are not healed within {PATIENCE:.0f} s")

    def starts(self) -> int:
        """How many sessions there are, running or over."""
        with self.connect() as connection:
            query = "SELECT (SELECT count(*) FROM active_session) + (SELECT count(*) FROM parking_session)"
            return int(connection.execute(query).fetchone()[0])  # type: ignore[index]


@contextlib.contextmanager
def open_site(root: Path, workers: int, threads: int, given: Mapping[str, str] | None = None) -> Iterator[Site]:
    """A stack under `root` with the shipped city and the service on it; all of it stopped at the end.

    `given` are the URLs of servers that run already, as Stack takes them, with the city in their database.
    """
    with Stack(root, given or {}) as stack, contextlib.ExitStack() as ending:
        database = "iparking" if given else DATABASE
        if not given:
            ending.callback(lambda: wake(working_in(stack.folders.data)))
            _limit_connections(stack)
            prepare_database(stack, database)
        folder = root / "faults"
        (folder / "clocks").mkdir(parents=True, exist_ok=True)
        clock = clock_environment(stack, database, OPENS, SPEED, fresh=True)
        service = Service(
            stack, database, choose_free(), name="faults", workers=workers, threads=threads, drivers=DRIVERS,
            environment={**clock, CLOCKS: str(folder / "clocks")}, funds=FUNDS,
        )  # fmt: skip
        service.start()
        ending.callback(service.stop)
        yield Site(stack, service, folder, database)


def _limit_connections(stack: Stack) -> None:
    """Few enough that they can be used up in a moment."""
    with stack.postgres.connect() as connection:
        if connection.execute("SHOW max_connections").fetchone() == (str(MOST_CONNECTIONS),):
            return
        connection.execute(f"ALTER SYSTEM SET max_connections = {MOST_CONNECTIONS}")
    stack.stop()
    stack.start()


def wake(processes: list[int]) -> None:
    """Let stopped processes go on: one that is stopped does not end when it is asked to."""
    for pid in processes:
        send(pid, signal.SIGCONT)


def send(pid: int, number: int) -> None:
    """A signal to a process of ours, which may have ended meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def now() -> datetime:
    """The real instant."""
    return datetime.now(UTC)


def hold(seconds: float) -> None:
    """Let a fault last."""
    time.sleep(seconds)

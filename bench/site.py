"""One measuring place: the bench's database, the servers on it, their loads, and a burst of one load."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from app.stack import Stack, prepare_database
from bench import city, cpu, reference, requests
from bench.errors import BenchError
from bench.load import Burst, Client
from bench.servers import DATABASE, Service
from zones.nodes import Nodes, connect

DRIVERS = 64
# What each of the bench's drivers has: more than any run spends. VND.
FUNDS = 10**12
# More starts than any client sends in a second, so that no two bursts share a plate.
NUMBERS_A_SECOND = 10_000
SETTLE_SECONDS = 10.0
REDIS_TIMEOUT_SECONDS = 5.0
LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of request. `rows` counts what each of its answers must have left in the database.

    `beside` is other traffic that runs while it is measured.
    """

    name: str
    server: Service
    script: str
    arguments: Callable[[int], list[str]]
    rows: str | None = None
    beside: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext


@dataclass(frozen=True, slots=True)
class Measured:
    """One burst, and the CPU microseconds that a request of it cost, by group of processes."""

    burst: Burst
    cpu_us: dict[str, float]


@dataclass
class Site:
    """Everything that a run needs, made by `open_site`."""

    stack: Stack
    folder: Path
    connection: psycopg.Connection
    redis: Nodes
    client: Client
    zones: list[str]
    database: str = DATABASE
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    next_number: int = 1
    fastest: dict[str, float] = field(default_factory=dict)

    @property
    def database_url(self) -> str:
        return self.stack.database_url(self.database)

    def measure(self, load: Load, warm_seconds: int, seconds: int) -> Measured:
        """Warm up, then one burst. Raises BenchError where an answer was no success or left nothing behind."""
        with load.beside():
            if warm_seconds:
                self.warm(load, warm_seconds)
            before = self.settled(load)
            arguments = load.arguments(seconds)
            meter = cpu.Meter(self._groups(load.server))
            burst = self._send(load, arguments, seconds)
            cost = _cost(meter, burst)
        left = self.settled(load) - before
        if load.rows and not burst.requests <= left <= burst.requests + self.client.connections:
            raise BenchError(f"{load.name}: {burst.requests} answers, but {left} rows: not every answer was true")
        return Measured(burst, cost)

    def warm(self, load: Load, seconds: int) -> None:
        """Load that does not count: connections are made, statements prepared, caches filled."""
        self._send(load, load.arguments(seconds), seconds)

    def measure_pgbench(self, seconds: int) -> Measured:
        """One burst of the ceiling's statement by pgbench."""
        here = cpu.is_here(self.connection)
        # Its backends end with it: what they used is found with their parent.
        meter = cpu.Meter({"postgresql": self._all_of_postgresql} if here else {})
        burst = self.client.pgbench(self.database_url, len(self.zones), seconds)
        return Measured(burst, _cost(meter, burst))

    def _groups(self, server: Service) -> dict[str, cpu.Group]:
        """Whose CPU time a request of this server costs."""
        groups: dict[str, cpu.Group] = {"server": lambda: cpu.seconds_used(server.processes())}
        if cpu.is_here(self.connection):
            groups["postgresql"] = lambda: cpu.seconds_used(cpu.backends(self.connection))
        redis = cpu.redis_processes(self.redis)
        if redis:
            groups["redis"] = lambda: cpu.seconds_used(redis)
        return groups

    def _all_of_postgresql(self) -> dict[int, float]:
        return cpu.seconds_used(cpu.backends(self.connection)) | cpu.with_ended(cpu.postmaster(self.connection))

    def _send(self, load: Load, arguments: Sequence[str], seconds: int) -> Burst:
        burst = self.client.wrk(load.server.url, load.script, arguments, seconds)
        self.fastest[load.name] = max(burst.rps, self.fastest.get(load.name, 0.0))
        return burst

    def settled(self, load: Load) -> int:
        """The rows of this load, once the requests are through that the client left behind."""
        if load.rows is None:
            return 0
        deadline, last = time.monotonic() + SETTLE_SECONDS, -1
        while (rows := self.number(load.rows)) != last:
            if time.monotonic() > deadline:
                raise BenchError(f"{load.name}: its rows still grow {SETTLE_SECONDS:.0f} s after the burst")
            last = rows
            time.sleep(LOOK_SECONDS)
        return rows

    def number(self, query: str) -> int:
        """What a query counts."""
        row = self.connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    def take_numbers(self, seconds: int) -> list[str]:
        """Numbers that no other burst has: the first of them and the number of threads, as the scripts want them."""
        first = self.next_number
        self.next_number += NUMBERS_A_SECOND * seconds
        if self.next_number > requests.PLATES:
            raise BenchError("no plates are left: take fewer rounds or shorter bursts")
        return [str(first), str(self.client.threads)]

    def file(self, name: str, lines: Sequence[str]) -> None:
        """Write a file for the scripts."""
        (self.folder / name).write_text("".join(f"{line}\n" for line in lines))

    def paths(self, *names: str) -> list[str]:
        """Where the scripts find these files."""
        return [str(self.folder / name) for name in names]


@contextlib.contextmanager
def open_site(
    stack: Stack, client: Client, database: str = DATABASE, keep: bool = False, free: bool = True
) -> Iterator[Site]:
    """Make the database with the shipped city, its zones repeated, and the reference tables; drop it at the end.

    `keep`: take the one that an earlier run left, without what its loads wrote, and leave it for the next. `free`:
    parking costs nothing in any zone, so that nothing but the occupancy core is measured.
    """
    url = prepare_database(stack, database, fresh=not keep)
    try:
        with (
            TemporaryDirectory(prefix="iparking-bench-") as folder,
            psycopg.connect(url, autocommit=True) as connection,
            contextlib.closing(connect(stack.redis_url, REDIS_TIMEOUT_SECONDS)) as redis,
        ):
            is_new = not reference.are_made(connection)
            if is_new:
                city.repeat(connection)
            else:
                city.empty(connection)
            zones = city.open_wide(connection)
            if is_new and free:
                city.make_free(connection, zones)
            if is_new:
                reference.make_tables(connection, len(zones), city.CAPACITY)
            yield Site(stack, Path(folder), connection, redis, client, zones, database)
    finally:
        if not keep:
            stack.drop_database(database)


@contextlib.contextmanager
def serving(server: Service) -> Iterator[Service]:
    """The server, started; stopped at the end."""
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _cost(meter: cpu.Meter, burst: Burst) -> dict[str, float]:
    return {name: seconds / burst.requests * 1e6 for name, seconds in meter.used().items()}

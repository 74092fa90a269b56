"""One measuring place: the bench's database, the servers on it, their loads, and a burst of one load."""

import contextlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from redis import Redis

from app.stack import Stack, prepare_database
from bench import city, cpu, reference
from bench.errors import BenchError
from bench.load import Burst, Client
from bench.servers import DATABASE, Reference, Service

DRIVERS = 64
# More numbers than any client sends in a second, so that no two bursts share a plate.
NUMBERS_A_SECOND = 20_000
SETTLE_SECONDS = 10.0
LOOK_SECONDS = 0.05
# Sessions laid ready for a burst of stops: so many times as the fastest burst so far would use.
SPARE = 2


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of request. `rows` counts what each of its answers must have left in the database."""

    name: str
    server: Service
    script: str
    arguments: Callable[[int], list[str]]
    rows: str | None = None


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
    redis: Redis
    client: Client
    zones: list[str]
    next_number: int = 1
    fastest: dict[str, float] = field(default_factory=dict)
    _drivers: list[str] = field(default_factory=list)

    @property
    def database_url(self) -> str:
        return self.stack.database_url(DATABASE)

    def loads_of(self, service: Service) -> list[Load]:
        """The loads of the full service, which must run."""
        self._drivers = json.loads(service.keys_path.read_text())["drivers"]
        self._file("keys", self._drivers)
        self._file("zones", self.zones)
        paths = [f"/v1/zones?bbox={box}" for box in city.boxes(_features(f"{service.url}/v1/zones?limit=1000"))]
        for path in paths:
            if len(_features(service.url + path % 0)) != city.ZONES_IN_BOX:
                raise BenchError(f"{path % 0} does not answer with {city.ZONES_IN_BOX} zones")
        start = Load("start", service, "start", self._start_arguments, "SELECT count(*) FROM active_session")
        stop = Load(
            "stop", service, "stop", lambda seconds: self._stop_arguments(start, seconds),
            "SELECT count(*) FROM parking_session",
        )  # fmt: skip
        return [start, stop, Load("map", service, "map", lambda seconds: [*self._take_numbers(seconds), *paths])]

    def loads_of_reference(self, server: Reference) -> list[Load]:
        """The loads of the reference application, which must run."""
        return [
            Load("ceiling", server, "ceiling", self._ceiling_arguments, "SELECT count(*) FROM ref_session"),
            Load("bare_json", server, "get", lambda _: ["/json"]),
        ]

    def measure(self, load: Load, warm_seconds: int, seconds: int) -> Measured:
        """Warm up, then one burst. Raises BenchError where an answer was no success or left nothing behind."""
        if warm_seconds:
            self.warm(load, warm_seconds)
        before = self._settled(load)
        arguments = load.arguments(seconds)
        meter = cpu.Meter(self._groups(load.server))
        burst = self._send(load, arguments, seconds)
        cost = _cost(meter, burst)
        left = self._settled(load) - before
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
        redis = cpu.redis_process(self.redis)
        if redis:
            groups["redis"] = lambda: cpu.seconds_used(redis)
        return groups

    def _all_of_postgresql(self) -> dict[int, float]:
        return cpu.seconds_used(cpu.backends(self.connection)) | cpu.with_ended(cpu.postmaster(self.connection))

    def _send(self, load: Load, arguments: Sequence[str], seconds: int) -> Burst:
        burst = self.client.wrk(load.server.url, load.script, arguments, seconds)
        self.fastest[load.name] = max(burst.rps, self.fastest.get(load.name, 0.0))
        return burst

    def _settled(self, load: Load) -> int:
        """The rows of this load, once the requests are through that the client left behind."""
        if load.rows is None:
            return 0
        deadline, last = time.monotonic() + SETTLE_SECONDS, -1
        while (rows := self._number(load.rows)) != last:
            if time.monotonic() > deadline:
                raise BenchError(f"{load.name}: its rows still grow {SETTLE_SECONDS:.0f} s after the burst")
            last = rows
            time.sleep(LOOK_SECONDS)
        return rows

    def _number(self, query: str) -> int:
        row = self.connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    def _take_numbers(self, seconds: int) -> list[str]:
        first = self.next_number
        self.next_number += NUMBERS_A_SECOND * seconds
        return [str(first), str(self.client.threads)]

    def _start_arguments(self, seconds: int) -> list[str]:
        return [*self._take_numbers(seconds), str(self.folder / "keys"), str(self.folder / "zones")]

    def _ceiling_arguments(self, seconds: int) -> list[str]:
        return [*self._take_numbers(seconds), str(len(self.zones))]

    def _stop_arguments(self, start: Load, seconds: int) -> list[str]:
        if start.name not in self.fastest:
            self.warm(start, 1)
        expected = max(self.fastest["start"], self.fastest.get("stop", 0.0))
        needed = round(seconds * expected * SPARE) + 10 * self.client.connections
        assert start.rows is not None
        while self._number(start.rows) < needed:
            self.warm(start, 1)
            self._settled(start)
        self._file("sessions", city.running(self.connection, self._drivers, needed))
        return [*self._take_numbers(seconds), str(self.folder / "sessions")]

    def _file(self, name: str, lines: Sequence[str]) -> None:
        (self.folder / name).write_text("".join(f"{line}\n" for line in lines))


@contextlib.contextmanager
def open_site(stack: Stack, client: Client) -> Iterator[Site]:
    """Make the database `bench` with the shipped city and the reference tables; drop it at the end."""
    url = prepare_database(stack, DATABASE, fresh=True)
    try:
        with (
            TemporaryDirectory(prefix="iparking-bench-") as folder,
            psycopg.connect(url, autocommit=True) as connection,
            Redis.from_url(stack.redis_url) as redis,
        ):
            zones = city.open_wide(connection)
            reference.make_tables(connection, len(zones), city.CAPACITY)
            yield Site(stack, Path(folder), connection, redis, client, zones)
    finally:
        stack.drop_database(DATABASE)


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


def _features(url: str) -> list[dict[str, Any]]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return list(json.load(answer)["features"])
    except urllib.error.URLError as error:
        raise BenchError(f"{url}: {error}") from error

"""What is sent to the service and to the reference: which script, with which arguments, what it must leave behind."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from bench import city, openloop, reference, requests
from bench.errors import BenchError
from bench.servers import Reference, Service
from bench.site import Load, Site

# Sessions laid ready for a burst of stops: so many times as the fastest burst so far would use.
SPARE = 4
# Parked vehicles that a burst of checks chooses among.
SIGHTINGS = 5_000
# Starts a second that run beside a map read, and beside its reference.
BESIDE = 100.0
# As long as one burst's numbers last.
LONGEST_SECONDS = 90
CHECKS = "SELECT count(*) FROM parking_check"


def ended_since(instant: datetime) -> str:
    """How many sessions are over that started at `instant` or later: their ids are UUIDv7, and the primary key's."""
    first = f"{int(instant.timestamp() * 1000):012x}".ljust(32, "0")
    return f"SELECT count(*) FROM parking_session WHERE id >= '{first}' AND started_at >= '{instant.isoformat()}'"


def running(method: str) -> str:
    """How many sessions run that are paid by this method."""
    return f"SELECT count(*) FROM active_session WHERE payment_method = '{method}'"


class ServiceLoads:
    """The loads of the full service, which must run. Sessions are paid by `method` and parked in `zones` (None: all).

    The occupancy core is measured with the method `free` in zones that cost nothing: what money costs is
    `bench money`'s affair.
    """

    def __init__(
        self, site: Site, service: Service, method: str = "free", zones: Sequence[str] | None = None, prefix: str = ""
    ) -> None:
        """`prefix` is put before the loads' names where several of these are measured on one site."""
        self._site, self._service, self._method, self._prefix = site, service, method, prefix
        self._zones = site.zones if zones is None else zones
        self._running = running(method)
        keys = json.loads(service.keys_path.read_text())
        self.drivers: list[str] = keys["drivers"]
        self.warden: str = keys["warden"]
        site.file("keys", self.drivers)
        site.file(f"{prefix}zones", self._zones)
        site.file(f"{prefix}hot", self._zones[:1])
        self.start = self._load(
            "start", "start", lambda seconds: self._start_arguments(seconds, "zones"), self._running
        )
        self.stop = self._load("stop", "stop", self._stop_arguments, ended_since(site.began))

    def all(self) -> dict[str, Load]:
        """By name: start, stop, check, map and hot_zone (starts that all go to one zone)."""
        made = [
            self.start,
            self.stop,
            self._load("check", "check", self._check_arguments, CHECKS),
            self._map(),
            self._load("hot_zone", "start", lambda seconds: self._start_arguments(seconds, "hot"), self._running),
        ]
        return {load.name: load for load in made}

    @contextmanager
    def starts_beside(self) -> Iterator[None]:
        """Starts at the rate BESIDE while this is entered. Raises BenchError where one was refused."""
        stopped, errors = threading.Event(), list[BenchError]()
        first = int(self._site.take_numbers(1)[0])
        due = [n / BESIDE for n in range(round(BESIDE * LONGEST_SECONDS))]
        make = self.open_starts(first)

        def send() -> None:
            try:
                openloop.run(self._service.url, due, make, stopped=stopped.is_set)
            except BenchError as error:
                errors.append(error)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            yield
        finally:
            stopped.set()
            sender.join()
        if errors:
            raise errors[0]

    def open_starts(self, first: int) -> openloop.Make:
        """The requests of `start` for the open-loop client, from number `first` on."""
        return requests.starts(self._service.url, first, self.drivers, self._zones, self._method)

    def save_answer(self) -> int:
        """Hand an answer of the map to the reference application; its size in bytes."""
        path = next(iter(self._map_paths())) % 0
        body = _get(self._service.url + path)
        self._service.bytes_file.write_bytes(body)
        return len(body)

    def _load(self, name: str, script: str, arguments: Any, rows: str) -> Load:
        return Load(f"{self._prefix}{name}", self._service, script, arguments, rows)

    def _map(self) -> Load:
        paths = self._map_paths()
        return Load(
            "map", self._service, "map", lambda seconds: [*self._site.take_numbers(seconds), *paths],
            beside=self.starts_beside,
        )  # fmt: skip

    def _map_paths(self) -> list[str]:
        """Paths with room for six digits that all answer with exactly ZONES_IN_BOX zones."""
        url = self._service.url
        paths = [f"/v1/zones?bbox={box}" for box in city.boxes(_features(f"{url}/v1/zones?limit=1000"))]
        for path in paths:
            if len(_features(url + path % 0)) != city.ZONES_IN_BOX:
                raise BenchError(f"{path % 0} does not answer with {city.ZONES_IN_BOX} zones")
        return paths

    def _start_arguments(self, seconds: int, zones: str) -> list[str]:
        paths = self._site.paths("keys", f"{self._prefix}{zones}")
        return [*self._site.take_numbers(seconds), *paths, self._method]

    def _stop_arguments(self, seconds: int) -> list[str]:
        self._start_at_least(1)
        fastest = self._site.fastest
        expected = max(fastest[self.start.name], fastest.get(self.stop.name, 0.0))
        needed = round(seconds * expected * SPARE) + 10 * self._site.client.connections
        self._start_at_least(needed)
        file = f"{self._prefix}sessions"
        self._site.file(file, city.running(self._site.connection, self.drivers, self._method, needed))
        return [*self._site.take_numbers(seconds), *self._site.paths(file)]

    def _check_arguments(self, seconds: int) -> list[str]:
        self._start_at_least(1)
        self._site.file("sightings", city.sightings(self._site.connection, SIGHTINGS))
        return [*self._site.take_numbers(seconds), self.warden, *self._site.paths("sightings")]

    def _start_at_least(self, number: int) -> None:
        """See to it that so many sessions run."""
        while self.start.name not in self._site.fastest or self._site.number(self._running) < number:
            self._site.warm(self.start, 1)
            self._site.settled(self.start)


class ReferenceLoads:
    """The loads of the reference application, which must run."""

    def __init__(self, site: Site, server: Reference) -> None:
        self._site, self._server = site, server

    def all(self, beside: Load | None = None) -> dict[str, Load]:
        """By name: ceiling, bare_read, bare_bytes, hot_ceiling.

        `beside` is the service's map: what runs beside it runs beside bare_bytes too, which is asked for the same.
        """
        site = self._site
        made = [
            self._load("ceiling", "ceiling", len(site.zones)),
            self._load("hot_ceiling", "ceiling", 1),
            replace(self._load("bare_read", "read", reference.PLATES), rows=None),
        ]
        if beside is not None:
            made.append(replace(beside, name="bare_bytes", server=self._server, arguments=_bytes_of(beside)))
        return {load.name: load for load in made}

    def open_ceilings(self, first: int) -> openloop.Make:
        """The requests of `ceiling` for the open-loop client, from number `first` on."""
        return requests.ceilings(self._server.url, first, len(self._site.zones))

    def _load(self, name: str, script: str, rows: int) -> Load:
        return Load(
            name, self._server, script, lambda seconds: [*self._site.take_numbers(seconds), str(rows)],
            "SELECT count(*) FROM ref_session",
        )  # fmt: skip


def _bytes_of(load: Load) -> Any:
    """The arguments of the map's load, with the path of the reference's view in place of the service's."""
    return lambda seconds: [argument.replace("/v1/zones?", "/bytes?") for argument in load.arguments(seconds)]


def _get(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bytes(answer.read())
    except urllib.error.URLError as error:
        raise BenchError(f"{url}: {error}") from error


def _features(url: str) -> list[dict[str, Any]]:
    return list(json.loads(_get(url))["features"])

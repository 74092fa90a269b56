"""`./iparking demo`: the whole service, a morning of the nine districts replayed on it, and the proof that it was
right.

    rehearsal    a few minutes of the morning as fast as they go: what this machine holds, and how long the API takes to
    start morning      07:00 to 10:00 of the stated day, on a clock that runs as fast as that allows; then the audit
    Berlin       a recorded day of 32 kerb spaces, on a clock and a database of its own (where the record is on this machine)
    serving      the morning's database at 1x from its last instant, until Ctrl-C

The database `demo` is made afresh each time, beside the one that `up` serves. All traffic is synthetic or recorded
elsewhere.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click

from app.stack import Server, Stack, StackError, prepare_database
from app.stack.machine import PROJECT
from app.stack.ports import choose_free, is_free, require_free

HANOI = ZoneInfo("Asia/Ho_Chi_Minh")
MORNING_OPENS, MORNING_SECONDS = 7, 3 * 3600.0
DATABASE, BERLIN_DATABASE = "demo", "demo_berlin"
DEFAULT_PORT = 8100
DRIVERS = 200
FASTEST, SLOWEST = 120.0, 75.0
# The part of what the machine can do at most that a replay may ask of it: a busier one measures its own queues.
SHARE = 0.5
REHEARSAL_SECONDS, REHEARSAL_SPEED = 240.0, 240.0
BERLIN_DAY, BERLIN_SECONDS, BERLIN_SPEED = date(2018, 1, 25), 86_400.0, 2_880.0
BERLIN_ZONES = 4
# From a server that is ready to the first event: the client's own start. And how much longer a start may take than the
# last.
CLIENT_SECONDS, SLACK = 4.0, 1.5

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for. `speed` None: what this machine holds."""

    day: date
    port: int
    speed: float | None
    seed: int
    once: bool


@dataclass(frozen=True, slots=True)
class Traffic:
    """A trace on disk. `rate` is the requests a business second of its busiest five minutes."""

    path: Path
    start: datetime
    events: int
    rate: float


@dataclass(slots=True)
class Run:
    """A replay and its audit; `audit` is None for a rehearsal. `ended` is the business instant at which its API was
    stopped."""

    figures: dict[str, Any]
    audit: dict[str, Any] | None = None
    ended: datetime | None = None


@dataclass(slots=True)
class Demo:
    """One demo under way on a stack that runs."""

    stack: Stack
    options: Options
    say: Say
    start_seconds: float = field(default=6.0)  # how long the API took to start last

    @property
    def folder(self) -> Path:
        """Traces and records, kept until the next demo."""
        return self.stack.root / "demo"

    def play(self) -> dict[str, Any]:
        """Rehearse, replay, audit; what the verb reports. Raises StackError."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.say("making the databases")
        prepare_database(self.stack, DATABASE, fresh=True)
        berlin = berlin_record()
        self.stack.create_database(BERLIN_DATABASE, fresh=True, template=DATABASE)
        traffic = morning(self.folder / "morning.jsonl", self.options)
        speed = self.options.speed or self.rehearse(traffic)
        self.say(f"the morning of {self.options.day}: {traffic.events:,} events at {speed:.0f}x ({SYNTHETIC})")
        hanoi = self.perform(DATABASE, traffic, speed, self.options.port)
        recorded = self.berlin(berlin) if berlin else None
        self.stack.drop_database(BERLIN_DATABASE)
        return result(self.options, speed, hanoi, recorded)

    def rehearse(self, traffic: Traffic) -> float:
        """The speed that this machine holds: a few minutes of the morning are replayed as fast as they are answered."""
        self.say("rehearsing: how fast is this machine?")
        part = cut(traffic, self.folder / "rehearsal.jsonl", REHEARSAL_SECONDS)
        run = self.perform(BERLIN_DATABASE, part, REHEARSAL_SPEED, choose_free(), audited=False)
        self.stack.create_database(BERLIN_DATABASE, fresh=True, template=DATABASE)
        holds = run.figures["requests_per_second"]
        speed = holdable_speed(holds, traffic.rate)
        self.say(f"it answers {holds:.0f} requests/s at most, so the clock runs at {speed:.0f}x")
        return speed

    def berlin(self, record: Path) -> Run:
        """The Berlin day on a database and a clock of its own."""
        traffic = berlin_day(record, self.folder / "berlin.jsonl")
        self.say(
            f"Berlin, {BERLIN_DAY}: {traffic.events:,} events at {BERLIN_SPEED:.0f}x (recorded there, invented plates)"
        )
        return self.perform(BERLIN_DATABASE, traffic, BERLIN_SPEED, choose_free())

    def perform(self, database: str, traffic: Traffic, speed: float, port: int, audited: bool = True) -> Run:
        """Serve a database on a clock that reaches the trace's start soon, replay the trace, audit; then stop
        serving."""
        answers = traffic.path.with_suffix(".answers")
        server = self.serve_on_time(database, traffic.start, speed, port)
        try:
            run = Run(replay(server, traffic.path, answers))
            if audited:
                run.audit = self.audited(server, answers)
            run.ended = now_at(server)
        finally:
            server.stop()
        return run

    def serve_on_time(self, database: str, start: datetime, speed: float, port: int) -> Server:
        """A server whose clock will show `start` in a few seconds, with enough of them left for the client.

        A clock is fixed before its server starts, so a start that took longer than the last is tried again.
        """
        while True:
            began = time.monotonic()
            anchor = datetime.now(UTC) + timedelta(seconds=SLACK * self.start_seconds + CLIENT_SECONDS)
            server = self.server(database, port, clock(start, speed, anchor))
            server.start()
            self.start_seconds = time.monotonic() - began
            if datetime.now(UTC) + timedelta(seconds=CLIENT_SECONDS) <= anchor:
                return server
            server.stop()
            self.say(f"the API took {self.start_seconds:.0f} s to start; once more, with a later clock")

    def server(self, database: str, port: int, environment: dict[str, str]) -> Server:
        return Server(self.stack, database, port, name=database, environment=environment, drivers=DRIVERS)

    def audited(self, server: Server, answers: Path) -> dict[str, Any]:
        from simulator.auditor import audit

        self.say("auditing every answer against the API and PostgreSQL")
        reader = self.stack.reader_url(server.database)
        return audit([answers], server.keys_path, base_url=server.url, database_url=reader).as_dict()


SYNTHETIC = "synthetic traffic"


def clock(start: datetime, speed: float, anchor: datetime) -> dict[str, str]:
    """The variables of a clock that shows `start` at the real instant `anchor`."""
    return {
        "IPARKING_ENV": "simulation",
        "IPARKING_CLOCK_START": start.isoformat(),
        "IPARKING_CLOCK_SPEED": str(speed),
        "IPARKING_CLOCK_ANCHOR": anchor.isoformat(),
    }


def holdable_speed(requests_per_second: float, rate: float) -> float:
    """The speed at which a trace's busiest minutes (`rate` requests a business second) take half of what a machine can
    do."""
    return round(min(FASTEST, max(SLOWEST, SHARE * requests_per_second / rate)))


# --- traffic ----------------------------------------------------------------------------------------------------------
def morning(path: Path, options: Options) -> Traffic:
    """Write the trace of the morning that the options state."""
    from simulator import demand
    from simulator.city import City
    from simulator.parameters import DEFAULT_FILE, load

    start = datetime(options.day.year, options.day.month, options.day.day, MORNING_OPENS, tzinfo=HANOI)
    city = City.from_geojson(PROJECT / "zones" / "data" / "zones.geojson")
    return written(path, *demand.make(city, load(DEFAULT_FILE), start, MORNING_SECONDS, seed=options.seed))


def berlin_record() -> Path | None:
    """The recorded events of Berlin, where this machine has them."""
    from simulator.options import berlin_file

    try:
        return Path(berlin_file("berlin"))
    except click.UsageError:
        return None


def berlin_day(record: Path, path: Path) -> Traffic:
    """Write the trace of the Berlin day, its spaces spread over kerb zones of Hoàn Kiếm."""
    from simulator import convert, readings
    from simulator.city import City
    from simulator.options import BERLIN_TIME

    city = City.from_geojson(PROJECT / "zones" / "data" / "zones.geojson")
    kerbs = [zone for zone in city.zones if zone.code.startswith("HK-") and not zone.strict][:BERLIN_ZONES]
    found = readings.read(str(record))
    where = convert.spread(
        {reading.space for reading in found.readings},
        [convert.Place(zone.code, zone.max_stay_minutes, zone.strict) for zone in kerbs],
    )
    chosen = convert.Choice(day=BERLIN_DAY, local=BERLIN_TIME)
    header, events, _ = convert.convert(found, where, chosen, f"berlin {record.name}")
    return written(path, header, events)


def written(path: Path, header: Any, events: Any) -> Traffic:
    """Write a trace; its size and its busiest five minutes."""
    from simulator import trace

    busy: dict[int, int] = {}

    def counted() -> Iterator[Any]:
        for event in events:
            busy[int(event.t // 300)] = busy.get(int(event.t // 300), 0) + 1
            yield event

    number = trace.write(path, header, counted())
    return Traffic(path, header.start_at, number, max(busy.values(), default=1) / 300)


def cut(traffic: Traffic, path: Path, seconds: float) -> Traffic:
    """Write the first seconds of a trace."""
    from itertools import takewhile

    from simulator.trace import TraceReader

    with TraceReader(traffic.path) as whole:
        return written(path, whole.header, takewhile(lambda event: event.t < seconds, whole))


# --- running ----------------------------------------------------------------------------------------------------------
def replay(server: Server, trace: Path, answers: Path) -> dict[str, Any]:
    """Replay in a process of its own: the client's times are then its own. Raises StackError, KeyboardInterrupt."""
    command = [sys.executable, "-m", "app.cli", "simulate", "replay", str(trace), "--url", server.url]
    command += ["--keys", str(server.keys_path), "--answers", str(answers), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        try:
            output, _ = child.communicate()
        except BaseException:
            child.terminate()
            raise
    figures: dict[str, Any] = json.loads(output) if output else {}
    if figures.get("partial"):
        raise KeyboardInterrupt
    if child.returncode or not figures:
        raise StackError(f"the replay ended with {child.returncode}: see above")
    return figures


def now_at(server: Server) -> datetime:
    """The business instant that a server shows."""
    from simulator.service import Service

    service = Service(server.url)
    try:
        return datetime.fromisoformat(service.get("/healthz")["now"])
    finally:
        service.close()


def result(options: Options, speed: float, hanoi: Run, berlin: Run | None) -> dict[str, Any]:
    """What the verb reports. Figures are the morning's; divergences and errors are those of both runs."""
    assert hanoi.audit is not None
    audits = [run.audit for run in (hanoi, berlin) if run is not None and run.audit is not None]
    audit = hanoi.audit
    return {
        "synthetic": True,
        "date": options.day.isoformat(),
        "requests": audit["requests"],
        "errors": sum(one["errors"] for one in audits),
        "refusals": audit["refusals"],
        "divergences": sum(one["divergences"] for one in audits),
        "lag_ms": {name: audit["lag_ms"][name] for name in ("p50", "p99")},
        "districts": audit["districts"],
        "speed": speed,
        "sessions": audit["sessions"],
        "revenue": audit["revenue"],
        "refusals_by_code": audit["refusals_by_code"],
        "divergence_details": [detail for one in audits for detail in one["divergence_details"]],
        "compared": audit["compared"],
        "latency_valid": audit["latency_valid"],
        "service_ms": audit["service_ms"],
        "response_ms": audit["response_ms"],
        "requests_per_second": hanoi.figures["requests_per_second"],
        "retries": hanoi.figures["retries"],
        "ended": hanoi.ended.isoformat() if hanoi.ended else None,
        "berlin": None if berlin is None or berlin.audit is None else _berlin(berlin.figures, berlin.audit),
    }


def _berlin(figures: dict[str, Any], audit: dict[str, Any]) -> dict[str, Any]:
    kept = ("requests", "errors", "refusals", "divergences", "sessions", "revenue", "lag_ms", "response_ms")
    return {"date": BERLIN_DAY.isoformat(), "speed": figures["speed"], **{name: audit[name] for name in kept}}


# --- the command ------------------------------------------------------------------------------------------------------
class _Day(click.ParamType):
    """A date as YYYY-MM-DD."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        try:
            return value if isinstance(value, date) else date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a date (YYYY-MM-DD)", param, ctx)


@click.command()
@click.option("--date", "day", type=_Day(), help="The day of the morning.  [default: today in Hanoi]")
@click.option("--once", is_flag=True, help="Stop what was started when the table is printed.")
@click.option(
    "--port", type=click.IntRange(1, 65535), help=f"Port of the API.  [default: {DEFAULT_PORT}, or a free one]"
)
@click.option(
    "--speed",
    type=click.FloatRange(1, 1000),
    help=f"How fast the clock runs.  [default: what this machine holds, {SLOWEST:.0f} to {FASTEST:.0f}]",
)
@click.option("--seed", default=7, show_default=True, type=click.IntRange(0), help="Another seed, another traffic.")
@click.option("--json", "json_", is_flag=True, help="Print JSON, and nothing else, on standard output.")
def demo(day: date | None, port: int | None, json_: bool, **given: Any) -> None:
    """Start everything, replay a morning of traffic on it and prove the result.

    Ends with a table by district and the verdict, and goes on serving at 1x until Ctrl-C. Exits with 1 if the audit
    found a divergence.

    \b
    Example: ./iparking demo --once --json
    """
    options = Options(day or datetime.now(HANOI).date(), port or _port(), **given)
    require_free(options.port, "the demo", "choose another with --port")
    with _terminable(), Stack() as stack, _only_demo(stack):
        found = Demo(stack, options, say).play()
        url = None if options.once or found["divergences"] else f"http://127.0.0.1:{options.port}"
        found |= {"url": url, "keys": str(stack.root / "keys.json")}
        with contextlib.ExitStack() as serving:
            if url is not None:
                server = serving.enter_context(_serving_on(stack, options, datetime.fromisoformat(found["ended"])))
            show(found, json_)
            if url is not None:
                _until_stopped(server)
    if found["divergences"]:
        raise SystemExit(1)


def say(text: str) -> None:
    """Progress, for people, on standard error."""
    click.echo(text, err=True)


def show(found: dict[str, Any], json_: bool) -> None:
    """The result on standard output."""
    if json_:
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        from simulator.report import print_demo

        print_demo(found)
    sys.stdout.flush()


def _port() -> int:
    return DEFAULT_PORT if is_free(DEFAULT_PORT) else choose_free()


@contextlib.contextmanager
def _only_demo(stack: Stack) -> Iterator[None]:
    """One demo at a time: it makes its database afresh. Raises StackError."""
    with (stack.root / "run" / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError("another demo is running: end it first (Ctrl-C there, or ./iparking down)") from None
        yield


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM and a closed terminal end the demo as Ctrl-C does: with nothing left running."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _serving_on(stack: Stack, options: Options, ended: datetime) -> Iterator[Server]:
    """The demo's database at 1x; its clock goes on from the instant at which it was stopped."""
    server = Demo(stack, options, say).server(DATABASE, options.port, clock(ended, 1.0, datetime.now(UTC)))
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _until_stopped(server: Server) -> None:
    """Go on until Ctrl-C, SIGTERM, or `./iparking down`."""
    say(f"serving on {server.url} at 1x (keys: {server.keys_path}; end: Ctrl-C)")
    never = threading.Event()
    with contextlib.suppress(KeyboardInterrupt):
        while not server.dead():
            never.wait(0.5)
        say(f"the demo's {' and '.join(server.dead())} ended")

"""The course of a demo: rehearse, replay, audit. What is served here runs on a simulated clock."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from app.demo import traffic
from app.demo.traffic import Traffic
from app.stack import Server, Stack, StackError, prepare_database
from app.stack.machine import PROJECT
from app.stack.ports import choose_free
from app.stack.processes import wait_until
from simulator.auditor import audit
from simulator.service import Service

DATABASE, BERLIN_DATABASE = "demo", "demo_berlin"
DRIVERS = 200
# VND of each: more than a morning's vehicles of one driver can cost, so that no wallet refuses a start.
FUNDS = 100_000_000
FASTEST, SLOWEST = 120.0, 80.0
# The part of what the machine can do at most that a replay may ask of it: a busier one measures its own queues.
SHARE = 0.6
REHEARSAL_SECONDS, REHEARSAL_SPEED = 600.0, 300.0
BERLIN_SPEED = 4_320.0  # a day in twenty seconds
# Real seconds; a quarter of an hour of the morning takes eleven at the slowest speed.
BOOKS_SECONDS = 90.0
# How much longer a start may take than the last one did.
SLACK = 1.5

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for. `speed` None: what this machine holds."""

    day: date
    port: int
    speed: float | None
    seed: int


@dataclass(frozen=True, slots=True)
class Run:
    """A replay's figures, its audit, and the business instant at which its API was stopped."""

    figures: dict[str, Any]
    audit: dict[str, Any]
    ended: datetime


@dataclass(slots=True)
class Demo:
    """One demo under way on a stack that runs. The two times are of the last start, in seconds; at first they are
    guesses."""

    stack: Stack
    options: Options
    say: Say
    server_seconds: float = 6.0  # until the API is ready
    client_seconds: float = 3.0  # from there to the first request

    @property
    def folder(self) -> Path:
        """Traces and records, kept until the next demo."""
        return self.stack.root / "demo"

    def play(self) -> dict[str, Any]:
        """Rehearse, replay, audit; what the verb reports. Raises StackError."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.say("making the databases and the traffic")
        prepare_database(self.stack, DATABASE, fresh=True)
        morning = traffic.morning(self.folder / "morning.jsonl", self.options.day, self.options.seed)
        speed = self.options.speed or self._rehearse(morning)
        self._make_berlin()
        self.say(f"the morning of {self.options.day}: {morning.events:,} invented events at {speed:g}x")
        hanoi = self._perform(DATABASE, morning, speed, self.options.port)
        record = traffic.berlin_record()
        berlin = self._berlin(record) if record else None
        self.stack.drop_database(BERLIN_DATABASE)
        return result(self.options, hanoi, berlin)

    def continue_at(self, ended: datetime) -> Server:
        """The morning's database at 1x, not started yet; its clock goes on from where it was stopped."""
        return self._server(DATABASE, self.options.port, clock(ended, 1.0, datetime.now(UTC)))

    def _rehearse(self, morning: Traffic) -> float:
        """The speed that this machine holds: the first minutes of the morning, as fast as they are answered."""
        self.say("rehearsing: how fast is this machine?")
        part = traffic.beginning(morning, self.folder / "rehearsal.jsonl", REHEARSAL_SECONDS)
        self._make_berlin()
        server = self._server(BERLIN_DATABASE, choose_free(), clock(part.start, REHEARSAL_SPEED, datetime.now(UTC)))
        began = time.monotonic()
        server.start()
        ready = time.monotonic()
        try:
            figures = replay(server, part.path, "--align", "now")
        finally:
            server.stop()
        self.server_seconds = ready - began
        self.client_seconds = time.monotonic() - ready - figures["seconds"]
        speed = holdable_speed(figures["requests_per_second"], morning.rate)
        self.say(f"it answers {figures['requests_per_second']:.0f} requests/s at most: the clock runs at {speed:g}x")
        return speed

    def _make_berlin(self) -> None:
        self.stack.create_database(BERLIN_DATABASE, fresh=True, template=DATABASE)

    def _berlin(self, record: Path) -> Run:
        """The Berlin day on a database and a clock of its own."""
        day = traffic.berlin_day(record, self.folder / "berlin.jsonl")
        self.say(f"Berlin, {traffic.BERLIN_DAY}: {day.events:,} recorded events at {BERLIN_SPEED:g}x")
        return self._perform(BERLIN_DATABASE, day, BERLIN_SPEED, choose_free())

    def _perform(self, database: str, trace: Traffic, speed: float, port: int) -> Run:
        """Serve a database on a clock that reaches the trace's start soon, replay the trace, audit; then stop
        serving."""
        server = self._serve_on_time(database, trace.start, speed, port)
        try:
            figures = replay(server, trace.path, "--speed", str(speed))
            reader = self.stack.reader_url(database)
            self.say("waiting until every session that is over is charged and has its receipt")
            wait_for_books(reader, now_at(server))
            self.say("auditing every answer, against the API and PostgreSQL")
            found = audit([record_of(trace.path)], server.keys_path, base_url=server.url, database_url=reader)
            return Run(figures, found.as_dict(), now_at(server))
        finally:
            server.stop()

    def _serve_on_time(self, database: str, start: datetime, speed: float, port: int) -> Server:
        """A server whose clock will show `start` in a few seconds, with enough of them left for the client.

        A clock is fixed before its server starts, so a start that took much longer than the last is tried again.
        """
        while True:
            began = time.monotonic()
            client = timedelta(seconds=SLACK * self.client_seconds)
            anchor = datetime.now(UTC) + timedelta(seconds=SLACK * self.server_seconds) + client
            server = self._server(database, port, clock(start, speed, anchor))
            server.start()
            self.server_seconds = time.monotonic() - began
            if datetime.now(UTC) + client <= anchor:
                return server
            server.stop()
            self.say(f"the API took {self.server_seconds:.0f} s to start; once more, with a later clock")

    def _server(self, database: str, port: int, environment: dict[str, str]) -> Server:
        return Server(self.stack, database, port, name=database, environment=environment, drivers=DRIVERS, funds=FUNDS)


def clock(start: datetime, speed: float, anchor: datetime) -> dict[str, str]:
    """The variables of a clock that shows `start` at the real instant `anchor`."""
    return {
        "IPARKING_ENV": "simulation",
        "IPARKING_CLOCK_START": start.isoformat(),
        "IPARKING_CLOCK_SPEED": str(speed),
        "IPARKING_CLOCK_ANCHOR": anchor.isoformat(),
    }


def holdable_speed(requests_per_second: float, rate: float) -> float:
    """The speed at which a trace's busiest minutes (`rate` events a business second) take SHARE of what a machine can
    do."""
    return float(round(min(FASTEST, max(SLOWEST, SHARE * requests_per_second / rate))))


def record_of(trace: Path) -> Path:
    """Where a trace's answers are kept."""
    return trace.with_suffix(".answers")


def replay(server: Server, trace: Path, *options: str) -> dict[str, Any]:
    """Replay in a process of its own, so that the client's times are its own. Raises StackError, KeyboardInterrupt."""
    command = [sys.executable, "-m", "app.cli", "simulate", "replay", str(trace), "--url", server.url]
    command += ["--keys", str(server.keys_path), "--answers", str(record_of(trace)), "--json", *options]
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
        raise StackError(f"the replay of {trace.name} ended with {child.returncode}")
    return figures


_UNCHARGED = "SELECT id FROM active_session WHERE admission = 'advisory' AND over_at <= %s LIMIT 1"
_UNRECEIPTED = """
SELECT t.id FROM parking_session p JOIN ledger_transaction t ON t.kind = 'parking' AND t.reference = p.id::text
 WHERE p.ended_at <= %s AND NOT EXISTS (SELECT FROM receipt r WHERE r.id = t.id) LIMIT 1"""


def wait_for_books(database_url: str, over: datetime) -> None:
    """Wait until the sessions that were over at a business instant are charged (those that ran out are, once no late
    stop can come any more) and have their receipts; or for BOOKS_SECONDS: what is missing then is the auditor's affair.
    """
    with psycopg.connect(database_url, autocommit=True) as connection:
        for query in (_UNCHARGED, _UNRECEIPTED):
            wait_until(partial(_finds_none, connection, query, over), BOOKS_SECONDS)


def _finds_none(connection: psycopg.Connection, query: str, over: datetime) -> bool:
    return connection.execute(query, (over,)).fetchone() is None


def now_at(server: Server) -> datetime:
    """The business instant that a server shows."""
    service = Service(server.url)
    try:
        return datetime.fromisoformat(service.get("/healthz")["now"])
    finally:
        service.close()


def result(options: Options, hanoi: Run, berlin: Run | None) -> dict[str, Any]:
    """What the verb reports. Figures are the morning's; divergences and errors are those of both runs."""
    audits = [run.audit for run in (hanoi, berlin) if run is not None]
    found = hanoi.audit
    return {
        "synthetic": True,
        "date": options.day.isoformat(),
        "requests": found["requests"],
        "errors": sum(one["errors"] for one in audits),
        "refusals": found["refusals"],
        "divergences": sum(one["divergences"] for one in audits),
        "lag_ms": {name: found["lag_ms"][name] for name in ("p50", "p99")},
        "districts": found["districts"],
        **{name: hanoi.figures[name] for name in ("speed", "seconds", "requests_per_second", "retries", "skipped")},
        **{
            name: found[name]
            for name in ("sessions", "revenue", "ledger", "receipts", "refusals_by_code", "compared", "notes")
        },
        **{name: found[name] for name in ("service_ms", "response_ms", "latency_valid")},
        "divergence_details": [detail for one in audits for detail in one["divergence_details"]],
        "berlin": None if berlin is None else _berlin_result(berlin),
        "ended": hanoi.ended.isoformat(),
    }


def _berlin_result(run: Run) -> dict[str, Any]:
    kept = ("requests", "errors", "refusals", "divergences", "sessions", "revenue", "lag_ms", "response_ms")
    day = {"date": traffic.BERLIN_DAY.isoformat(), "speed": run.figures["speed"]}
    return day | {name: run.audit[name] for name in kept}

"""Replays a trace on a running service, open-loop: every event is sent at its own time, however slow the answers are.

A closed loop sends less while the service stalls and so hides the stall. Here the plan stands still for nothing: an
event is due at `t / speed` real seconds after the service's clock showed the trace's start, and its response time
counts from then. Only within one vehicle does an event wait, for that vehicle's own last answer (a stop needs the id of
its start).

The service's clock must run as fast as the replay, or every fee would be wrong: speed and time are read from
`/healthz`.
"""

import asyncio
import gc
import os
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from simulator.answers import AnswersWriter, Clock, RunEnd, RunHeader, microseconds, rfc3339
from simulator.client import Client
from simulator.report import Latencies, Progress, replay_line
from simulator.service import Service
from simulator.trace import Event, Header, TraceReader
from simulator.users import Fleet, Keys, Step

YIELD_EVERY = 16
WARM_CONNECTIONS = 16
LAST_ANSWERS_SECONDS = 30.0
LONGEST_WAIT_SECONDS = 600.0
LATEST_START_SECONDS = 0.25
SOON_SECONDS = 1.0
PRIORITY = -10


class ReplayError(ValueError):
    """The replay cannot begin; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to replay where. `speed` None: as the service's clock runs. `align`: "clock" puts t = 0 at the instant that
    the trace names, by the service's clock; "now" puts it at the service's present. `answers` is the record's path;
    `timeout` is in seconds a try, of which a request has `tries`."""

    trace: Path
    base_url: str
    keys: Path
    answers: Path
    speed: float | None = None
    align: Literal["clock", "now"] = "clock"
    limit: int = 1000
    timeout: float = 10.0
    tries: int = 5
    quiet: bool = False


def replay(plan: Plan) -> dict[str, Any]:
    """Replay a trace and give its figures; every answer is in the record. Raises ReplayError, KeysError, ServiceError,
    InputError.

    SIGINT and SIGTERM end it early, with `partial` true: what is under way is still answered for.
    """
    keys = Keys.read(plan.keys)
    with TraceReader(plan.trace) as trace, _room_for(plan.limit + 64), _first_in_line():
        header = describe(plan, trace.header, keys)
        writer = AnswersWriter(plan.answers, header)
        run = _Run(plan, header, writer, keys)
        try:
            figures = asyncio.run(run.play(trace))
        except BaseException:
            writer.close(None)
            raise
        writer.close(run.ending())
    return figures


def describe(plan: Plan, trace: Header, keys: Keys, start: int | None = None) -> RunHeader:
    """The record's first line: the service as it stands before the run, and the business instant of t = 0 (`start`: as
    told)."""
    service = Service(plan.base_url)
    try:
        zones, districts, clock = service.zones(), service.districts(), service.clock()
    finally:
        service.close()
    return RunHeader(
        run=uuid4().hex[:12],
        base_url=plan.base_url,
        trace=trace.origin,
        start=aligned_start(plan, microseconds(trace.start), clock, time.time()) if start is None else start,
        clock=clock,
        drivers=len(keys.drivers),
        zones=zones,
        districts=districts,
    )


def aligned_start(plan: Plan, trace_start: int, clock: Clock, now: float) -> int:
    """The business instant of t = 0. Raises ReplayError where the service's clock does not fit the trace."""
    if plan.speed is not None and abs(plan.speed - clock.speed) > 1e-9 * clock.speed:
        raise ReplayError(
            f"asked to replay at {plan.speed:g}x, but the service's clock runs at {clock.speed:g}x: every fee would be "
            f"wrong. Serve with IPARKING_CLOCK_SPEED={plan.speed:g}, or leave the speed out"
        )
    if plan.align == "now":
        return clock.business_at(now + SOON_SECONDS)
    wait = clock.real_at(trace_start) - now
    if -LATEST_START_SECONDS <= wait <= LONGEST_WAIT_SECONDS:
        return trace_start
    raise ReplayError(
        f"the trace begins at {rfc3339(trace_start)}, but the service's clock shows {rfc3339(clock.business_at(now))}. "
        f"Serve with IPARKING_CLOCK_START at the trace's start and the anchor some seconds ahead, or align with now"
    )


class _Run:
    """One replay under way."""

    def __init__(self, plan: Plan, header: RunHeader, writer: AnswersWriter, keys: Keys) -> None:
        self.plan, self.header, self.writer = plan, header, writer
        self.latencies = Latencies()
        self.statuses: Counter[int] = Counter()
        self.events = 0
        self.partial = False
        self.under_way = 0
        self.fleet = Fleet(keys, header.run, self._business_at)
        self._first = self._last = 0.0  # when the first request was due, when the last answer came
        self._to_wall = time.time() - time.monotonic()
        self._progress = Progress(quiet=plan.quiet)

    def ending(self) -> RunEnd:
        return RunEnd(
            partial=self.partial, events=self.events, requests=sum(self.statuses.values()), skipped=self.fleet.skipped
        )

    async def play(self, trace: TraceReader) -> dict[str, Any]:
        plan = self.plan
        self.client = Client(plan.base_url, limit=plan.limit, timeout=plan.timeout, tries=plan.tries)
        self._idle = asyncio.Event()
        self._idle.set()
        loop = asyncio.get_running_loop()
        await self.client.warm(min(WARM_CONNECTIONS, plan.limit))
        sender = asyncio.create_task(self._send_all(iter(trace)))
        ticker = asyncio.create_task(self._tick())
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._break_off, sender)
        cpu = time.process_time()
        try:
            with _without_collector():
                await self._until_answered(sender)
        finally:
            ticker.cancel()
            await self.client.close()
        return self._figures(max(0.0, self._last - self._first), time.process_time() - cpu)

    async def _send_all(self, events: Iterator[Event]) -> None:
        """Send every event when it is due. Where the plan is late already, answers still get their turn between the
        sends."""
        start = self.header.clock.real_at(self.header.start) - self._to_wall
        speed = self.header.clock.speed
        now = asyncio.get_running_loop().time
        for number, event in enumerate(events):
            due = start + event.t / speed
            delay = due - now()
            if delay > 0:
                await asyncio.sleep(delay)
            elif number % YIELD_EVERY == 0:
                await asyncio.sleep(0)
            self.events += 1
            step = self.fleet.arrive(event, due)
            if step is not None:
                self._send(step)

    async def _until_answered(self, sender: asyncio.Task[None]) -> None:
        try:
            await sender
        except asyncio.CancelledError:
            if not self.partial:
                raise
        try:
            async with asyncio.timeout(LAST_ANSWERS_SECONDS):
                await self._idle.wait()
        except TimeoutError:
            self.partial = True

    def _send(self, step: Step) -> None:
        self.under_way += 1
        self._idle.clear()
        self.client.submit(_Call(step, step.request.wire(self.client.host), self))

    def answered(self, step: Step) -> None:
        """A step is over: keep it, and send what its vehicle does next."""
        self.under_way -= 1
        self._first, self._last = self._first or step.due, step.answered
        self.statuses[step.status] += 1
        self.latencies.add(step.due, step.ready, step.sent, step.answered)
        self.writer.write(step.answer(self._to_wall))
        following = self.fleet.answered(step)
        if following is not None and not self.partial:
            self._send(following)
        elif self.under_way == 0:
            self._idle.set()

    def _business_at(self, due: float) -> int:
        """By the service's clock; its reading may be ahead, and a warden cannot have seen a car in the future."""
        clock = self.header.clock
        return clock.business_at(due + self._to_wall) - clock.margin

    def _break_off(self, sender: asyncio.Task[None]) -> None:
        """First signal: send no more, wait for the answers. Second: do not wait either."""
        if self.partial:
            self._idle.set()
        self.partial = True
        sender.cancel()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            self._progress.show(self._line())

    def _line(self) -> str:
        business = rfc3339(self.header.clock.business_at(time.time()))[:19]
        refused = sum(count for status, count in self.statuses.items() if 400 <= status < 500)
        failed = self.statuses[0] + sum(count for status, count in self.statuses.items() if status >= 500)
        return replay_line(business, sum(self.statuses.values()), self.under_way, refused, failed, self.latencies)

    def _figures(self, seconds: float, cpu: float) -> dict[str, Any]:
        self._progress.show(self._line(), last=True)
        requests = sum(self.statuses.values())
        return {
            "synthetic": True,
            "trace": self.header.trace,
            "start": rfc3339(self.header.start),
            "speed": self.header.clock.speed,
            "partial": self.partial,
            "events": self.events,
            "requests": requests,
            "answers": {str(status): count for status, count in sorted(self.statuses.items())},
            "unanswered": self.statuses[0],
            "skipped": self.fleet.skipped,
            "retries": self.client.retries,
            "failed_tries": self.client.failures.by_kind,
            "seconds": round(seconds, 2),
            "requests_per_second": round(requests / seconds, 1) if seconds else 0.0,
            "client_cpu_us": round(cpu / requests * 1e6, 1) if requests else 0.0,
            **self.latencies.as_dict(),
        }


class _Call:
    """A step on the wire, as the client wants it."""

    __slots__ = ("_run", "_step", "answered", "body", "sent", "status", "tries", "wire")

    def __init__(self, step: Step, wire: bytes, run: _Run) -> None:
        self.wire = wire
        self.sent = self.answered = 0.0
        self.tries = self.status = 0
        self.body = b""
        self._step, self._run = step, run

    def done(self) -> None:
        step = self._step
        step.sent, step.answered, step.tries = self.sent, self.answered, self.tries
        step.status, step.body = self.status, self.body
        self._run.answered(step)


@contextmanager
def _without_collector() -> Iterator[None]:
    """No garbage collection while times are measured: a full one takes longer than a request. Steps form no cycles."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


@contextmanager
def _first_in_line() -> Iterator[None]:
    """Run before other programs of this machine, where that is allowed: whoever wakes late measures himself.

    Measured with six busy programs on two cores: lag p99 37 ms without, 11 ms with it.
    """
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, max(usual, os.getpriority(os.PRIO_PROCESS, 0)))


@contextmanager
def _room_for(files: int) -> Iterator[None]:
    """Enough file descriptors for every connection, as far as the hard limit lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files if hard == resource.RLIM_INFINITY else min(files, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

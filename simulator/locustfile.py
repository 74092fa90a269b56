"""The same trace under Locust: its web page, its scenarios, and many machines. For figures use `./iparking simulate
replay`.

    locust -f simulator/locustfile.py --headless --host http://127.0.0.1:8000 --trace morning.jsonl --keys
    .iparking/keys.json

Each process replays its share of the vehicles (by their name), open-loop and by the service's clock as the lean client
does; so with workers give `--users` as many as there are workers. A request costs about three times the CPU that it
costs the lean client.

Locust's own rows (POST) are the service time. Two more rows a kind of request stand beside them: `lag` (the client's
own lateness) and `response` (due to answered, what a driver waits). The row that adds up all kinds mixes them and says
nothing.
"""

import logging
import time
from pathlib import Path
from typing import Any
from zlib import crc32

import gevent
from gevent.event import AsyncResult
from gevent.pool import Group
from locust import FastHttpUser, events, task
from locust.runners import MasterRunner, WorkerRunner
from locust.stats import StatsEntry

from simulator.answers import AnswersWriter, RunEnd, microseconds
from simulator.replay import Plan, aligned_start, describe
from simulator.report import MAX_LAG_P99_MS
from simulator.service import Service
from simulator.trace import TraceReader
from simulator.users import Fleet, Keys, Step

log = logging.getLogger(__name__)
TRIES = 5
KINDS = ("lag", "response")
PREDICTABLE = (404, 409, 422)  # refusals: whether they were right the auditor says


class Share:
    """Which part of the vehicles this process drives; known once the run begins. `start` is t = 0, the same for all."""

    def __init__(self) -> None:
        self.given: AsyncResult = AsyncResult()
        self.taken = False

    def take(self) -> dict[str, Any] | None:
        """The share, for the first who asks in this process; None for anybody after."""
        if self.taken:
            return None
        self.taken = True
        share: dict[str, Any] = self.given.get()
        return share


share = Share()


@events.init_command_line_parser.add_listener
def _add_options(parser: Any) -> None:
    parser.add_argument("--trace", env_var="IPARKING_TRACE", required=True, help="trace to replay")
    parser.add_argument(
        "--keys", env_var="IPARKING_KEYS", default=".iparking/keys.json", help="keys.json of the service"
    )
    parser.add_argument("--answers", default="", help="record for the auditor; each process adds its number")
    parser.add_argument("--align", choices=["clock", "now"], default="clock", help="what t = 0 is")


@events.init.add_listener
def _prepare(environment: Any, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        environment.runner.register_message("share", lambda environment, msg, **_: share.given.set(msg.data))
    if isinstance(environment.runner, MasterRunner):
        environment.runner.register_message("replayed", lambda environment, msg, **_: _count_down(environment))


@events.test_start.add_listener
def _begin(environment: Any, **_: Any) -> None:
    """One process takes all; a master deals out shares of the same run."""
    runner = environment.runner
    if isinstance(runner, WorkerRunner):
        return
    plan = plan_of(environment)
    with TraceReader(plan.trace) as trace:
        start = _start_of(plan, trace)
    if not isinstance(runner, MasterRunner):
        share.given.set({"index": 0, "of": 1, "start": start})
        return
    workers = [worker.id for worker in runner.clients.ready]
    environment.iparking_running = len(workers)
    for index, worker in enumerate(workers):
        runner.send_message("share", {"index": index, "of": len(workers), "start": start}, client_id=worker)


def _start_of(plan: Plan, trace: TraceReader) -> int:
    service = Service(plan.base_url)
    try:
        return aligned_start(plan, microseconds(trace.header.start), service.clock(), time.time())
    finally:
        service.close()


def _count_down(environment: Any) -> None:
    environment.iparking_running -= 1
    if environment.iparking_running == 0:
        environment.runner.quit()


@events.quitting.add_listener
def _conclude(environment: Any, **_: Any) -> None:
    """Say the three times apart, and whether they can be believed."""
    if isinstance(environment.runner, WorkerRunner):
        return
    for kind in ("POST", *KINDS):
        all_of_kind = StatsEntry(environment.stats, kind, kind)
        for (_, entry_kind), entry in environment.stats.entries.items():
            if entry_kind == kind:
                all_of_kind.extend(entry)
        if not all_of_kind.num_requests:
            continue
        p50, p95, p99 = (all_of_kind.get_response_time_percentile(part) for part in (0.5, 0.95, 0.99))
        log.info("%s p50 %d p95 %d p99 %d ms", "service" if kind == "POST" else kind, p50, p95, p99)
        if kind == "lag" and p99 > MAX_LAG_P99_MS:
            log.warning("latency figures are invalid: the client itself was late (lag p99 %d ms)", p99)


def plan_of(environment: Any) -> Plan:
    """The replay that the command line asks for."""
    options = environment.parsed_options
    return Plan(
        Path(options.trace),
        environment.host or options.host,
        Path(options.keys),
        Path(options.answers),
        align=options.align,
    )


class Traffic(FastHttpUser):
    """All vehicles of this process's share; a second user in the same process has nothing to do."""

    concurrency = 500
    network_timeout = 10.0
    connection_timeout = 10.0

    @task
    def replay(self) -> None:
        mine = share.take()
        if mine is None:
            gevent.sleep(3600)
            return
        _Replay(self, plan_of(self.environment), mine).play()
        runner = self.environment.runner
        if isinstance(runner, WorkerRunner):
            runner.send_message("replayed")
        else:
            gevent.spawn(runner.quit)
        gevent.sleep(3600)


class _Replay:
    """One share of a run under way."""

    def __init__(self, user: Traffic, plan: Plan, mine: dict[str, Any]) -> None:
        keys = Keys.read(plan.keys)
        self.trace = TraceReader(plan.trace)
        self.header = describe(plan, self.trace.header, keys, mine["start"])
        self.client, self.fire = user.client, user.environment.events.request.fire
        self.index, self.of = mine["index"], mine["of"]
        self.fleet = Fleet(keys, self.header.run, self._business_at)
        self.under_way = Group()
        self.events = self.requests = 0
        self.to_wall = time.time() - time.monotonic()
        path = plan.answers
        self.writer = AnswersWriter(path.with_name(f"{path.name}.{self.index}"), self.header) if path.name else None

    def play(self) -> None:
        """Send every event of this share when it is due, and wait for the last answer."""
        clock = self.header.clock
        start = clock.real_at(self.header.start) - self.to_wall
        with self.trace:
            for event in self.trace:
                if crc32(event.vehicle.encode()) % self.of != self.index:
                    continue
                due = start + event.t / clock.speed
                gevent.sleep(max(0.0, due - time.monotonic()))
                self.events += 1
                step = self.fleet.arrive(event, due)
                if step is not None:
                    self.under_way.spawn(self._drive, step)
        self.under_way.join()
        if self.writer is not None:
            self.writer.close(
                RunEnd(partial=False, events=self.events, requests=self.requests, skipped=self.fleet.skipped)
            )

    def _drive(self, step: Step | None) -> None:
        """A step, and what the same vehicle had waiting behind it."""
        while step is not None:
            self._send(step)
            self._report(step)
            if self.writer is not None:
                self.writer.write(step.answer(self.to_wall))
            step = self.fleet.answered(step)

    def _send(self, step: Step) -> None:
        request = step.request
        step.sent = time.monotonic()
        while step.tries < TRIES:
            step.tries += 1
            with self.client.post(
                request.path,
                data=request.body.decode(),
                headers=request.headers(),
                name=step.event.action,
                catch_response=True,
            ) as answer:
                if answer.status_code in PREDICTABLE:
                    answer.success()
                step.status, step.body = answer.status_code, answer.content or b""
            if step.status not in (0, 503):
                break
            gevent.sleep(0.05 * 2**step.tries)
        step.answered = time.monotonic()

    def _report(self, step: Step) -> None:
        self.requests += 1
        for kind, seconds in (("lag", step.sent - step.ready), ("response", step.answered - step.due)):
            self.fire(
                request_type=kind,
                name=step.event.action,
                response_time=seconds * 1000,
                response_length=0,
                exception=None,
                context={},
            )

    def _business_at(self, due: float) -> int:
        clock = self.header.clock
        return clock.business_at(due + self.to_wall) - clock.margin

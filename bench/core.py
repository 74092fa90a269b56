"""`./iparking bench core`: the calls of the full service beside references, in alternating rounds.

The machine may be shared and noisy: so a round holds one short burst of each load, the next round has them in the other
order, ratios are taken within a round, and their median counts.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

import orjson
from rich.console import Console

from app.stack import Stack
from bench import machine, openloop, report
from bench.errors import BenchError
from bench.load import Client
from bench.loads import ReferenceLoads, ServiceLoads
from bench.report import OPEN_LOOP, PAIRS, Open
from bench.servers import Reference, Service, Trial
from bench.site import DRIVERS, NUMBERS_A_SECOND, Load, Measured, Site, open_site, serving

Say = Callable[[str], None]
T = TypeVar("T")
ROUNDS = 7
SECONDS = 3
# A load stands beside the one that it is divided by. The ceiling stands between the two that are divided by it.
ORDER = ("start", "ceiling", "stop", "check", "bare_read", "map", "bare_bytes", "hot_zone", "hot_ceiling", "pgbench")
# The open loop asks for this share of what the ceiling can do.
OPEN_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    The numbers of threads a worker are those that the ceiling and the service are tried with; one alone is taken as it
    is. `only` names loads, and OPEN_LOOP; what a load is divided by is measured with it. None: everything.
    """

    rounds: int = ROUNDS
    seconds: int = SECONDS
    warm_seconds: int = 1
    workers: int = 2
    ceiling_threads: tuple[int, ...] = (2, 4, 8)
    service_threads: tuple[int, ...] = (8, 16, 24)
    trials: int = 3
    trial_seconds: int = 2
    limit_seconds: float = 660.0  # no round begins later than this
    only: Sequence[str] | None = None
    client: Client = field(default_factory=Client)

    def names(self) -> list[str]:
        """The loads to be measured by wrk and pgbench, in their order."""
        if self.only is None:
            return list(ORDER)
        against = dict(PAIRS.values())
        wanted = {*self.only, *(against[name] for name in self.only if name in against)}
        return [name for name in ORDER if name in wanted]

    def has_open_loop(self) -> bool:
        return self.only is None or OPEN_LOOP in self.only


NAMES = (*ORDER, OPEN_LOOP)


def run(json: bool = False, **given: Any) -> int:
    """Measure on the private servers and print the figures; the exit code. Raises StackError, BenchError.

    `given` are fields of Plan. With `json`, standard output is one JSON object and nothing else; progress goes to
    standard error.
    """
    with Stack() as stack:
        found = measure(stack, Plan(**given))
    give(found, report.show, json)
    refuse_slow_ceiling(found)
    return 0


def give(found: Any, show: Callable[[Any, Console], None], json: bool) -> None:
    """Print a result, for programs or for people."""
    if json:
        sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    else:
        show(found, Console())


def measure(stack: Stack, plan: Plan, say: Say | None = None) -> dict[str, Any]:
    """The whole measurement, on a database of its own. Raises BenchError where a figure would not be true."""
    tell = say or progress
    began = time.monotonic()
    with open_site(stack, plan.client) as site:
        described = machine.describe(site.connection)
        ceiling_threads, ceiling_trials = _best_threads(site, plan, "ceiling", plan.ceiling_threads, tell)
        service_threads, service_trials = _best_threads(site, plan, "start", plan.service_threads, tell)
        reference = Reference(site.stack, site.folder, plan.workers, ceiling_threads)
        service = Service(site.stack, site.folder, "service", plan.workers, service_threads, DRIVERS)
        with serving(service), serving(reference):
            bench = _Bench(site, plan, service, reference, began, tell)
            rounds = bench.rounds()
            opened = bench.open_loop(rounds, ceiling_trials) if plan.has_open_loop() else None
    found = report.summary(rounds, opened)
    sizes = {"workers": plan.workers, "threads": {"ceiling": ceiling_threads, "service": service_threads}}
    spent = {"burst_seconds": plan.seconds, "took_seconds": round(time.monotonic() - began, 1)}
    trials = {"ceiling_by_threads": ceiling_trials, "start_by_threads": service_trials}
    sizes |= {"connections": plan.client.connections, "map_bytes": bench.map_bytes}
    return {"machine": described, **sizes, **spent, **trials, **found}


def refuse_slow_ceiling(found: Mapping[str, Any]) -> None:
    """Raises BenchError where the ceiling view was no ceiling."""
    share = found.get("ceiling_to_pgbench")
    if share is not None and share < report.LEAST_OF_PGBENCH:
        raise BenchError(f"the ceiling view reaches only {share:.0%} of pgbench: it is no ceiling")


def _best_threads(
    site: Site, plan: Plan, name: str, choices: tuple[int, ...], say: Say
) -> tuple[int, dict[str, float]]:
    """The number of threads with which a load is fastest, and the answers a second of each that was tried."""
    if len(choices) == 1:
        return choices[0], {}
    with ExitStack() as running:
        loads: dict[int, Load] = {}
        for threads in choices:
            loads[threads] = _trial(site, plan, name, threads, running)
        tried: dict[int, list[float]] = {threads: [] for threads in choices}
        for number in range(plan.trials):
            for threads, load in alternating(list(loads.items()), number):
                tried[threads].append(site.measure(load, plan.warm_seconds, plan.trial_seconds).burst.rps)
                say(f"{name} with {threads} threads a worker: {tried[threads][-1]:,.0f} a second")
    medians = {threads: round(median(values), 1) for threads, values in tried.items()}
    return max(medians, key=lambda threads: medians[threads]), {str(n): value for n, value in medians.items()}


def _trial(site: Site, plan: Plan, name: str, threads: int, running: ExitStack) -> Load:
    if name == "ceiling":
        reference = Reference(site.stack, site.folder, plan.workers, threads)
        running.enter_context(serving(reference))
        return ReferenceLoads(site, reference).all()[name]
    service = Trial(site.stack, site.folder, f"service-{threads}", plan.workers, threads, DRIVERS)
    running.enter_context(serving(service))
    return ServiceLoads(site, service).start


class _Bench:
    """Both servers, running, and their loads."""

    def __init__(self, site: Site, plan: Plan, service: Service, reference: Reference, began: float, say: Say) -> None:
        self._site, self._plan, self._began, self._say = site, plan, began, say
        self._service, self._reference = ServiceLoads(site, service), ReferenceLoads(site, reference)
        self._urls = {"start": service.url, "ceiling": reference.url}
        self.map_bytes = self._service.save_answer()
        loads = self._service.all()
        self._loads = loads | self._reference.all(loads["map"])

    def rounds(self) -> list[dict[str, Measured]]:
        """As many rounds as the plan has, or as there is time for. Raises BenchError where that is none."""
        plan, rounds = self._plan, list[dict[str, Measured]]()
        names = plan.names()
        for name in names if plan.warm_seconds else ():
            if name in self._loads:
                self._site.warm(self._loads[name], plan.warm_seconds)
        while names and len(rounds) < plan.rounds and time.monotonic() - self._began < plan.limit_seconds:
            rounds.append(self._round(names, len(rounds)))
        if names and not rounds:
            raise BenchError(f"no round was begun within {plan.limit_seconds:.0f} s")
        return rounds

    def _round(self, names: list[str], number: int) -> dict[str, Measured]:
        plan, measured = self._plan, dict[str, Measured]()
        for name in alternating(names, number):
            if name == "pgbench":
                measured[name] = self._site.measure_pgbench(plan.seconds)
            else:
                measured[name] = self._site.measure(self._loads[name], plan.warm_seconds, plan.seconds)
            self._say(f"round {number + 1} of {plan.rounds}: {name}: {measured[name].burst.rps:,.0f} a second")
        return {name: measured[name] for name in names}

    def open_loop(self, rounds: Sequence[Mapping[str, Measured]], trials: Mapping[str, float]) -> Open:
        """The latencies of both at OPEN_SHARE of the ceiling's peak, in alternating pairs with the same arrivals."""
        rate = OPEN_SHARE * self._peak(rounds, trials)
        opened = Open(rate)
        for number in range(self._plan.rounds):
            for name in alternating(["start", "ceiling"], number):
                timings = self._open(name, rate, number)
                opened.add(name, timings)
                self._say(f"open loop {number + 1} of {self._plan.rounds}: {name}: p99 {timings.latency_ms(99):.1f} ms")
        return opened

    def _open(self, name: str, rate: float, seed: int) -> openloop.Timings:
        """A second to warm up at the same rate, which does not count, then the burst."""
        plan = self._plan
        due = openloop.arrivals(rate, plan.warm_seconds + plan.seconds, seed)
        first = int(self._site.take_numbers(-(-len(due) // NUMBERS_A_SECOND))[0])
        made = self._service.open_starts(first) if name == "start" else self._reference.open_ceilings(first)
        timings = openloop.run(self._urls[name], due, made)
        return timings.since(plan.warm_seconds)

    def _peak(self, rounds: Sequence[Mapping[str, Measured]], trials: Mapping[str, float]) -> float:
        measured = [one["ceiling"].burst.rps for one in rounds if "ceiling" in one]
        if measured:
            return median(measured)
        if trials:
            return max(trials.values())
        return self._site.measure(self._loads["ceiling"], 1, self._plan.seconds).burst.rps


def alternating(items: list[T], number: int) -> Iterator[T]:
    """The items, from the other end in every second round, so that no load always comes first."""
    return iter(items if number % 2 == 0 else items[::-1])


def progress(line: str) -> None:
    """Print to standard error how far a run is."""
    print(line, file=sys.stderr, flush=True)

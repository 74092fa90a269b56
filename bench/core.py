"""`./iparking bench core`: starts, stops and map reads of the full service beside references, in alternating rounds.

The machine may be shared and noisy: so a round holds one short burst of each load, the next round has them in the other
order, ratios are taken within a round, and their median counts.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

import orjson
from rich.console import Console

from app.stack import Stack
from bench import machine, report
from bench.errors import BenchError
from bench.load import Client
from bench.servers import Reference, Service
from bench.site import DRIVERS, Load, Measured, Site, open_site, serving

Say = Callable[[str], None]
T = TypeVar("T")
ROUNDS = 9
SECONDS = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. `threads` are the numbers of threads a worker that the ceiling is tried with."""

    rounds: int = ROUNDS
    seconds: int = SECONDS
    warm_seconds: int = 1
    workers: int = 2
    threads: tuple[int, ...] = (2, 4, 8)
    trials: int = 3
    trial_seconds: int = 2
    limit_seconds: float = 480.0  # no round begins later than this
    client: Client = field(default_factory=Client)


def run(json: bool = False, rounds: int = ROUNDS, seconds: int = SECONDS) -> int:
    """Measure on the private servers and print the figures; the exit code. Raises StackError, BenchError.

    With `json`, standard output is one JSON object and nothing else; progress goes to standard error.
    """
    with Stack() as stack:
        found = measure(stack, Plan(rounds=rounds, seconds=seconds))
    if json:
        sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    else:
        report.show(found, Console())
    return 0


def measure(stack: Stack, plan: Plan, say: Say | None = None) -> dict[str, Any]:
    """The whole measurement, on a database of its own. Raises BenchError where a figure would not be true."""
    tell = say or _progress
    began = time.monotonic()
    with open_site(stack, plan.client) as site:
        described = machine.describe(site.connection)
        threads, trials = _best_threads(site, plan, tell)
        rounds = _measure_rounds(site, plan, threads, began, tell)
    found = report.summary(rounds)
    share = found["ceiling_to_pgbench"]
    if share < report.LEAST_OF_PGBENCH:
        raise BenchError(f"the ceiling view reaches only {share:.0%} of pgbench: it is no ceiling")
    sizes = {"workers": plan.workers, "threads": threads, "connections": plan.client.connections}
    spent = {"burst_seconds": plan.seconds, "took_seconds": round(time.monotonic() - began, 1)}
    return {"machine": described, **sizes, **spent, "ceiling_by_threads": trials, **found}


def _best_threads(site: Site, plan: Plan, say: Say) -> tuple[int, dict[str, float]]:
    """The number of threads with which the ceiling is fastest, and the answers a second of each that was tried."""
    with ExitStack() as running:
        ceilings: dict[int, Load] = {}
        for threads in plan.threads:
            server = Reference(site.stack, site.folder, plan.workers, threads)
            running.enter_context(serving(server))
            ceilings[threads] = site.loads_of_reference(server)[0]
        tried: dict[int, list[float]] = {threads: [] for threads in ceilings}
        for number in range(plan.trials):
            for threads, ceiling in _alternating(list(ceilings.items()), number):
                tried[threads].append(site.measure(ceiling, plan.warm_seconds, plan.trial_seconds).burst.rps)
                say(f"ceiling with {threads} threads a worker: {tried[threads][-1]:,.0f} a second")
    medians = {threads: round(median(values), 1) for threads, values in tried.items()}
    return max(medians, key=lambda threads: medians[threads]), {str(n): value for n, value in medians.items()}


def _measure_rounds(site: Site, plan: Plan, threads: int, began: float, say: Say) -> list[dict[str, Measured]]:
    reference = Reference(site.stack, site.folder, plan.workers, threads)
    service = Service(site.stack, site.folder, "service", plan.workers, threads, DRIVERS)
    rounds: list[dict[str, Measured]] = []
    with serving(reference), serving(service):
        loads = [*site.loads_of_reference(reference), *site.loads_of(service)]
        for load in loads if plan.warm_seconds else ():
            site.warm(load, 2 * plan.warm_seconds)
        while len(rounds) < plan.rounds and time.monotonic() - began < plan.limit_seconds:
            rounds.append(_measure_round(site, plan, loads, len(rounds), say))
    if not rounds:
        raise BenchError(f"no round was begun within {plan.limit_seconds:.0f} s")
    return rounds


def _measure_round(site: Site, plan: Plan, loads: list[Load], number: int, say: Say) -> dict[str, Measured]:
    measured: dict[str, Measured] = {}
    # The ceiling stands between the two that are divided by it.
    by_name = {load.name: load for load in loads}
    for name in _alternating(["start", "ceiling", "stop", "bare_json", "map", "pgbench"], number):
        if name == "pgbench":
            measured[name] = site.measure_pgbench(plan.seconds)
        else:
            measured[name] = site.measure(by_name[name], plan.warm_seconds, plan.seconds)
        say(f"round {number + 1} of {plan.rounds}: {name}: {measured[name].burst.rps:,.0f} a second")
    return {name: measured[name] for name in (*by_name, "pgbench")}


def _alternating(items: list[T], number: int) -> Iterator[T]:
    """The items, from the other end in every second round, so that no load always comes first."""
    return iter(items if number % 2 == 0 else items[::-1])


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

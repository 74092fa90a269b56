"""`./iparking bench core --growth`: does a call cost more when there is more past?

Each size has a database of its own, with a service of its own, side by side. A round has one burst of each call on all
of them, one after the other, so a machine that is slower for a minute is slower for all; the medians of the ratios to
the smallest, taken within a round, count.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from app.stack import Stack
from bench import history, machine, report
from bench.core import Say, alternating, give, progress
from bench.load import Client
from bench.loads import ServiceLoads
from bench.servers import Service
from bench.site import DRIVERS, Load, Measured, Site, open_site, serving

SIZES = (10_000, 1_000_000, 20_000_000)
CALLS = ("start", "stop", "check")
# How far a ratio may lie from 1.
WITHIN = 0.15
JUDGED = ("rps", "p50_ms")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. The first of the sizes is what the others are divided by."""

    sizes: tuple[int, ...] = SIZES
    rounds: int = 3  # 20 M sessions take some 11 minutes to load: the whole is to end within 15
    seconds: int = 3
    keep: bool = False
    warm_seconds: int = 1
    workers: int = 2
    threads: int = 16
    client: Client = field(default_factory=Client)


@dataclass(frozen=True, slots=True)
class Place:
    """The database of one size, and the loads on its service."""

    site: Site
    loads: Mapping[str, Load]


def run(json: bool = False, **given: Any) -> int:
    """Measure on the private servers and print the figures; the exit code. Raises StackError, BenchError.

    `given` are fields of Plan.
    """
    with Stack() as stack:
        found = measure(stack, Plan(**given))
    give(found, show, json)
    return 0


def measure(stack: Stack, plan: Plan, say: Say | None = None) -> dict[str, Any]:
    """Every size beside the others. Raises BenchError where the disk is too small, or a burst failed."""
    tell = say or progress
    began = time.monotonic()
    with ExitStack() as opened:
        sites = [
            opened.enter_context(open_site(stack, plan.client, database_of(size), plan.keep)) for size in plan.sizes
        ]
        if stack.given_database is None:
            there = sum(history.size(site.connection) for site in sites)
            history.require_space(stack.folders.data, sum(plan.sizes), there)
        described = machine.describe(sites[0].connection)
        filled = [_fill(site, size, tell) for site, size in zip(sites, plan.sizes, strict=True)]
        places = [_place(site, plan, opened) for site in sites]
        _settle(places, plan)
        rounds = [_round(places, plan, number, tell) for number in range(plan.rounds)]
    sizes = [{**filling, **_result(rounds, n)} for n, filling in enumerate(filled)]
    spent = {"rounds": plan.rounds, "burst_seconds": plan.seconds, "took_seconds": round(time.monotonic() - began, 1)}
    served = {"workers": plan.workers, "threads": plan.threads, "connections": plan.client.connections}
    return {"machine": described, **served, **spent, "within": WITHIN, "sizes": sizes}


def database_of(size: int) -> str:
    """The database that holds so many past sessions."""
    return f"bench_{size}"


def _place(site: Site, plan: Plan, opened: ExitStack) -> Place:
    service = Service(
        site.stack, site.folder, f"growth-{site.database.replace('_', '-')}", plan.workers, plan.threads, DRIVERS,
        database=site.database,
    )  # fmt: skip
    opened.enter_context(serving(service))
    loads = ServiceLoads(site, service).all()
    return Place(site, {name: loads[name] for name in CALLS})


def _fill(site: Site, sessions: int, say: Say) -> dict[str, Any]:
    """Load the past, with its statistics."""
    say(f"{site.database}: loading {sessions:,} past sessions")
    began = time.monotonic()
    history.fill(site.database_url, sessions, datetime.now(UTC), site.zones)
    took = round(time.monotonic() - began, 1)
    size = history.size(site.connection)
    say(f"{site.database}: {sessions:,} sessions in {took:.0f} s, {size / 1e9:.2f} GB")
    return {"sessions": sessions, "load_seconds": took, "bytes": size}


def _settle(places: Sequence[Place], plan: Plan) -> None:
    """Warm up, then let the disk come to rest: what was loaded is not to be written to it within a burst."""
    for place in places if plan.warm_seconds else ():
        for load in place.loads.values():
            place.site.warm(load, plan.warm_seconds)
    stack = places[0].site.stack
    if stack.given_database is None:
        with stack.postgres.connect() as superuser:
            superuser.execute("CHECKPOINT")


def _round(places: Sequence[Place], plan: Plan, number: int, say: Say) -> list[dict[str, Measured]]:
    """One burst of each call on each size; the results by size."""
    measured: list[dict[str, Measured]] = [{} for _ in places]
    for call in alternating(list(CALLS), number):
        for n in alternating(list(range(len(places))), number):
            measured[n][call] = places[n].site.measure(places[n].loads[call], plan.warm_seconds, plan.seconds)
        speeds = ", ".join(f"{one[call].burst.rps:,.0f}" for one in measured)
        say(f"round {number + 1} of {plan.rounds}: {call}: {speeds} a second")
    return measured


def _result(rounds: Sequence[Sequence[Mapping[str, Measured]]], n: int) -> dict[str, Any]:
    """What size number `n` reached, and how that compares to the smallest."""
    ratios = compare([(one[0], one[n]) for one in rounds])
    met = all(abs(ratios[call][figure] - 1) <= WITHIN for call in CALLS for figure in JUDGED)
    return {"results": report.results([one[n] for one in rounds]), "ratios": ratios, "met": met}


FIGURES: dict[str, Callable[[Measured], float]] = {
    "rps": lambda one: one.burst.rps,
    "p50_ms": lambda one: one.burst.p50_ms,
    "p99_ms": lambda one: one.burst.p99_ms,
    "cpu_us": lambda one: sum(one.cpu_us.values()),
}


def compare(rounds: Sequence[tuple[Mapping[str, Measured], ...]]) -> dict[str, dict[str, float]]:
    """By call and figure: the median over the rounds of the second's ratio to the first's."""
    return {
        call: {name: _median_ratio(rounds, call, figure) for name, figure in FIGURES.items()} for call in rounds[0][0]
    }


def _median_ratio(
    rounds: Sequence[tuple[Mapping[str, Measured], ...]], call: str, figure: Callable[[Measured], float]
) -> float:
    return round(median(figure(large[call]) / figure(small[call]) for small, large in rounds), 3)


def show(found: Mapping[str, Any], console: Console) -> None:
    """Print a run for people."""
    smallest = found["sizes"][0]["sessions"]
    table = Table(title=f"bench core --growth: ratios to {smallest:,} past sessions, {found['rounds']} rounds")
    figures = ("a second", "p50 ms", "p99 ms", "CPU µs")
    for heading in ("past sessions", "call", *figures, "ratio: a second", "p50", "p99", "CPU"):
        table.add_column(heading, justify="left" if heading == "call" else "right")
    for cells in _rows(found["sizes"]):
        table.add_row(*cells)
    console.print(table)
    for size in found["sizes"]:
        loaded = f"{size['sessions']:,} sessions: loaded in {size['load_seconds']:.0f} s, {size['bytes'] / 1e9:.2f} GB"
        console.print(f"{loaded}; a second and p50 within {found['within']:.0%}: {_yes(size['met'])}")


def _rows(sizes: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for size in sizes:
        for call in CALLS:
            figures, ratios = size["results"][call], size["ratios"][call]
            measured = [f"{figures['rps']:,.0f}", f"{figures['p50_ms']:.1f}", f"{figures['p99_ms']:.1f}"]
            measured.append(f"{figures['cpu_us']:,.0f}")
            yield [f"{size['sessions']:,}", call, *measured, *(f"{ratios[figure]:.2f}" for figure in FIGURES)]


def _yes(met: bool) -> str:
    return "met" if met else "missed"

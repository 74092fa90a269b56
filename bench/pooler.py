"""`./iparking bench pooler`: what a PgBouncer before PostgreSQL costs a start and a stop, in alternating rounds."""

import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from app.stack import Stack
from app.stack.pooler import PgBouncer
from app.stack.ports import choose_free
from bench import cpu, machine, report
from bench.load import Client
from bench.loads import ServiceLoads
from bench.servers import Service
from bench.site import DRIVERS, Load, Measured, Site, open_site, serving

ROUNDS = 7
SECONDS = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rounds: int = ROUNDS
    seconds: int = SECONDS
    warm_seconds: int = 1
    workers: int = 2
    threads: int = 8
    client: Client = field(default_factory=Client)


class PooledService(Service):
    """The full service, whose connections go through a PgBouncer."""

    pooler: PgBouncer

    def _environment(self) -> dict[str, str]:
        own = super()._environment()
        url = self.pooler.url(own["IPARKING_DATABASE_URL"])
        pooled = {"IPARKING_DATABASE_POOLER": "transaction", "IPARKING_DATABASE_PULSE_URL": self.pooler.pulse_url}
        return own | {"IPARKING_DATABASE_URL": url} | pooled


def run(json: bool = False, rounds: int = ROUNDS, seconds: int = SECONDS) -> int:
    """Measure on the private servers and print the figures; the exit code. Raises StackError, BenchError."""
    with Stack() as stack:
        found = measure(stack, Plan(rounds, seconds))
    if json:
        sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    else:
        show(found, Console())
    return 0


def measure(stack: Stack, plan: Plan) -> dict[str, Any]:
    """Medians of all loads, and of the ratios of the pooled ones to their direct twins."""
    with open_site(stack, plan.client) as site, ExitStack() as running:
        pooler = running.enter_context(_pooler(site))
        loads = _loads(site, plan, pooler, running)
        described = machine.describe(site.connection)
        rounds = [_round(site, plan, loads, pooler, number) for number in range(plan.rounds)]
    ratios = {name: report.paired(rounds, f"pooled_{name}", name) for name in ("start", "stop")}
    return {
        "machine": described,
        "rounds": len(rounds),
        "results": report.results(rounds),
        "ratios": {name: round(median(values), 3) for name, values in ratios.items()},
        "ratio_rounds": ratios,
    }


def _pooler(site: Site) -> PgBouncer:
    user = site.stack.folders.user
    return PgBouncer(site.stack.folders.data / "pooler", choose_free(), site.stack.service_url(site.database), user)


def _loads(site: Site, plan: Plan, pooler: PgBouncer, running: ExitStack) -> dict[str, Load]:
    """Starts and stops by name, of a service with its own connections and (`pooled_…`) of one without."""
    loads: dict[str, Load] = {}
    for prefix, kind in (("", Service), ("pooled_", PooledService)):
        service = kind(site.stack, site.folder, f"{prefix}service", plan.workers, plan.threads, DRIVERS)
        if isinstance(service, PooledService):
            service.pooler = pooler
        running.enter_context(serving(service))
        made = ServiceLoads(site, service).all()
        loads |= {f"{prefix}{name}": made[name] for name in ("start", "stop")}
    return loads


def _round(site: Site, plan: Plan, loads: dict[str, Load], pooler: PgBouncer, number: int) -> dict[str, Measured]:
    names = list(loads) if number % 2 == 0 else list(loads)[::-1]
    measured = {name: _measure(site, plan, loads[name], pooler) for name in names}
    for name in names:
        print(f"round {number + 1} of {plan.rounds}: {name}: {measured[name].burst.rps:,.0f}", file=sys.stderr)
    return {name: measured[name] for name in loads}


def _measure(site: Site, plan: Plan, load: Load, pooler: PgBouncer) -> Measured:
    """One burst after a warm-up, with PgBouncer's own CPU time beside the others'."""
    assert pooler.process is not None
    if plan.warm_seconds:
        site.warm(load, plan.warm_seconds)
    pid = pooler.process.pid
    meter = cpu.Meter({"pgbouncer": lambda: cpu.seconds_used([pid])})
    measured = site.measure(load, 0, plan.seconds)
    used = meter.used()["pgbouncer"] / measured.burst.requests * 1e6
    return Measured(measured.burst, measured.cpu_us | {"pgbouncer": used})


def show(found: dict[str, Any], console: Console) -> None:
    """Print a run for people."""
    table = Table(title=f"bench pooler: {found['rounds']} rounds")
    for heading in ("", "a second", "p50 ms", "p99 ms", "CPU µs", "of these"):
        table.add_column(heading, justify="left" if heading in ("", "of these") else "right")
    for name, figures in found["results"].items():
        parts = ", ".join(f"{part} {value:.0f}" for part, value in figures["cpu_us_by"].items())
        cells = [f"{figures['rps']:,.0f}", f"{figures['p50_ms']:.1f}", f"{figures['p99_ms']:.1f}"]
        table.add_row(name, *cells, f"{figures['cpu_us']:.0f}", parts)
    console.print(table)
    for name, ratio in found["ratios"].items():
        console.print(f"{name} through PgBouncer: {ratio:.2f} of the direct one")

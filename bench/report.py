"""From rounds to figures: medians of what was measured, medians of ratios taken within a round, and a table of them."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.site import Measured

Round = Mapping[str, Measured]
# What is divided by what, and what the ratio should reach.
PAIRS = {"start": ("start", "ceiling"), "stop": ("stop", "ceiling"), "map": ("map", "bare_json")}
TARGETS = {"start": 0.5, "map": 0.4}
# A ceiling view below this share of pgbench was made slow.
LEAST_OF_PGBENCH = 0.15


def results(rounds: Sequence[Round]) -> dict[str, dict[str, Any]]:
    """By load: medians over the rounds of answers a second, latencies and CPU microseconds a request."""
    return {name: _result([measured[name] for measured in rounds]) for name in rounds[0]}


def _result(bursts: Sequence[Measured]) -> dict[str, Any]:
    parts = {name: median(one.cpu_us[name] for one in bursts) for name in bursts[0].cpu_us}
    return {
        "rps": round(median(one.burst.rps for one in bursts), 1),
        "p50_ms": round(median(one.burst.p50_ms for one in bursts), 2),
        "p95_ms": round(median(one.burst.p95_ms for one in bursts), 2),
        "p99_ms": round(median(one.burst.p99_ms for one in bursts), 2),
        "cpu_us": round(median(sum(one.cpu_us.values()) for one in bursts), 1),
        "cpu_us_by": {name: round(value, 1) for name, value in parts.items()},
    }


def paired(rounds: Sequence[Round], name: str, against: str) -> list[float]:
    """The ratio of answers a second, one a round."""
    return [round(one[name].burst.rps / one[against].burst.rps, 4) for one in rounds]


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """All figures of a run: `results`, `ratios` (medians of the paired ones), `ratio_rounds` and `targets`."""
    ratios = {name: paired(rounds, *pair) for name, pair in PAIRS.items()}
    medians = {name: round(median(values), 3) for name, values in ratios.items()}
    return {
        "rounds": len(rounds),
        "results": results(rounds),
        "ratios": medians,
        "ratio_rounds": ratios,
        "ceiling_to_pgbench": round(median(paired(rounds, "ceiling", "pgbench")), 3),
        "targets": {name: {"at_least": least, "met": medians[name] >= least} for name, least in TARGETS.items()},
    }


def _verdict(report: Mapping[str, Any], name: str) -> str:
    target = report["targets"].get(name)
    return "" if target is None else f" (target {target['at_least']:.2f}: {'met' if target['met'] else 'missed'})"


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print a run for people."""
    machine = report["machine"]
    size = f"{report['workers']} workers of {report['threads']} threads, {report['connections']} connections"
    table = Table(title=f"bench core: {report['rounds']} rounds, {size}")
    for heading in ("", "a second", "p50 ms", "p95 ms", "p99 ms", "CPU µs", "of these"):
        table.add_column(heading, justify="left" if heading in ("", "of these") else "right")
    for name, figures in report["results"].items():
        parts = ", ".join(f"{part} {value:.0f}" for part, value in figures["cpu_us_by"].items())
        cells = [f"{figures['rps']:,.0f}", *(f"{figures[key]:.1f}" for key in ("p50_ms", "p95_ms", "p99_ms"))]
        table.add_row(name, *cells, f"{figures['cpu_us']:.0f}", parts)
    console.print(table)
    for name, (_, against) in PAIRS.items():
        console.print(f"{name}: {report['ratios'][name]:.2f} of {against.replace('_', ' ')}{_verdict(report, name)}")
    console.print(f"ceiling view: {report['ceiling_to_pgbench']:.2f} of pgbench")
    console.print(f"{machine['cores']} cores of {machine['cpu']}, PostgreSQL {machine['postgresql']['server_version']}")

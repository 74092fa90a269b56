"""From rounds to figures: medians of what was measured, medians of ratios taken within a round, and a table of them."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.openloop import Timings
from bench.site import Measured

Round = Mapping[str, Measured]
# What is divided by what.
PAIRS = {
    "start": ("start", "ceiling"),
    "stop": ("stop", "ceiling"),
    "check": ("check", "bare_read"),
    "map": ("map", "bare_bytes"),
    "hot_zone": ("hot_zone", "hot_ceiling"),
}
OPEN_LOOP = "open_loop"
OPEN_RATIO = "open_loop_p99"
AT_LEAST = {"start": 1.0, "stop": 0.9, "check": 0.8, "map": 0.6, "hot_zone": 1.15}
AT_MOST = {OPEN_RATIO: 1.5}
# A ceiling view below this share of pgbench was made slow.
LEAST_OF_PGBENCH = 0.15


class Open:
    """The open loop's bursts of `start` and `ceiling`, in pairs of one number of round, at one rate a second."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._timings: dict[str, list[Timings]] = {"start": [], "ceiling": []}

    def add(self, name: str, timings: Timings) -> None:
        self._timings[name].append(timings)

    def ratios(self) -> list[float]:
        """The service's 99th percentile to the ceiling's, one a pair."""
        pairs = zip(self._timings["start"], self._timings["ceiling"], strict=True)
        return [round(start.latency_ms(99) / ceiling.latency_ms(99), 4) for start, ceiling in pairs]

    def as_dict(self) -> dict[str, Any]:
        """Medians over the bursts: latencies from when a request was due, and how late the client was by itself."""
        figures = {name: self._figures(timings) for name, timings in self._timings.items()}
        return {"rate": round(self.rate, 1), **figures, "ratio": round(median(self.ratios()), 3)}

    def _figures(self, bursts: Sequence[Timings]) -> dict[str, Any]:
        return {
            "p50_ms": round(median(one.latency_ms(50) for one in bursts), 2),
            "p99_ms": round(median(one.latency_ms(99) for one in bursts), 2),
            "client_lag_p99_ms": round(median(one.lag_ms(99) for one in bursts), 2),
            "requests": sum(len(one.latencies) for one in bursts),
        }


def results(rounds: Sequence[Round]) -> dict[str, dict[str, Any]]:
    """By load: medians over the rounds of answers a second, latencies and CPU microseconds a request."""
    return {name: _result([measured[name] for measured in rounds]) for name in (rounds[0] if rounds else ())}


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


def summary(rounds: Sequence[Round], opened: Open | None = None) -> dict[str, Any]:
    """All figures of a run: `results`, `ratios` (their medians), `ratio_rounds`, `targets`, `open_loop`."""
    measured = set(rounds[0] if rounds else ())
    ratios = {name: paired(rounds, *pair) for name, pair in PAIRS.items() if measured.issuperset(pair)}
    if opened is not None:
        ratios[OPEN_RATIO] = opened.ratios()
    medians = {name: round(median(values), 3) for name, values in ratios.items()}
    found: dict[str, Any] = {
        "rounds": len(rounds),
        "results": results(rounds),
        "ratios": medians,
        "ratio_rounds": ratios,
        "targets": targets(medians),
    }
    if opened is not None:
        found[OPEN_LOOP] = opened.as_dict() | {"target": found["targets"][OPEN_RATIO]}
    if measured.issuperset(("ceiling", "pgbench")):
        found["ceiling_to_pgbench"] = round(median(paired(rounds, "ceiling", "pgbench")), 3)
    return found


def targets(ratios: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """What each ratio that was measured should reach, and whether it does."""
    least = {
        name: {"at_least": bound, "met": ratios[name] >= bound} for name, bound in AT_LEAST.items() if name in ratios
    }
    most = {name: {"at_most": bound, "met": ratios[name] <= bound} for name, bound in AT_MOST.items() if name in ratios}
    return least | most


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print a run for people."""
    machine, threads = report["machine"], report["threads"]
    served = f"threads: {threads['service']}, of the references {threads['ceiling']}"
    if report["results"]:
        title = f"bench core: {report['rounds']} rounds, {report['workers']} workers ({served})"
        console.print(_table(report["results"], f"{title}, {report['connections']} connections"))
    if OPEN_LOOP in report:
        console.print(_open_line(report[OPEN_LOOP]))
    for name, value in report["ratios"].items():
        console.print(f"{name}: {value:.2f} of {_against(name)}, {_verdict(report['targets'][name])}")
    console.print(f"one map answer: {report['map_bytes']:,} bytes")
    if "ceiling_to_pgbench" in report:
        console.print(f"ceiling view: {report['ceiling_to_pgbench']:.2f} of pgbench")
    console.print(f"{machine['cores']} cores of {machine['cpu']}, PostgreSQL {machine['postgresql']['server_version']}")


def _table(results: Mapping[str, Any], title: str) -> Table:
    table = Table(title=title)
    for heading in ("", "a second", "p50 ms", "p95 ms", "p99 ms", "CPU µs", "of these"):
        table.add_column(heading, justify="left" if heading in ("", "of these") else "right")
    for name, figures in results.items():
        parts = ", ".join(f"{part} {value:.0f}" for part, value in figures["cpu_us_by"].items())
        cells = [f"{figures['rps']:,.0f}", *(f"{figures[key]:.1f}" for key in ("p50_ms", "p95_ms", "p99_ms"))]
        table.add_row(name, *cells, f"{figures['cpu_us']:.0f}", parts)
    return table


def _open_line(opened: Mapping[str, Any]) -> str:
    parts = [
        f"{name} p50 {opened[name]['p50_ms']:.1f} ms, p99 {opened[name]['p99_ms']:.1f} ms"
        for name in ("start", "ceiling")
    ]
    return f"open loop, {opened['rate']:,.0f} a second: {'; '.join(parts)}"


def _against(name: str) -> str:
    return "the ceiling's p99" if name == OPEN_RATIO else PAIRS[name][1].replace("_", " ")


def _verdict(target: Mapping[str, Any]) -> str:
    bound = f"at least {target['at_least']:.2f}" if "at_least" in target else f"at most {target['at_most']:.2f}"
    return f"target {bound}: {'met' if target['met'] else 'missed'}"

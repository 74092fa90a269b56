"""Figures of a run: latencies as percentiles, the live line, the tables that people read. All of it is synthetic
traffic."""

import sys
import time
from array import array
from dataclasses import dataclass, field
from typing import Any, TextIO

import numpy as np
from rich.console import Console
from rich.table import Table

MAX_LAG_P99_MS = 10.0
SYNTHETIC = "synthetic traffic"


def milliseconds(*seconds: "array[float]") -> dict[str, float]:
    """p50, p95, p99 and max of all these times together, in milliseconds (zeros where nothing was measured)."""
    if not any(map(len, seconds)):
        return {"p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}
    together = np.concatenate([np.asarray(part) for part in seconds])
    values = np.percentile(together, (50, 95, 99, 100)) * 1000
    return {name: round(float(value), 2) for name, value in zip(("p50", "p95", "p99", "max"), values, strict=True)}


@dataclass(slots=True)
class Latencies:
    """The three times of every request in seconds, kept apart.

    due ---- lag ----> sent ---- service ----> answered      lag: the client's own lateness, after the vehicle was ready
    due -------------- response -------------> answered      response: what the driver waits, also for a queue or his
    own last answer
    """

    lag: "array[float]" = field(default_factory=lambda: array("d"))
    service: "array[float]" = field(default_factory=lambda: array("d"))
    response: "array[float]" = field(default_factory=lambda: array("d"))

    def add(self, due: float, ready: float, sent: float, answered: float) -> None:
        self.lag.append(sent - ready)
        self.service.append(answered - sent)
        self.response.append(answered - due)

    @property
    def valid(self) -> bool:
        """Whether the client kept up: it measured itself, not the service, where it sent late."""
        return milliseconds(self.lag)["p99"] <= MAX_LAG_P99_MS

    def as_dict(self) -> dict[str, Any]:
        return {
            "lag_ms": milliseconds(self.lag),
            "service_ms": milliseconds(self.service),
            "response_ms": milliseconds(self.response),
            "latency_valid": self.valid,
        }


class Progress:
    """The live line on standard error: rewritten on a terminal, a new line now and then elsewhere."""

    def __init__(self, out: TextIO = sys.stderr, quiet: bool = False) -> None:
        self._out = out
        self._live = out.isatty()
        self._every = 0.5 if self._live else 15.0
        self._quiet = quiet
        self._next = time.monotonic() + self._every
        self._written = False

    def show(self, line: str, last: bool = False) -> None:
        """Show the line if it is time to (`last`: in any case, and end it)."""
        now = time.monotonic()
        if self._quiet or not (last or now >= self._next):
            return
        self._next = now + self._every
        self._out.write(f"\r\x1b[2K{line}" if self._live else f"{line}\n")
        if last and self._live:
            self._out.write("\n")
        self._out.flush()


def replay_line(business: str, done: int, under_way: int, refused: int, failed: int, latencies: Latencies) -> str:
    """The live line's text. Percentiles are of the last few thousand requests."""
    lag, response = (milliseconds(times[-4000:]) for times in (latencies.lag, latencies.response))
    return (
        f"{business}  {done:,} answered  {under_way} under way  {refused:,} refused  {failed} failed  "
        f"response p50 {response['p50']:.1f} p99 {response['p99']:.1f} ms  lag p99 {lag['p99']:.1f} ms"
    )


def print_replay(figures: dict[str, Any], out: TextIO = sys.stdout) -> None:
    """A replay's figures as a small table."""
    table = Table(title=f"replay ({SYNTHETIC})", title_justify="left")
    table.add_column("milliseconds")
    for name in ("p50", "p95", "p99", "max"):
        table.add_column(name, justify="right")
    for name in ("lag", "service", "response"):
        times = figures[f"{name}_ms"]
        table.add_row(name, *(f"{times[key]:.1f}" for key in ("p50", "p95", "p99", "max")))
    console = Console(file=out, highlight=False, soft_wrap=True)
    console.print(table)
    console.print(
        f"{figures['requests']:,} requests in {figures['seconds']:.1f} s ({figures['requests_per_second']:.0f}/s), "
        f"{figures['retries']} retries, {figures['unanswered']} unanswered, {figures['skipped']} skipped, "
        f"{figures['client_cpu_us']:.0f} µs of client CPU a request"
    )
    if figures["partial"]:
        console.print("[yellow]broken off: this is a partial run[/yellow]")
    if not figures["latency_valid"]:
        console.print(f"[yellow]{invalid_latency(figures)}[/yellow]")


def invalid_latency(figures: dict[str, Any]) -> str:
    """Why the latencies of a run say nothing."""
    return (
        f"latency figures are invalid: the client itself was late (lag p99 {figures['lag_ms']['p99']:.1f} ms, "
        f"at most {MAX_LAG_P99_MS:.0f} ms is allowed)"
    )


def print_demo(found: dict[str, Any], out: TextIO = sys.stdout) -> None:
    """A demo's result: the table by district, the times, the verdict. `peak` is the highest occupancy, cars divided by
    bays."""
    console = Console(file=out, highlight=False, soft_wrap=True)
    console.print(_districts(found))
    console.print(_money(found))
    refused = ", ".join(f"{count} {code}" for code, count in found["refusals_by_code"].items()) or "none"
    lag, response = found["lag_ms"], found["response_ms"]
    console.print(
        f"{found['requests']:,} requests at {found['speed']:g}x ({found['requests_per_second']:.0f}/s), "
        f"{found['errors']} errors, {found['refusals']:,} refusals ({refused})\n"
        f"response p50 {response['p50']:.1f} p95 {response['p95']:.1f} p99 {response['p99']:.1f} ms, "
        f"lag p50 {lag['p50']:.1f} p99 {lag['p99']:.1f} ms"
    )
    if not found["latency_valid"]:
        console.print(invalid_latency(found), style="yellow")
    if found["berlin"]:
        console.print(
            "Berlin, {date} (recorded; invented plates): {sessions} sessions, {requests} requests, "
            "{divergences} divergences".format(**found["berlin"])
        )
    for detail in found["divergence_details"]:
        console.print(detail, style="red", markup=False)
    console.print(f"{found['divergences']} divergences", style="bold")
    if found["url"]:
        console.print(f"goes on serving at 1x: {found['url']}")


def _districts(found: dict[str, Any]) -> Table:
    table = Table(title=f"Hanoi, {found['date']}, 07:00 to 10:00 ({SYNTHETIC})", title_justify="left")
    table.add_column("district", no_wrap=True)
    for name in ("sessions", "peak", "revenue VND", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found["districts"]:
        times = (f"{row[name]:.1f}" for name in ("p50_ms", "p95_ms", "p99_ms"))
        table.add_row(
            row["name"], f"{row['sessions']:,}", f"{row['peak_occupancy']:.3f}", f"{row['revenue']:,}", *times
        )
    table.add_section()
    table.add_row("all", f"{found['sessions']:,}", "", f"{found['revenue']:,}", "", "", "")
    return table


def _money(found: dict[str, Any]) -> str:
    """Whether each district's ledger and receipts come to the revenue in the table, which is that of the auditor's own
    bills."""
    differ = [row["name"] for row in found["districts"] if not row["revenue"] == row["ledger"] == row["receipts"]]
    sums = ", ".join(f"{name} {found[name] or 0:,} VND" for name in ("ledger", "receipts"))
    verdict = f"other than the bills in {', '.join(differ)}" if differ else "as the bills, in every district"
    return f"{sums}: {verdict}"

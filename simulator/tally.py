"""What a trace, a conversion and an audit hold, counted and said in words."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from simulator.convert import Report
from simulator.trace import Event, Header

SHOW_EVERY = 2_000
WIDTH = 120  # of a table that goes into a file or a pipe


class Tally:
    """Counts the events that pass through `watch`; starts also by vehicle class and by district."""

    def __init__(self, districts: Mapping[str, str]) -> None:
        """`districts` gives the district of each zone code."""
        self.districts = districts
        self.actions: Counter[str] = Counter()
        self.classes: Counter[str] = Counter()
        self.zones: Counter[str] = Counter()

    def watch(self, events: Iterable[Event], seconds: float) -> Iterator[Event]:
        """The same events; a bar on standard error shows how much of the window has passed (on a terminal only)."""
        console = Console(stderr=True)
        columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("drawing", total=seconds)
            for number, event in enumerate(events):
                if number % SHOW_EVERY == 0:
                    progress.update(task, completed=event.t)
                self._count(event)
                yield event

    def _count(self, event: Event) -> None:
        self.actions[event.action] += 1
        if event.action == "start":
            self.classes[event.vehicle_class] += 1
            self.zones[event.zone] += 1

    def by_district(self) -> dict[str, int]:
        """Starts by district code."""
        found: Counter[str] = Counter()
        for zone, count in self.zones.items():
            found[self.districts[zone]] += count
        return dict(sorted(found.items()))

    def result(self, output: str, head: Header) -> dict[str, Any]:
        return {
            "synthetic": True,
            "trace": output,
            "start": head.start,
            "seconds": head.seconds,
            "seed": head.seed,
            "events": self.actions.total(),
            "sessions": self.actions["start"],
            "actions": dict(sorted(self.actions.items())),
            "classes": dict(sorted(self.classes.items())),
            "districts": self.by_district(),
        }

    def text(self, output: str) -> str:
        actions = ", ".join(f"{count:,} {name}" for name, count in sorted(self.actions.items()))
        districts = ", ".join(f"{code} {count:,}" for code, count in self.by_district().items())
        return (
            f"{self.actions.total():,} events (synthetic): {actions}\n"
            f"starts by district: {districts}\nwritten to {output}"
        )


def conversion_text(done: Report, output: str) -> str:
    """A conversion's report in words."""
    gone = done.dropped
    silences = "".join(
        f"\n  outage from {one.begin} to {one.end} ({one.hours:g} h): {one.stays} stays" for one in done.outages
    )
    return (
        f"{done.readings:,} readings of {done.spaces} spaces, {done.paired:,} stays paired from them\n"
        f"dropped readings: {gone.repeats:,} repeats, {gone.departures_without_arrival} departures without an arrival, "
        f"{gone.still_parked} arrivals without a departure, {gone.other_events} events of other types\n"
        f"dropped stays: {gone.flicker:,} flicker, {gone.outage} through an outage, {gone.before_window:,} before the "
        f"window, {gone.after_window:,} after it{silences}\n"
        f"{done.stays:,} stays taken ({done.left_to_expire} left to expire at the longest stay, {done.overstayed} held "
        f"past it, {done.running_at_end} running at the end); of all believed ones {done.over_24_hours} over 24 h\n"
        f"{done.events:,} events on {len(done.zones)} zones, written to {output}"
    )


def print_audit(found: Mapping[str, Any]) -> None:
    """An audit's figures by district, what it found wrong, and the verdict on the last line."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = WIDTH
    table = Table(title="by district (synthetic)", title_justify="left")
    for name in ("code", "name", "sessions", "peak", "revenue, VND", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(name, justify="left" if name in ("code", "name") else "right")
    for row in found["districts"]:
        times = (f"{row[name]:.1f}" for name in ("p50_ms", "p95_ms", "p99_ms"))
        table.add_row(
            row["code"],
            row["name"],
            f"{row['sessions']:,}",
            f"{row['peak_occupancy']:.2f}",
            f"{row['revenue']:,}",
            *times,
        )
    console.print(table)
    refusals = ", ".join(f"{count} {code}" for code, count in found["refusals_by_code"].items())
    console.print(f"{found['requests']:,} requests, {found['errors']} errors, refusals: {refusals or 'none'}")
    compared = ", ".join(f"{count:,} {name}" for name, count in found["compared"].items())
    console.print(f"compared: {compared or 'nothing'}")
    if not found["latency_valid"]:
        console.print(f"latency figures are invalid: lag p99 {found['lag_ms']['p99']:.1f} ms")
    if found["partial"]:
        console.print("the run was broken off: it is a partial one")
    for text in (*found["notes"], *found["divergence_details"]):
        console.print(escape(text))
    console.print(f"{found['divergences']} divergences")

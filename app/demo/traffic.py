"""The traces of the demo: a morning that is invented, a day that was recorded in Berlin."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from itertools import takewhile
from pathlib import Path
from zoneinfo import ZoneInfo

import click

from app.stack.machine import PROJECT
from simulator import convert, demand, readings, trace
from simulator.city import City
from simulator.options import BERLIN_TIME, berlin_file
from simulator.parameters import DEFAULT_FILE, load
from simulator.trace import Event, Header, TraceReader

HANOI = ZoneInfo("Asia/Ho_Chi_Minh")
OPENS, SECONDS = 7, 3 * 3600.0
BERLIN_DAY = date(2018, 1, 25)
BERLIN_ZONES = 4
BUSY_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Traffic:
    """A trace on disk. `rate` is the events a business second of its busiest five minutes."""

    path: Path
    start: datetime
    events: int
    rate: float


def city() -> City:
    """The city that is shipped, which the demo's databases hold."""
    return City.from_geojson(PROJECT / "zones" / "data" / "zones.geojson")


# Of the default demand: on 2 cores the whole city at full demand made the client itself late (lag p99 14 ms).
SCALE = 0.8


def morning(path: Path, day: date, seed: int) -> Traffic:
    """Write the trace of a morning, 07:00 to 10:00."""
    start = datetime(day.year, day.month, day.day, OPENS, tzinfo=HANOI)
    return written(path, *demand.make(city(), load(DEFAULT_FILE), start, SECONDS, seed=seed, scale=SCALE))


def berlin_record() -> Path | None:
    """The recorded events of Berlin, where this machine has them."""
    try:
        return Path(berlin_file("berlin"))
    except click.UsageError:
        return None


def berlin_day(record: Path, path: Path) -> Traffic:
    """Write the trace of the Berlin day, its spaces spread over kerb zones of Hoàn Kiếm."""
    kerbs = [zone for zone in city().zones if zone.code.startswith("HK-") and not zone.strict][:BERLIN_ZONES]
    found = readings.read(str(record))
    places = [convert.Place(zone.code, zone.max_stay_minutes, zone.strict) for zone in kerbs]
    where = convert.spread({reading.space for reading in found.readings}, places)
    chosen = convert.Choice(day=BERLIN_DAY, local=BERLIN_TIME)
    header, events, _ = convert.convert(found, where, chosen, f"berlin {record.name}")
    return written(path, header, events)


def beginning(whole: Traffic, path: Path, seconds: float) -> Traffic:
    """Write the first seconds of a trace."""
    with TraceReader(whole.path) as reader:
        return written(path, reader.header, takewhile(lambda event: event.t < seconds, reader))


def written(path: Path, header: Header, events: Iterable[Event]) -> Traffic:
    """Write a trace; how many events it has, and in its busiest five minutes."""
    busy: dict[float, int] = {}

    def counted() -> Iterator[Event]:
        for event in events:
            span = event.t // BUSY_SECONDS
            busy[span] = busy.get(span, 0) + 1
            yield event

    number = trace.write(path, header, counted())
    return Traffic(path, header.start_at, number, max(busy.values(), default=1) / BUSY_SECONDS)

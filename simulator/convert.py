"""Recorded traffic made into a trace: readings are paired into stays, cleaned, and put onto chosen zones.

What is dropped is counted, each under its own name. Every stay gets a vehicle and an invented plate of its own:
sensors know no plates, so nobody who returned is recognised.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import pairwise
from typing import NamedTuple

import msgspec

from simulator.arrivals import HANOI
from simulator.plates import plates
from simulator.readings import Reading, Readings
from simulator.trace import Action, Event, Header, TrafficError, VehicleClass, header

FLICKER_MINUTES = 6.0
OUTAGE_HOURS = 48.0
KERB_MAX_STAY_MINUTES = 720
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


class Stay(NamedTuple):
    """A vehicle stood on a space from `arrival` to `departure` (ms since 1970)."""

    arrival: int
    departure: int
    space: str

    @property
    def length(self) -> int:
        return self.departure - self.arrival


class Outage(NamedTuple):
    """No space was heard of between two readings (ms since 1970)."""

    begin: int
    end: int

    def inside(self, stay: Stay) -> bool:
        """Whether the stay was under way through all of it, so that its end cannot be known."""
        return stay.arrival <= self.begin and stay.departure >= self.end


class Place(NamedTuple):
    """What a trace must know of a zone: the longest stay in minutes, and whether it holds the place until a stop."""

    code: str
    max_stay_minutes: int = KERB_MAX_STAY_MINUTES
    strict: bool = False


class Window(NamedTuple):
    """The part of the record that is taken (ms since 1970), and the business instant that the trace begins at."""

    begin: int
    end: int
    start: datetime

    @property
    def seconds(self) -> float:
        return (self.end - self.begin) / 1000


class OutageReport(msgspec.Struct, frozen=True, rename={"begin": "from", "end": "to"}):
    begin: str
    end: str
    hours: float
    stays: int


class Dropped(msgspec.Struct):
    """Readings (the first four) and stays (the rest) that are not in the trace, by the reason."""

    repeats: int = 0
    other_events: int = 0
    departures_without_arrival: int = 0
    still_parked: int = 0
    flicker: int = 0
    outage: int = 0
    before_window: int = 0
    after_window: int = 0


class Report(msgspec.Struct):
    """What a conversion found and did. `paired` = flicker + outage + before and after the window + `stays`."""

    readings: int = 0
    spaces: int = 0
    paired: int = 0
    over_24_hours: int = 0
    dropped: Dropped = msgspec.field(default_factory=Dropped)
    outages: list[OutageReport] = msgspec.field(default_factory=list)
    stays: int = 0
    left_to_expire: int = 0
    overstayed: int = 0
    running_at_end: int = 0
    events: int = 0
    zones: dict[str, int] = msgspec.field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """What of a record becomes a trace, and how.

    Flicker is a stay shorter than `flicker_minutes`, an outage a time without any reading longer than `outage_hours`.
    The window is `days` days of the time zone `local` from `day` (without it: the whole record), from `opens` on the
    first to `closes` on the last (00:00 is its end). It keeps the time on the wall: 08:00 there is 08:00 in Hanoi, on
    the same date or the date `on`.
    """

    day: date | None = None
    days: int = 1
    opens: time = time(0)
    closes: time = time(0)
    on: date | None = None
    local: tzinfo = HANOI
    flicker_minutes: float = FLICKER_MINUTES
    outage_hours: float = OUTAGE_HOURS
    vehicle_class: VehicleClass = "car"
    seed: int = 1


def convert(
    found: Readings, where: Mapping[str, Place], chosen: Choice, origin: str
) -> tuple[Header, list[Event], Report]:
    """The trace of a record, its spaces put onto zones by `where`, and the report of what was found and dropped.

    Raises TrafficError for a record without readings, an empty window, or a space without a zone.
    """
    report = Report()
    stays = clean(found, chosen, report)
    taken = window(found.readings, chosen)
    for stay in stays:
        if stay.space not in where:
            raise TrafficError(f"space {stay.space} has no zone")
    made = events(stays, where, taken, chosen, report)
    return header(seed=chosen.seed, origin=origin, start=taken.start, seconds=taken.seconds), made, report


def pair(readings: Sequence[Reading], dropped: Dropped) -> list[Stay]:
    """The stays of readings in order of time, by arrival. A reading that repeats its space's last state is dropped."""
    arrived: dict[str, int] = {}
    state: dict[str, bool] = {}
    stays = []
    for ms, space, occupied in readings:
        if state.get(space) == occupied:
            dropped.repeats += 1
            continue
        state[space] = occupied
        if occupied:
            arrived[space] = ms
        elif space in arrived:
            stays.append(Stay(arrived.pop(space), ms, space))
        else:
            dropped.departures_without_arrival += 1
    dropped.still_parked = len(arrived)
    return sorted(stays)


def outages(readings: Sequence[Reading], hours: float) -> list[Outage]:
    """The times in which no space at all was heard of for longer than `hours`."""
    return [Outage(a.ms, b.ms) for a, b in pairwise(readings) if b.ms - a.ms > hours * HOUR_MS]


def clean(found: Readings, rules: Choice, report: Report) -> list[Stay]:
    """The stays that are believed: no flicker, none under way through an outage. Fills the report."""
    report.readings = len(found.readings) + found.repeated + found.other
    report.spaces = len({reading.space for reading in found.readings})
    report.dropped.repeats, report.dropped.other_events = found.repeated, found.other
    stays = pair(found.readings, report.dropped)
    report.paired = len(stays)
    steady = [stay for stay in stays if stay.length >= rules.flicker_minutes * MINUTE_MS]
    report.dropped.flicker = len(stays) - len(steady)
    silences = outages(found.readings, rules.outage_hours)
    report.outages = [_outage_report(silence, steady) for silence in silences]
    believed = [stay for stay in steady if not any(silence.inside(stay) for silence in silences)]
    report.dropped.outage = len(steady) - len(believed)
    report.over_24_hours = sum(stay.length > 24 * HOUR_MS for stay in believed)
    return believed


def window(readings: Sequence[Reading], chosen: Choice) -> Window:
    """The window of the record that is chosen. Raises TrafficError where it, or the record, is empty."""
    if not readings:
        raise TrafficError("there is no reading")
    first, last = (_local(readings[at].ms, chosen.local).date() for at in (0, -1))
    begins = chosen.day or first
    ends = begins + timedelta(days=chosen.days - 1) if chosen.day else last
    begin = datetime.combine(begins, chosen.opens, chosen.local)
    closing_day = ends + timedelta(days=1) if chosen.closes == time(0) else ends
    end = datetime.combine(closing_day, chosen.closes, chosen.local)
    if end <= begin:
        raise TrafficError("the window ends before it begins")
    start = datetime.combine(chosen.on or begins, chosen.opens, HANOI)
    return Window(_since_1970(begin), _since_1970(end), start)


def spread(spaces: Iterable[str], places: Sequence[Place]) -> dict[str, Place]:
    """Each space's zone: in order of their names, evenly, the first space to the first zone, and round."""
    return {space: places[at % len(places)] for at, space in enumerate(sorted(set(spaces)))}


def events(
    stays: Sequence[Stay],
    where: Mapping[str, Place],
    taken: Window,
    chosen: Choice,
    report: Report,
) -> list[Event]:
    """The events of the stays that begin in the window, in order of time. Fills the report.

    A stay starts without minutes and is stopped when the vehicle left. One longer than its zone's longest stay is kept
    as it was: nobody stops it in an advisory zone, where the service ends it at the longest stay (left_to_expire); in a
    strict zone the vehicle holds its place until it leaves, and is stopped then, late (overstayed). What happens
    behind the window's end is left out, so such stays still run when the trace ends (running_at_end).
    """
    inside = [stay for stay in stays if taken.begin <= stay.arrival < taken.end]
    report.dropped.before_window = sum(stay.arrival < taken.begin for stay in stays)
    report.dropped.after_window = sum(stay.arrival >= taken.end for stay in stays)
    plate = plates(chosen.vehicle_class, chosen.seed)
    made: list[Event] = []
    for number, stay in enumerate(inside, 1):
        place = where[stay.space]
        vehicle = (f"v{number:06d}", plate(), chosen.vehicle_class, place.code)
        made += (_event(ms, taken, vehicle, action) for ms, action in _steps(stay, place, taken, report))
    report.stays, report.events = len(inside), len(made)
    report.zones = dict(sorted(Counter(where[stay.space].code for stay in inside).items()))
    return sorted(made, key=lambda event: event.t)


def _steps(stay: Stay, place: Place, taken: Window, report: Report) -> Iterator[tuple[int, Action]]:
    yield stay.arrival, "start"
    over = stay.length >= place.max_stay_minutes * MINUTE_MS
    report.left_to_expire += over and not place.strict
    report.overstayed += over and place.strict
    if over and not place.strict:
        return
    if stay.departure >= taken.end:
        report.running_at_end += 1
        return
    yield stay.departure, "stop"


def _event(ms: int, taken: Window, vehicle: tuple[str, str, VehicleClass, str], action: Action) -> Event:
    return Event((ms - taken.begin) / 1000, *vehicle, action, None)


def _outage_report(silence: Outage, stays: Sequence[Stay]) -> OutageReport:
    begin, end = (_local(ms, UTC).isoformat(timespec="seconds") for ms in silence)
    hours = (silence.end - silence.begin) / HOUR_MS
    return OutageReport(begin, end, round(hours, 1), sum(silence.inside(stay) for stay in stays))


def _local(ms: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(ms / 1000, zone)


def _since_1970(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)

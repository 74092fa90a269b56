"""What planners read: how full zones and districts were, and what was charged there, by time bucket, from sessions.

A report is a grid: every bucket of the span × every place (a zone or a district) and class, also where nothing
happened. Its rows are ordered by bucket, place and class, so a page is a piece of that order, and only its own buckets
are summed.

Occupied minutes are exact (whole microseconds): from each start until the place was given back, and until now where the
vehicle still stands (running, or a strict zone's overstay). A session is charged when it ends; what is given back of it
counts when it is given back.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from itertools import groupby, islice, pairwise
from typing import Any, Generic, LiteralString, NamedTuple, TypeVar

import psycopg
from psycopg import sql

from zones import archive, errors
from zones.partitions import CITY_TIME
from zones.sessions import STOP_LATENESS

BUCKETS = {"15m": timedelta(minutes=15), "1h": timedelta(hours=1), "1d": timedelta(days=1)}
# The longest span of one report.
LONGEST = {"15m": timedelta(days=31), "1h": timedelta(days=31), "1d": timedelta(days=366)}
GROUPS = ("zone", "district")
MICROSECOND = timedelta(microseconds=1)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Question:
    """Which part of the city, which span (half-open), how finely, which rows; what is known is what is known `now`.

    `by` says whether rows are zones or districts, `first` where the page begins (None: at the first row).
    """

    now: datetime
    start: datetime
    end: datetime
    bucket: str
    by: str = "zone"
    zone: str | None = None
    district: str | None = None
    vehicle_class: str | None = None
    first: "Position | None" = None
    limit: int = 1_000


class Cell(NamedTuple):
    """What a row is about besides time: a zone, or (`zone` is None) a whole district. `capacity` is today's."""

    district: str
    zone: str | None
    vehicle_class: str
    capacity: int

    @property
    def place(self) -> str:
        """The code of the zone, or of the district."""
        return self.district if self.zone is None else self.zone


class Position(NamedTuple):
    """Where a page begins: its first row's bucket, place and class."""

    start: datetime
    place: str
    vehicle_class: str


class Bucket(NamedTuple):
    """A span of a report. Until 15 minutes after its end phones may hand in late stops; then it is complete."""

    start: datetime
    end: datetime
    now: datetime

    @property
    def has_begun(self) -> bool:
        """Whether anything can be known of it."""
        return self.start <= self.now

    @property
    def is_complete(self) -> bool:
        """Whether its figures are final."""
        return self.end + STOP_LATENESS <= self.now


class Occupancy(NamedTuple):
    """How full a cell was in a bucket. `peak` is the largest number of vehicles at one instant."""

    bucket: Bucket
    cell: Cell
    occupied_us: int = 0
    peak: int = 0
    arrivals: int = 0
    departures: int = 0

    @property
    def capacity_us(self) -> int:
        """Capacity × time."""
        return self.cell.capacity * ((self.bucket.end - self.bucket.start) // MICROSECOND)

    @property
    def ratio(self) -> float | None:
        """Occupied ÷ capacity, may pass 1; None where there is no capacity or the bucket has not begun."""
        return self.occupied_us / self.capacity_us if self.capacity_us and self.bucket.has_begun else None


class Revenue(NamedTuple):
    """What sessions that ended in a bucket were charged, and what was given back in it, of whatever charge; VND."""

    bucket: Bucket
    cell: Cell
    sessions: int = 0
    revenue: int = 0
    refunded: int = 0

    @property
    def net(self) -> int:
        """What is left; below 0 where more was given back than charged."""
        return self.revenue - self.refunded


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A piece of a report, where the next one begins (None: this is the last), and where the capacities come from.

    Sessions of the archived months are not in it.
    """

    rows: list[T]
    next: Position | None
    capacity_sources: list[str]
    archived_months: list[date] = field(default_factory=list)


def occupancy(connection: psycopg.Connection, question: Question) -> Page[Occupancy]:
    """A page of the occupancy report. Raises UnknownZone, UnknownDistrict."""
    return _report(connection, question, partial(_sums, connection, question, "sum_occupancy"), Occupancy)


# Nothing was given back: for who knows nothing of money.
NO_REFUNDS: LiteralString = "SELECT NULL::uuid AS session_id, NULL::timestamptz AS at, 0::bigint AS amount WHERE false"


def revenue(connection: psycopg.Connection, question: Question, refunds: LiteralString = NO_REFUNDS) -> Page[Revenue]:
    """A page of the revenue report. Raises UnknownZone, UnknownDistrict.

    `refunds` is a query of what was given back: session_id, at, amount (VND).
    """

    def sums(bounds: list[datetime], zones: Sequence[_Zone]) -> Sums:
        charged = _sums(connection, question, "sum_revenue", bounds, zones)
        refunded = _refunded(connection, question, refunds, bounds, zones)
        return {key: [*charged.get(key, (0, 0)), *refunded.get(key, (0,))] for key in charged.keys() | refunded.keys()}

    return _report(connection, question, sums, Revenue)


def bounds_of(start: datetime, end: datetime, bucket: str) -> list[datetime]:
    """Where buckets begin and end: on the city's clock, the first and the last cut to the span.

    start 07:10                     end 08:20        bucket 15m
      |--|-----|-----|-----|-----|--|
      07:15 07:30 07:45 08:00 08:15
    """
    size, local = BUCKETS[bucket], start.astimezone(CITY_TIME)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    bound = midnight + ((local - midnight) // size + 1) * size
    bounds = [start]
    while bound < end:
        bounds.append(bound)
        bound += size
    return [*bounds, end]


class _Zone(NamedTuple):
    code: str
    district: str
    vehicle_class: str
    capacity: int
    source: str


# The last version of each zone, also of one that is no longer in force: what happened there still counts.
_ZONES = """
SELECT o.zone_code, z.district_code, o.vehicle_class, o.capacity, z.capacity_source
  FROM zone_occupancy o
  JOIN (SELECT DISTINCT ON (code) code, district_code, capacity_source FROM zone ORDER BY code, valid_from DESC) z
    ON z.code = o.zone_code
"""


def _zones(connection: psycopg.Connection, question: Question) -> list[_Zone]:
    """The zones and classes that are asked for. Raises UnknownZone, UnknownDistrict."""
    zones = [_Zone(*row) for row in connection.execute(_ZONES).fetchall()]
    if question.zone is not None and all(zone.code != question.zone for zone in zones):
        raise errors.UnknownZone(f"no zone {question.zone}")
    if question.district is not None and all(zone.district != question.district for zone in zones):
        _check_district(connection, question.district)
    return [
        zone
        for zone in zones
        if question.zone in (None, zone.code)
        and question.district in (None, zone.district)
        and question.vehicle_class in (None, zone.vehicle_class)
    ]


def _check_district(connection: psycopg.Connection, code: str) -> None:
    """A district may be there without a zone. Raises UnknownDistrict."""
    if connection.execute("SELECT FROM district WHERE code = %s LIMIT 1", (code,)).fetchone() is None:
        raise errors.UnknownDistrict(f"no district {code}")


def _cells(zones: Sequence[_Zone], by: str) -> list[Cell]:
    """The rows of one bucket, by place and class."""
    if by == "zone":
        cells = [Cell(zone.district, zone.code, zone.vehicle_class, zone.capacity) for zone in zones]
        return sorted(cells, key=_cell_key)
    ordered = sorted(zones, key=lambda zone: (zone.district, zone.vehicle_class))
    return [
        Cell(district, None, vehicle_class, sum(zone.capacity for zone in group))
        for (district, vehicle_class), group in groupby(ordered, key=lambda zone: (zone.district, zone.vehicle_class))
    ]


def _cell_key(cell: Cell) -> tuple[str, str]:
    return cell.place, cell.vehicle_class


# By bucket (from 0), place and class; where nothing happened there is no entry.
Sums = dict[tuple[int, str, str], list[int]]


def _report(
    connection: psycopg.Connection,
    question: Question,
    sum_up: Callable[[list[datetime], Sequence[_Zone]], Sums],
    make: Callable[..., T],
) -> Page[T]:
    """The rows of a page, each made from what is summed up for it between the bounds of the page's buckets."""
    zones = _zones(connection, question)
    cells = _cells(zones, question.by)
    sources = sorted({zone.source for zone in zones})
    bounds = bounds_of(question.start, question.end, question.bucket)
    begin = _row_at(bounds, cells, question.first)
    end = min(begin + question.limit, (len(bounds) - 1) * len(cells))
    archived = archive.missing(connection, question.start, question.end)
    if begin >= end:
        return Page([], None, sources, archived)
    low, high = begin // len(cells), (end - 1) // len(cells) + 1  # the buckets of this page
    spans = bounds[low : high + 1]
    grid = _grid(spans, cells, sum_up(spans, zones), make, question.now)
    rows = islice(grid, begin - low * len(cells), end - low * len(cells))
    return Page(list(rows), _position(bounds, cells, end), sources, archived)


def _row_at(bounds: Sequence[datetime], cells: Sequence[Cell], first: Position | None) -> int:
    """The index of a page's first row in the whole report; beyond a row that is gone the next one."""
    if first is None:
        return 0
    bucket = max(bisect_right(bounds, first.start) - 1, 0)
    return bucket * len(cells) + bisect_left(cells, (first.place, first.vehicle_class), key=_cell_key)


def _position(bounds: Sequence[datetime], cells: Sequence[Cell], row: int) -> Position | None:
    """The row's bucket, place and class; None past the report's end."""
    bucket, cell = divmod(row, len(cells))
    return Position(bounds[bucket], *_cell_key(cells[cell])) if bucket < len(bounds) - 1 else None


def _sums(
    connection: psycopg.Connection, question: Question, function: str, bounds: list[datetime], zones: Sequence[_Zone]
) -> Sums:
    """What the SQL function gives."""
    query = (
        f"SELECT * FROM {function}(%(bounds)s::timestamptz[], %(zones)s::text[], %(places)s::text[], "
        "%(classes)s::text[], %(now)s::timestamptz)"
    )
    return _read(connection.execute(query, _asked(question, bounds, zones)))


# A session's id holds the instant of its start, by which its month is found.
_REFUNDED = """
SELECT width_bucket(r.at, %(bounds)s::timestamptz[]), z.place, s.vehicle_class, sum(r.amount)::bigint
  FROM ({refunds}) r
 CROSS JOIN LATERAL (
       SELECT p.zone_code, p.vehicle_class FROM parking_session p
        WHERE p.id = r.session_id AND p.started_at = timestamptz 'epoch'
              + ('x' || replace(left(r.session_id::text, 13), '-', ''))::bit(48)::bigint * interval '1 millisecond') s
  JOIN unnest(%(zones)s::text[], %(places)s::text[]) z(zone_code, place) ON z.zone_code = s.zone_code
 WHERE r.at >= %(since)s AND r.at < %(until)s AND s.vehicle_class = ANY (%(classes)s::text[])
 GROUP BY 1, 2, 3
"""


def _refunded(
    connection: psycopg.Connection,
    question: Question,
    refunds: LiteralString,
    bounds: list[datetime],
    zones: Sequence[_Zone],
) -> Sums:
    """What was given back in each bucket of the charges of a place, whenever they were made."""
    asked = _asked(question, bounds, zones) | {"since": bounds[0], "until": bounds[-1]}
    return _read(connection.execute(sql.SQL(_REFUNDED).format(refunds=sql.SQL(refunds)), asked))


def _asked(question: Question, bounds: list[datetime], zones: Sequence[_Zone]) -> dict[str, Any]:
    place_of = {zone.code: zone.code if question.by == "zone" else zone.district for zone in zones}
    classes = sorted({zone.vehicle_class for zone in zones})
    places = list(place_of.values())
    return {"bounds": bounds, "zones": list(place_of), "places": places, "classes": classes, "now": question.now}


def _read(rows: Iterable[Any]) -> Sums:
    return {(bucket - 1, place, vehicle_class): sums for bucket, place, vehicle_class, *sums in rows}


def _grid(
    bounds: Sequence[datetime],
    cells: Sequence[Cell],
    sums: Sums,
    make: Callable[..., T],
    now: datetime,
) -> Iterator[T]:
    """Every bucket × every cell, in order."""
    for index, (start, end) in enumerate(pairwise(bounds)):
        bucket = Bucket(start, end, now)
        for cell in cells:
            yield make(bucket, cell, *sums.get((index, cell.place, cell.vehicle_class), ()))


def to_minutes(microseconds: int) -> float:
    """Minutes, rounded to a thousandth."""
    return round(microseconds / 60_000_000, 3)

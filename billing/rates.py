"""What a stay costs: pure functions of a rate and two instants. Money is integer VND, time is exact to the microsecond.

The rule (Decision 44/2017/QĐ-UBND of Hanoi, and the project's own settings where it is silent):

- Every started unit counts in full, the first one at once: 60 minutes are one hour, 60 minutes and 1 µs are two.
- Units are counted from the start of the stay, or from the end of the rate's free minutes; a stay within those is free.
- Local clocks cut a stay where day (06:00) and night (18:00) begin. A unit belongs to the part in which it starts.
- By the hour: hour n of the stay costs its step, also after a night. An hour of a night costs the night price (without
  one, the first step), a whole night part at most the night cap. The hours that start on one local calendar day cost
  at most the daily cap. Either cap may be absent.

      17:00  18:00                        06:00      start 17:00: hour 1 by day 25,000; hours 2-13 by night,
        |--1--|--2--|--3-- … --13--|--14--|          12 × 25,000, capped at 150,000; hour 14 by day, the third step

- By the turn: a day turn pays for one day part, a night turn for one night part, a full-day price for 24 hours that
  begin a whole number of 24 hours after the start. A stay costs the cheapest set of these that covers it.
- By the month: every started local calendar month costs the full-day price. (The day-only price is a permit's.)

So a longer stay never costs less. A session keeps the version under which it started.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time
from functools import lru_cache
from itertools import groupby, pairwise, repeat
from operator import attrgetter, itemgetter
from typing import NamedTuple

from billing.errors import NoRate
from billing.windows import DAY, HOUR, MINUTE, Windows, cuts, instant, microseconds, months

UNITS = ("hour", "turn", "month")
REFUNDS = ("unused", "none")
SOURCES = ("decree", "assumed")
# A rate without an end ends here, far enough before datetime.max that no sum of instants overflows.
FOREVER = datetime(9000, 1, 1, tzinfo=UTC)
_NEVER = 1 << 62
# Longer stays than this are rare and large: they are worked out each time.
REMEMBERED_HOURS = 48


class Step(NamedTuple):
    """From the unit numbered `from_unit` (the first is 1) on, one costs `price`; `source` says who set it."""

    from_unit: int
    price: int
    source: str


@dataclass(frozen=True, slots=True)
class Rate:
    """One version of the price of one area, vehicle class and unit, in force from `valid_from` to before `valid_to`."""

    version: str
    rate_area: str
    vehicle_class: str
    unit: str
    valid_from: datetime
    valid_to: datetime | None
    timezone: str
    day_start: time | None
    night_start: time | None
    day: tuple[Step, ...]
    night: Step | None = None
    full_day: Step | None = None
    night_cap: int | None = None
    daily_cap: int | None = None
    free_minutes: int = 0
    max_stay_minutes: int | None = None
    refund: str = "unused"

    def __hash__(self) -> int:
        """A version names one rate; all fields together would cost a start more than its price does."""
        return hash(self.version)

    @property
    def windows(self) -> Windows:
        """The local clock that cuts a stay."""
        return Windows(self.timezone, self.day_start, self.night_start, self.daily_cap is not None)

    @property
    def family(self) -> tuple[str, str, bool]:
        """Rates of one family follow each other in time: one area, class, and kind of price (a stay's or a month's)."""
        return self.rate_area, self.vehicle_class, self.unit == "month"

    @property
    def ends(self) -> datetime:
        """`valid_to`, or an instant that nobody will see."""
        return self.valid_to or FOREVER

    @property
    def withdrawn(self) -> bool:
        """Whether another rate took its place before it began."""
        return self.valid_from == self.valid_to


class Line(NamedTuple):
    """Some consecutive units of a stay at one price: amount = units × price.

    Free time has 0 units. A unit that a cap covers in part or wholly has a lower price, or 0.
    """

    start: datetime
    end: datetime
    unit: str
    units: int
    price: int
    amount: int


class Bill(NamedTuple):
    """What a stay costs. The lines follow each other from its start to its end and add up to the total."""

    total: int
    lines: tuple[Line, ...]


# The charges of a stay, the latest first: (the ones before, its begin after the start in µs, price of one unit, part).
# A shared tail makes it cheap to hold two ways to pay for the same stay at once.
Charges = tuple["Charges | None", int, int, int]
_FULL_DAY = -1


class Reached(NamedTuple):
    """What is owed once a stay has gone past `offset` µs of its paid time, and for what."""

    offset: int
    total: int
    charges: Charges


def price(rate: Rate, start: datetime, end: datetime, free_until: datetime | None = None) -> Bill:
    """The bill of a stay from `start` to `end`, its lines in UTC. Before `free_until` it costs nothing.

    Raises ValueError where an instant has no time zone, or the end lies before the start.
    """
    begin, length, free = _span(rate, start, end, free_until)
    free_line = Line(instant(begin), instant(begin + min(free, length)), rate.unit, 0, 0, 0)
    if free and length <= free:
        return Bill(0, (free_line,))
    *_, last = _WALKERS[rate.unit](rate, begin + free, length - free)
    lines = _lines(rate.unit, begin + free, length - free, last.charges)
    return Bill(last.total, (free_line, *lines) if free else lines)


def fee_steps(
    rate: Rate, start: datetime, until: datetime, free_until: datetime | None = None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The price of every stay from `start` that ends at `until` or before: (after, amounts).

    Before `free_until` nothing is asked, and then as for a stay that begins there, but for the rate's free minutes.

    amounts[i] is owed once the stay has lasted after[i] microseconds; after[0] is 0 and both rise. It stands on the
    path of every start: for 12 hours in Hanoi 8 to 13 µs, by the hour or the turn (Python 3.11, one of 2 shared cores).
    """
    begin, length, free = _span(rate, start, until, free_until)
    if free and length <= free:
        return (0,), (0,)
    if rate.unit != "hour":
        return _steps(free, _WALKERS[rate.unit](rate, begin + free, length - free))
    hours, changes = _pattern(rate, begin + free, length - free)
    if hours > REMEMBERED_HOURS or free_until is not None:
        return _steps(free, _hours_of_pattern(rate, hours, changes))
    return _remembered_steps(rate, hours, changes)


def _steps(free: int, reached: Iterable[Reached]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    after, amounts = ([0], [0]) if free else ([], [])
    for offset, total, _ in reached:
        if not amounts or total != amounts[-1]:
            # A unit is owed once the stay has gone past the instant at which it starts; the very first is owed at once.
            after.append(free + offset + 1 if free + offset else 0)
            amounts.append(total)
    return tuple(after), tuple(amounts)


@lru_cache(maxsize=1024)
def _remembered_steps(
    rate: Rate, hours: int, changes: tuple[tuple[int, str], ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return _steps(rate.free_minutes * MINUTE, _hours_of_pattern(rate, hours, changes))


def _span(rate: Rate, start: datetime, end: datetime, free_until: datetime | None) -> tuple[int, int, int]:
    """A stay's begin, its length and its free time (the rate's, or until the given instant), in microseconds."""
    begin = microseconds(start)
    length = microseconds(end) - begin
    if length < 0:
        raise ValueError("a stay cannot end before it starts")
    free = rate.free_minutes * MINUTE
    return begin, length, free if free_until is None else max(free, microseconds(free_until) - begin)


def _hours(rate: Rate, begin: int, length: int) -> tuple[Reached, ...]:
    """Every started hour, at its step or at the night's price, as far as the caps allow."""
    hours, changes = _pattern(rate, begin, length)
    return (_remembered_hours if hours <= REMEMBERED_HOURS else _hours_of_pattern)(rate, hours, changes)


def _pattern(rate: Rate, begin: int, length: int) -> tuple[int, tuple[tuple[int, str], ...]]:
    """How many hours a stay starts, and the index of the hour from which each cut works: the first at or after it.

    Few patterns stand for all stays, so what is worked out for one is remembered.
    """
    hours = max(1, -(-length // HOUR))
    return hours, tuple((-((begin - at) // HOUR), kind) for at, kind in cuts(rate.windows, begin, begin + length))


def _hours_of_pattern(rate: Rate, hours: int, changes: tuple[tuple[int, str], ...]) -> tuple[Reached, ...]:
    """The charges of so many hours; `changes` has the index of the hour from which it is day, night or another date."""
    night_price = (rate.night or rate.day[0]).price
    daily_cap, night_cap = _or_never(rate.daily_cap), _or_never(rate.night_cap)
    kind, part, part_left, day_left = "", 0, _NEVER, daily_cap
    total = 0
    charges: Charges | None = None
    found = []
    coming = [*changes]
    for index, day_price in zip(range(hours), _unit_prices(rate.day), strict=False):
        while coming and coming[0][0] <= index:
            _, cut = coming.pop(0)
            if cut == "midnight":
                day_left = daily_cap
            else:
                kind, part, part_left = cut, part + 1, night_cap if cut == "night" else _NEVER
        charge = min(night_price if kind == "night" else day_price, part_left, day_left)
        part_left, day_left, total = part_left - charge, day_left - charge, total + charge
        charges = (charges, index * HOUR, charge, part)
        found.append(Reached(index * HOUR, total, charges))
    return tuple(found)


_remembered_hours = lru_cache(maxsize=1024)(_hours_of_pattern)


def _or_never(cap: int | None) -> int:
    return _NEVER if cap is None else cap


def _unit_prices(steps: tuple[Step, ...]) -> Iterator[int]:
    """The price of unit 1, 2, 3 and so on without end."""
    for step, following in pairwise(steps):
        yield from repeat(step.price, following.from_unit - step.from_unit)
    yield from repeat(steps[-1].price)


def _turns(rate: Rate, begin: int, length: int) -> Iterator[Reached]:
    """The cheapest cover of the stay by turns and full days, as it grows over each cut and each full 24 hours.

    Two ways to pay are followed: one in which the current part is paid by its turn, one in which the current 24 hours
    are paid as a full day. Whoever pays by turns owes nothing new when 24 hours are full; whoever pays a full day owes
    nothing new at a cut. At full 24 hours the one may change to the other.

        start 17:00   day |18:00      night        06:00|       day     |17:00 (24 h)  |18:00
        by turns        5 |             13              |        18     |     17       |  25
        by full days   12 |             12              |        12     |     24       |  24
    """
    turn = {"day": rate.day[0].price, "night": (rate.night or rate.day[0]).price}
    full_day = _or_never(rate.full_day and rate.full_day.price)
    kinds = {at - begin: kind for at, kind in cuts(rate.windows, begin, begin + length)}
    full_days = range(0, max(length, 1), DAY) if rate.full_day else range(1)
    by_turns: Way = (0, None)
    by_full_days: Way = (0, None)
    kind = ""
    for part, offset in enumerate(sorted({*full_days, *kinds})):
        cheapest = _cheaper(by_turns, by_full_days)
        if offset in kinds:
            kind = kinds[offset]
            by_turns = _pay(cheapest if offset in full_days else by_turns, offset, turn[kind], part)
        else:
            by_turns = _cheaper(by_turns, _pay(by_full_days, offset, turn[kind], part))
        if offset in full_days:
            by_full_days = _pay(cheapest, offset, full_day, _FULL_DAY)
        total, charges = _cheaper(by_turns, by_full_days)
        assert charges is not None
        yield Reached(offset, total, charges)


# A way to pay for a stay so far: its total and its charges.
Way = tuple[int, Charges | None]


def _cheaper(one: Way, other: Way) -> Way:
    return one if one[0] <= other[0] else other


def _pay(way: Way, offset: int, price: int, part: int) -> Way:
    return way[0] + price, (way[1], offset, price, part)


def _calendar_months(rate: Rate, begin: int, length: int) -> Iterator[Reached]:
    """Every started local calendar month, day and night."""
    price = (rate.full_day or rate.day[0]).price
    charges: Charges | None = None
    for number, first in enumerate([begin, *months(rate.timezone, begin, begin + length)], 1):
        charges = (charges, first - begin, price, _FULL_DAY)
        yield Reached(first - begin, number * price, charges)


# Each gives, in order, the instants of the paid time (begin and length in µs) at which something more may be owed.
_WALKERS: dict[str, Callable[[Rate, int, int], Iterable[Reached]]] = {
    "hour": _hours,
    "turn": _turns,
    "month": _calendar_months,
}


def _lines(unit: str, begin: int, length: int, charges: Charges) -> tuple[Line, ...]:
    """One line for each run of equal charges of one part. Each ends where the next begins, the last with the stay."""
    runs = [list(run) for _, run in groupby(_in_order(charges), key=itemgetter(2, 3))]
    ends = [*(run[0][1] for run in runs[1:]), length]
    return tuple(_line(unit, begin, run, end) for run, end in zip(runs, ends, strict=True))


def _in_order(charges: Charges | None) -> list[Charges]:
    found = []
    while charges is not None:
        found.append(charges)
        charges = charges[0]
    return found[::-1]


def _line(unit: str, begin: int, run: list[Charges], end: int) -> Line:
    _, offset, price, _ = run[0]
    return Line(instant(begin + offset), instant(begin + end), unit, len(run), price, len(run) * price)


class RateTable:
    """All rates of all times, as one process holds them."""

    def __init__(self, rates: Iterable[Rate]) -> None:
        self._by_version = {rate.version: rate for rate in rates}
        self._of_stays: dict[tuple[str, str], list[Rate]] = {}
        for rate in sorted(self._by_version.values(), key=lambda rate: rate.valid_from):
            if rate.unit != "month" and not rate.withdrawn:
                self._of_stays.setdefault((rate.rate_area, rate.vehicle_class), []).append(rate)

    def at(self, rate_area: str, vehicle_class: str, instant: datetime) -> Rate:
        """The rate of a stay that starts at `instant`. Raises NoRate; ValueError without a time zone."""
        if instant.tzinfo is None:
            raise ValueError("an instant needs its time zone")
        dated = self._of_stays.get((rate_area, vehicle_class), [])
        index = bisect_right(dated, instant, key=attrgetter("valid_from")) - 1
        if index < 0 or instant >= dated[index].ends:
            raise NoRate(f"no rate for a {vehicle_class} in the area {rate_area} at that time")
        return dated[index]

    def version(self, version: str) -> Rate:
        """The rate of one version, whether or not it is in force. Raises NoRate."""
        try:
            return self._by_version[version]
        except KeyError:
            raise NoRate(f"no rate has the version {version}") from None

    @property
    def areas(self) -> frozenset[str]:
        """The areas in which a stay has, had or will have a price."""
        return frozenset(area for area, _ in self._of_stays)

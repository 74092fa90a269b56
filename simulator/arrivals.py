"""When and where vehicles arrive: a Poisson process for each land use, its rate piecewise linear from hour to hour.

Times are seconds after the start of the window; they may be negative (before it) and pass over midnights.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from simulator.city import CLASSES, City, Zone
from simulator.parameters import LandUse, Parameters
from simulator.trace import TrafficError, VehicleClass

HANOI = ZoneInfo("Asia/Ho_Chi_Minh")
HOUR = 3600.0
QUADRATURE_STEP = 60.0

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Spot(NamedTuple):
    """What a stay can choose: a zone, for one class that it serves."""

    zone: Zone
    vehicle_class: VehicleClass


class Segment(NamedTuple):
    """A part of one hour with a linear rate (stays a second): `rate` at `begin`, `rate_end` at `end`."""

    begin: float
    end: float
    rate: float
    rate_end: float


@dataclass(frozen=True)
class Arrivals:
    """The arrivals of one city. `weights[i, j]` is the stays of land use i at spot j on a day of volume 1."""

    parameters: Parameters
    start: datetime
    uses: tuple[str, ...]
    spots: tuple[Spot, ...]
    weights: Floats

    def use(self, index: int) -> LandUse:
        return self.parameters.land_uses[self.uses[index]]

    def segments(self, index: int, begin: float, end: float) -> Iterator[Segment]:
        """The rate of a land use over [begin, end), cut at the full hours of local time."""
        midnight = self.start.astimezone(HANOI).replace(hour=0, minute=0, second=0, microsecond=0)
        offset = (self.start - midnight).total_seconds()
        total = float(self.weights[index].sum())
        for count in range(math.floor((begin + offset) / HOUR), math.ceil((end + offset) / HOUR)):
            full = count * HOUR - offset
            first, last = max(begin, full), min(end, full + HOUR)
            if first < last:
                day, hour = divmod(count, 24)
                low, high = (total * knot for knot in self._knots(index, midnight + timedelta(days=day), hour))
                slope = (high - low) / HOUR
                yield Segment(first, last, low + slope * (first - full), low + slope * (last - full))

    def _knots(self, index: int, day: datetime, hour: int) -> tuple[float, float]:
        """The part of a day's stays that arrives in a second, at a full hour and at the next."""
        use, kind = self.use(index), self.parameters.day_type(day.date())
        hours: tuple[float, ...] = getattr(use.profile, kind)
        norm = getattr(use.volume, kind) / sum(hours) / HOUR
        return hours[hour] * norm, hours[(hour + 1) % 24] * norm

    def expected(self, index: int, begin: float, end: float) -> float:
        """The mean number of arrivals of a land use in [begin, end): the integral of its rate."""
        return sum(
            (part.end - part.begin) * (part.rate + part.rate_end) / 2 for part in self.segments(index, begin, end)
        )

    def draw(self, random: np.random.Generator, index: int, begin: float, end: float) -> Floats:
        """Arrival times of a land use in [begin, end), in order, by thinning a Poisson process of the highest rate."""
        return np.concatenate([np.empty(0), *(_thinned(random, part) for part in self.segments(index, begin, end))])

    def choose(self, random: np.random.Generator, index: int, count: int) -> Ints:
        """For each of `count` stays of a land use the index of its spot, by weight."""
        sums = np.cumsum(self.weights[index])
        return np.searchsorted(sums, random.random(count) * sums[-1], side="right").astype(np.int64)

    def expected_stock(self, index: int, hours: float) -> float:
        """The mean number of vehicles that arrived in the `hours` before the window and still stand when it opens."""
        use, total = self.use(index), 0.0
        for part in self.segments(index, -hours * HOUR, 0.0):
            count = max(1, round((part.end - part.begin) / QUADRATURE_STEP))
            middle = part.begin + (np.arange(count) + 0.5) * (part.end - part.begin) / count
            rates = np.interp(middle, [part.begin, part.end], [part.rate, part.rate_end])
            total += float(np.sum(rates * _survival(use, -middle))) * (part.end - part.begin) / count
        return total


def arrivals(city: City, parameters: Parameters, start: datetime, seed: int, scale: float = 1.0) -> Arrivals:
    """The arrivals of a city, `scale` times as many as its places draw. Raises TrafficError where it has no places."""
    spots = tuple(Spot(zone, name) for zone in city.zones for name in CLASSES if zone.serves(name))
    if not spots:
        raise TrafficError("the city has no zone with places")
    uses = tuple(parameters.land_uses)
    popularity = _popularity(city, parameters, seed)
    daily = np.array([_stays_a_day(spot, parameters) * popularity[spot.zone.code] for spot in spots])
    mixes = np.array([[parameters.district(spot.zone.district).mix.get(use, 0.0) for spot in spots] for use in uses])
    return Arrivals(parameters, start, uses, spots, scale * daily * mixes)


def expected_sessions(flow: Arrivals, seconds: float) -> float:
    """The mean number of stays that start in a window: those already there, and those that arrive."""
    stock = flow.parameters.stock
    uses = range(len(flow.uses))
    there = sum(flow.expected_stock(index, stock.hours) for index in uses) * stock.share
    return there + sum(flow.expected(index, 0.0, seconds) for index in uses)


def _popularity(city: City, parameters: Parameters, seed: int) -> dict[str, float]:
    sigma = parameters.pressure.spread
    drawn = np.random.default_rng([seed, 1]).normal(-sigma * sigma / 2, sigma, len(city.zones))
    return {zone.code: float(np.exp(value)) for zone, value in zip(city.zones, drawn, strict=True)}


def _stays_a_day(spot: Spot, parameters: Parameters) -> float:
    places = spot.zone.capacity[spot.vehicle_class]
    pressure = parameters.pressure
    small = spot.zone.strict and places <= pressure.small_strict_places
    stays: float = getattr(parameters.stays_per_place, spot.vehicle_class)
    factor = pressure.small_strict_factor if small else 1.0
    return places * stays * factor * parameters.district(spot.zone.district).pressure


def _thinned(random: np.random.Generator, part: Segment) -> Floats:
    highest = max(part.rate, part.rate_end)
    length = part.end - part.begin
    times = np.sort(random.uniform(part.begin, part.end, random.poisson(highest * length)))
    rates = part.rate + (part.rate_end - part.rate) * (times - part.begin) / length
    return times[random.random(len(times)) * highest < rates]


def _survival(use: LandUse, seconds: Floats) -> Floats:
    """P(dwell > seconds) of the log-normal, by interpolation of the normal's upper tail."""
    return np.interp((np.log(seconds) - use.mu) / use.sigma, NORMAL_AT, NORMAL_TAIL)


def _normal_tail() -> tuple[Floats, Floats]:
    at = np.linspace(-8, 8, 16_001)
    density = np.exp(-at * at / 2)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return at, 1 - below / below[-1]


NORMAL_AT, NORMAL_TAIL = _normal_tail()

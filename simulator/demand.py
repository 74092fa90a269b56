"""Invented traffic: a seed, a city and the parameters of demand.toml give a trace, always the same bytes.

What is drawn passes through in steps of five minutes of business time; what is kept is what has yet to happen to the
vehicles that are parked.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from operator import attrgetter

import numpy as np

from simulator.arrivals import Arrivals, Floats, Ints, arrivals, expected_sessions
from simulator.city import CLASSES, City
from simulator.parameters import Parameters
from simulator.plates import mistyped, plates
from simulator.stays import MINUTE, Kind, Stays, draw_arriving, draw_stock
from simulator.trace import Action, Event, Header, TrafficError, header

STEP = 300.0
DIGITS = 5
CHECK_MARGIN = 60.0

Vehicle = tuple[str, str]  # id, plate
Parked = tuple[float, str, str]  # free again at, id, plate: in order of time


def make(
    city: City,
    parameters: Parameters,
    start: datetime,
    seconds: float,
    *,
    seed: int,
    scale: float = 1.0,
    sessions: int | None = None,
) -> tuple[Header, Iterator[Event]]:
    """The trace of a window of `seconds` from `start` (aware): its header, and its events as they are drawn.

    `sessions`, in place of `scale`, is how many starts there are on average. Raises TrafficError for a city without
    places or a demand of nil.
    """
    if sessions is not None:
        natural = expected_sessions(arrivals(city, parameters, start, seed), seconds)
        if natural <= 0:
            raise TrafficError("nobody arrives in this window with these parameters")
        scale = sessions / natural
    head = header(
        seed=seed,
        origin=f"demand x{scale:.6g}",
        start=start,
        seconds=seconds,
        city=city.digest(),
        parameters=parameters.digest(),
    )
    return head, generate(city, parameters, start, seconds, seed, scale)


def generate(
    city: City, parameters: Parameters, start: datetime, seconds: float, seed: int, scale: float = 1.0
) -> Iterator[Event]:
    """The events of the window of `seconds` from `start`, in order of time. What comes after its end is left out.

    The same arguments give the same events. Raises TrafficError for a city without places, or when plates run out.
    """
    flow = arrivals(city, parameters, start, seed, scale)
    random = np.random.default_rng([seed, 0])
    plan = _Plan(flow, random, seconds, seed)
    plan.add(draw_stock(random, flow, seconds))
    for step in range(int(np.ceil(seconds / STEP))):
        plan.add(draw_arriving(random, flow, step * STEP, min((step + 1) * STEP, seconds)))
        yield from plan.take(step)


class _Plan:
    """What has yet to happen, by step of the window; and the vehicles that can come back."""

    def __init__(self, flow: Arrivals, random: np.random.Generator, seconds: float, seed: int) -> None:
        self.flow, self.random, self.seconds = flow, random, seconds
        self.parameters = flow.parameters
        self.steps: dict[int, list[Event]] = defaultdict(list)
        self.plates = {name: plates(name, seed) for name in CLASSES}
        self.free: dict[str, list[Parked]] = {name: [] for name in CLASSES}
        self.vehicles = self.strangers = 0
        self.elsewhere = _elsewhere(flow)

    def take(self, step: int) -> list[Event]:
        """The events of a step in order, forgotten here."""
        return sorted(self.steps.pop(step, ()), key=attrgetter("t"))

    def add(self, stays: Stays) -> None:
        """Plan the events of these stays (in order of their start) and of the wardens who meet them."""
        vehicles = self._vehicles(stays)
        for column in zip(vehicles, *_lists(stays), strict=True):
            self._plan_stay(*column)
        self._plan_checks(stays, vehicles)

    def _put(self, t: float, vehicle: Vehicle, spot: int, action: Action, minutes: int | None = None) -> None:
        """An event, where it is within the window (what never happens is at infinity)."""
        t = round(t, 3)
        if t >= self.seconds:
            return
        zone, vehicle_class = self.flow.spots[spot]
        self.steps[int(t // STEP)].append(Event(t, vehicle[0], vehicle[1], vehicle_class, zone.code, action, minutes))

    def _plan_stay(
        self, vehicle: Vehicle, start: float, spot: int, minutes: int, extend_at: float, more: int, stop_at: float
    ) -> None:
        self._put(start, vehicle, spot, "start", minutes or None)
        self._put(extend_at, vehicle, spot, "extend", more)
        self._put(stop_at, vehicle, spot, "stop")

    def _vehicles(self, stays: Stays) -> list[Vehicle]:
        """A vehicle for each stay: one whose last stay is long over, or a new one."""
        again = (self.random.random(len(stays)) < self.parameters.again.share).tolist()
        pause = self.parameters.again.pause_minutes * MINUTE
        free_at = (np.maximum(stays.over_at, stays.gone_at) + pause).tolist()
        starts, spots = stays.start.tolist(), stays.spot.tolist()
        return [self._vehicle(*row) for row in zip(again, starts, spots, free_at, strict=True)]

    def _vehicle(self, again: bool, start: float, spot: int, free_at: float) -> Vehicle:
        vehicle_class = self.flow.spots[spot].vehicle_class
        pool = self.free[vehicle_class]
        if again and pool and pool[0][0] <= start:
            _, name, plate = heapq.heappop(pool)
        else:
            self.vehicles += 1
            name, plate = f"v{self.vehicles:06d}", self.plates[vehicle_class]()
        if free_at < self.seconds and len(pool) < self.parameters.again.pool:
            heapq.heappush(pool, (free_at, name, plate))
        return name, plate

    def _plan_checks(self, stays: Stays, vehicles: list[Vehicle]) -> None:
        """Wardens pass by: a stay is checked now and then while it runs, and sometimes once more after its end."""
        of, at = _check_times(self.random, self.parameters, stays)
        how, luck = self.parameters.checks, self.random.random(len(of))
        places, steps = (self.random.integers(0, DIGITS, len(of)), self.random.integers(1, 10, len(of)))
        away = self.random.random(len(of))
        bounds = np.cumsum([how.wrong_zone, how.mistyped, how.unpaid])
        choice = np.searchsorted(bounds, luck, side="right").tolist()
        spots = stays.spot.tolist()
        rows = zip(of.tolist(), at.tolist(), choice, places.tolist(), steps.tolist(), away.tolist(), strict=True)
        for stay, t, kind, place, step, other in rows:
            self._plan_check(kind, t, vehicles[stay], spots[stay], place, step, other)

    def _plan_check(self, kind: int, t: float, vehicle: Vehicle, spot: int, place: int, step: int, away: float) -> None:
        if kind == 0:
            others = self.elsewhere[spot]
            spot = others[int(away * len(others))] if others else spot
        elif kind == 1:
            vehicle = vehicle[0], mistyped(vehicle[1], place, step)
        elif kind == 2:
            if t >= self.seconds:
                return
            self.strangers += 1
            vehicle = (f"u{self.strangers:06d}", self.plates[self.flow.spots[spot].vehicle_class]())
        self._put(t, vehicle, spot, "check")


def _lists(stays: Stays) -> tuple[list[float] | list[int], ...]:
    columns = (stays.start, stays.spot, stays.minutes, stays.extend_at, stays.extend_minutes, stays.stop_at)
    return tuple(column.tolist() for column in columns)


def _check_times(random: np.random.Generator, parameters: Parameters, stays: Stays) -> tuple[Ints, Floats]:
    """(index of the stay, time) of each check: while the stay runs and the vehicle is there, or after its end."""
    how = parameters.checks
    begin, end = (stays.start + CHECK_MARGIN, np.minimum(stays.over_at, stays.gone_at) - CHECK_MARGIN)
    counts = random.poisson(how.per_stay, len(stays)) * (end > begin)
    running = np.repeat(np.arange(len(stays)), counts)
    during = begin[running] + random.random(len(running)) * (end - begin)[running]
    last = np.minimum(stays.gone_at, stays.over_at + how.after_minutes * MINUTE)
    stands = (stays.kind >= Kind.EXTENDED_OUT) & (last > stays.over_at + CHECK_MARGIN)
    after = np.flatnonzero(stands & (random.random(len(stays)) < how.after_end))
    late = stays.over_at[after] + CHECK_MARGIN
    late = late + random.random(len(after)) * (last[after] - late)
    return np.concatenate([running, after]), np.concatenate([during, late])


def _elsewhere(flow: Arrivals) -> list[list[int]]:
    """For each spot the spots of the same class in other zones of its district."""
    near: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, (zone, vehicle_class) in enumerate(flow.spots):
        near[zone.district, vehicle_class].append(index)
    return [
        [other for other in near[zone.district, vehicle_class] if other != index]
        for index, (zone, vehicle_class) in enumerate(flow.spots)
    ]

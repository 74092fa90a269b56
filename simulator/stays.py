"""How long vehicles stay and how they pay: stays drawn in bulk, as columns of equal length.

Times are seconds after the start of the window, lengths of time in seconds.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from simulator.arrivals import HOUR, Arrivals, Floats, Ints
from simulator.parameters import LandUse, Parameters

MINUTE = 60.0
NEVER = np.inf


class Kind(IntEnum):
    """What the driver does. The last four have prepaid time."""

    OPEN = 0  # runs until it is stopped
    FORGOTTEN = 1  # open, and never stopped
    EARLY = 2  # stopped before its time is over
    LATE = 3  # stopped after its time is over
    EXTENDED = 4  # buys more time, then stops before its end
    EXTENDED_OUT = 5  # buys more time, then lets it run out
    EXPIRED = 6  # lets its time run out


@dataclass(frozen=True)
class Stays:
    """Columns. `spot` counts in Arrivals.spots; `minutes` 0 is an open start; what does not happen is at NEVER.

    `over_at` is when the stay is over by its own events or time (NEVER where only the longest stay ends it), `gone_at`
    when the vehicle leaves its place.
    """

    start: Floats
    spot: Ints
    kind: Ints
    minutes: Ints
    extend_at: Floats
    extend_minutes: Ints
    stop_at: Floats
    over_at: Floats
    gone_at: Floats

    def __len__(self) -> int:
        return len(self.start)


def draw_dwell(random: np.random.Generator, use: LandUse, count: int) -> Floats:
    """Dwell times of a land use: log-normal."""
    return random.lognormal(use.mu, use.sigma, count)


def draw_arriving(random: np.random.Generator, flow: Arrivals, begin: float, end: float) -> Stays:
    """The stays that arrive in [begin, end), in order of time."""
    start, spot, dwell = _drawn(random, flow, begin, end)
    return settle(random, flow, start, spot, dwell)


def draw_stock(random: np.random.Generator, flow: Arrivals, seconds: float) -> Stays:
    """The stays of the vehicles that stand there when a window of `seconds` opens, for the rest of their dwell times.

    Their starts are spread evenly over the first minutes (stock.minutes) of the window.
    """
    stock = flow.parameters.stock
    arrived, spot, dwell = _drawn(random, flow, -stock.hours * HOUR, 0.0)
    there = (arrived + dwell > 0) & (random.random(len(arrived)) < stock.share)
    rest, spot = (arrived + dwell)[there], spot[there]
    order = random.permutation(len(rest))
    spread = min(stock.minutes * MINUTE, seconds)
    start = (np.arange(len(rest)) + 0.5) * spread / max(1, len(rest))
    return settle(random, flow, start, spot[order], rest[order])


def settle(random: np.random.Generator, flow: Arrivals, start: Floats, spot: Ints, dwell: Floats) -> Stays:
    """How each stay is paid and ended. Its dwell is bounded by the parameters and by the zone's longest stay."""
    parameters = flow.parameters
    longest = np.array([s.zone.max_stay_minutes for s in flow.spots], float)[spot]
    shares = np.array([getattr(parameters.stay.prepaid, s.vehicle_class) for s in flow.spots])[spot]
    stay = parameters.stay
    top = np.maximum(longest - stay.margin_minutes, longest / 2)
    dwell = np.minimum(np.maximum(dwell / MINUTE, stay.shortest_minutes), top)
    kind = _kinds(random, parameters, random.random(len(start)) < shares)
    block = np.minimum(float(stay.block_minutes), longest)
    most = np.floor(longest / block) * block
    kind = np.where((kind >= Kind.EXTENDED) & (kind <= Kind.EXTENDED_OUT) & (most < 2 * block), Kind.EARLY, kind)
    return _times(random, parameters, start, spot, kind.astype(np.int64), dwell, block, most)


def _drawn(random: np.random.Generator, flow: Arrivals, begin: float, end: float) -> tuple[Floats, Ints, Floats]:
    """Arrival times in order, spots and dwell times of all land uses."""
    times, spots, dwells = [np.empty(0)], [np.empty(0, np.int64)], [np.empty(0)]
    for index in range(len(flow.uses)):
        times.append(flow.draw(random, index, begin, end))
        spots.append(flow.choose(random, index, len(times[-1])))
        dwells.append(draw_dwell(random, flow.use(index), len(times[-1])))
    time = np.concatenate(times)
    order = np.argsort(time, kind="stable")
    return time[order], np.concatenate(spots)[order], np.concatenate(dwells)[order]


def _kinds(random: np.random.Generator, parameters: Parameters, prepaid: NDArray[np.bool_]) -> Ints:
    how, shares = parameters.prepaid, random.random(len(prepaid))
    bounds = np.cumsum(
        [how.early_stop, how.late_stop, how.extends * how.extended_stop, how.extends * (1 - how.extended_stop)]
    )
    paid = Kind.EARLY + np.searchsorted(bounds, shares, side="right")
    opened = np.where(shares < parameters.stay.never_stopped, Kind.FORGOTTEN, Kind.OPEN)
    return np.where(prepaid, paid, opened).astype(np.int64)


def _times(
    random: np.random.Generator,
    parameters: Parameters,
    start: Floats,
    spot: Ints,
    kind: Ints,
    dwell: Floats,
    block: Floats,
    most: Floats,
) -> Stays:
    """The columns in minutes after the start, put together and turned into seconds of the window.

    start          extend_at  first end           last end
    |------ minutes ----|-----|-- extend_minutes -----|
                         lead              stop_at  lead
    """
    how = parameters.prepaid
    lead = np.minimum(how.lead_minutes, block / 3)
    extends = (kind == Kind.EXTENDED) | (kind == Kind.EXTENDED_OUT)
    first = _bought(kind, dwell, block, most, lead, how.first_part)
    total = np.where(extends, _up(np.maximum(dwell, first) + lead, block, first + block, most), first)
    late = random.uniform(*how.late_minutes, len(start))
    in_time = np.minimum(np.where(extends, np.maximum(dwell, first), dwell), total - lead)
    stop = np.select(
        [kind == Kind.OPEN, (kind == Kind.EARLY) | (kind == Kind.EXTENDED), kind == Kind.LATE],
        [dwell, in_time, total + late],
        NEVER,
    )
    over = np.where(np.isinf(stop), np.where(kind == Kind.FORGOTTEN, NEVER, total), stop)
    return Stays(
        start=start,
        spot=spot,
        kind=kind,
        minutes=np.where(kind >= Kind.EARLY, first, 0).astype(np.int64),
        extend_at=np.where(extends, start + (first - lead) * MINUTE, NEVER),
        extend_minutes=(total - first).astype(np.int64),
        stop_at=start + stop * MINUTE,
        over_at=start + over * MINUTE,
        gone_at=start + np.where(np.isinf(stop), dwell, stop) * MINUTE,
    )


def _bought(kind: Ints, dwell: Floats, block: Floats, most: Floats, lead: Floats, first_part: float) -> Floats:
    """Prepaid minutes at the start, in whole blocks.

    With time to spare (early), to the nearest block (left to run out), too little (late), or a first part (extended),
    which leaves room for one block more.
    """
    nearest = np.clip(np.round(dwell / block) * block, block, most)
    less = np.clip(np.floor(dwell / block) * block, block, most)
    part = np.clip(np.floor(first_part * dwell / block) * block, block, np.maximum(most - block, block))
    enough = _up(dwell + lead, block, block, most)
    return np.select([kind == Kind.EARLY, kind == Kind.LATE, kind == Kind.EXPIRED], [enough, less, nearest], part)


def _up(minutes: Floats, block: Floats, least: Floats, most: Floats) -> Floats:
    """Up to whole blocks, between `least` and `most`."""
    return np.clip(np.ceil(minutes / block) * block, least, most)

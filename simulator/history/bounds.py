"""The cheap check: at every instant a history bounds what can have stood in a zone; no answer may lie outside.

It takes n log n where the search for an order may take much longer, and misses what only an order can show. At an
instant

    least = starts answered by then − ends called by then        (what stood there for certain)
    most  = starts called by then   − ends answered by then      (what may have stood there; unanswered starts for ever)

    A  start   |------|                  least 0 0 0 1 1 1 1 0 0 0
    A  stop               |-----|        most  0 1 1 1 1 1 1 1 0 0

The bounds are those of interval arithmetic; the rules are our own:

- a start was admitted: with it, the least is within the capacity that may have held between its call and its answer;
  and there was an instant at which, without it, the least was below the capacity
- zone_full: there was an instant at which the most reached the capacity
- a count: there was an instant at which it lay between least and most
- a plate: no two sessions of it ran for certain at one instant; already_parked: one may have run
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from simulator.history.record import DONE, MAYBE, Operation
from simulator.history.violation import Violation

Numbers = npt.NDArray[np.int64]
# How many have come at each of some instants.
Count = Callable[[Numbers], Numbers]
NEVER = (1 << 63) - 1
ENDS = ("stop", "expiry")


class _Steps:
    """How many of some instants have come."""

    def __init__(self, instants: Iterable[int]) -> None:
        self._instants: Numbers = np.sort(np.fromiter(instants, dtype=np.int64))

    def at(self, instants: Numbers) -> Numbers:
        """The number at each instant, with those of that instant."""
        return np.searchsorted(self._instants, instants, side="right")

    def before(self, instants: Numbers) -> Numbers:
        """The number before each instant."""
        return np.searchsorted(self._instants, instants, side="left")


class _Zone:
    """What can have stood in a zone, piece by piece: piece 2i + 1 is the instant i of all calls and answers, piece
    2i + 2 the time from there to the next."""

    def __init__(self, operations: Sequence[Operation], capacity: int, occupied: int, age: int) -> None:
        starts = [one for one in operations if one.action == "start" and one.outcome in (DONE, MAYBE)]
        ends = [one for one in operations if one.action in ENDS and one.outcome in (DONE, MAYBE)]
        places = sorted((one for one in operations if one.action == "capacity"), key=lambda one: one.invoked)
        self._instants = np.unique(
            np.array(
                [one.invoked - age for one in operations]
                + [one.invoked for one in operations]
                + [one.returned for one in operations if one.returned is not None],
                dtype=np.int64,
            )
        )
        # At an instant itself, what is answered then has not been done for certain, and what is called may be: what
        # touches is concurrent.
        called, answered = _Steps(_calls(ends)), _Steps(_answers(starts))
        self.least = self._pieces(occupied, answered.before, answered.at) - self._pieces(0, called.at, called.at)
        called, answered = _Steps(_calls(starts)), _Steps(_answers(ends))
        self.most = self._pieces(occupied, called.at, called.at) - self._pieces(0, answered.before, answered.at)
        self.fewest, self.capacity = self._capacities(places, capacity)

    def _pieces(self, start: int, at_instants: Count, between: Count) -> Numbers:
        pieces: Numbers = np.zeros(2 * len(self._instants) + 1, dtype=np.int64)
        pieces[1::2], pieces[2::2] = at_instants(self._instants), between(self._instants)
        return start + pieces

    def _capacities(self, places: Sequence[Operation], capacity: int) -> tuple[Numbers, Numbers]:
        """The fewest and the most places that there may have been in each piece."""
        fewest: Numbers = np.full(2 * len(self._instants) + 1, capacity, dtype=np.int64)
        most = fewest.copy()
        for change in places:
            assert change.returned is not None and change.number is not None
            called, answered = np.searchsorted(self._instants, [change.invoked, change.returned])
            fewest[2 * called + 1 :] = np.minimum(fewest[2 * called + 1 :], change.number)
            most[2 * called + 1 :] = np.maximum(most[2 * called + 1 :], change.number)
            fewest[2 * answered + 2 :] = most[2 * answered + 2 :] = change.number
        return fewest, most

    def during(self, operation: Operation, age: int = 0) -> slice:
        """The pieces in which the operation may have been carried out."""
        assert operation.returned is not None
        called, answered = np.searchsorted(self._instants, [operation.invoked - age, operation.returned])
        return slice(2 * called + 1, 2 * answered + 2)

    def after(self, operation: Operation) -> int:
        """The piece that follows the operation's answer."""
        return self.during(operation).stop


def check_zone(
    operations: Sequence[Operation], capacity: int, *, strict: bool = True, occupied: int = 0, count_age: int = 0
) -> Iterator[Violation]:
    """What lies outside the bounds of one zone and class. A count may be `count_age` nanoseconds old."""
    zone = _Zone(operations, capacity, occupied, count_age)
    for operation in operations:
        if operation.action == "start" and operation.outcome == DONE and strict:
            yield from _check_admitted(zone, operation)
        elif operation.action == "start" and operation.outcome == "zone_full":
            during = zone.during(operation)
            if not strict or (zone.most[during] < zone.fewest[during]).all():
                yield Violation("refused_with_places_free", "there was a place free all the time", (operation,))
        elif operation.action == "count" and operation.number is not None:
            during = zone.during(operation, count_age)
            fits = (zone.least[during] <= operation.number) & (operation.number <= zone.most[during])
            if not fits.any():
                yield Violation("impossible_count", "so many stood there at no instant of the call", (operation,))


def _check_admitted(zone: _Zone, operation: Operation) -> Iterator[Violation]:
    during = zone.during(operation)
    oversold = zone.least[zone.after(operation)] > zone.capacity[during].max()
    if oversold or (zone.least[during] >= zone.capacity[during]).all():
        yield Violation("oversold", "more were admitted than there were places", (operation,))


def check_plate(operations: Sequence[Operation]) -> Iterator[Violation]:
    """What cannot be where at most one session of a plate and class runs at a time."""
    starts = [one for one in operations if one.action == "start" and one.outcome in (DONE, MAYBE)]
    ends = {one.session: one for one in operations if one.action in ENDS and one.outcome in (DONE, MAYBE)}
    for one, other in pairwise(sorted(_certainly_running(starts, ends), key=lambda ran: ran[0])):
        if other[0] < one[1]:
            detail = "two sessions of one plate ran at one instant"
            yield Violation("two_sessions_at_once", detail, (one[2], other[2]))
    starts.sort(key=lambda one: one.invoked)
    began = [one.invoked for one in starts]
    # latest[i]: until when one of the first i + 1 sessions may have run
    latest = list(accumulate((_last(ends.get(one.session)) for one in starts), max))
    for refused in operations:
        if refused.action == "start" and refused.outcome == "already_parked":
            number = bisect_right(began, refused.returned or 0)
            if number == 0 or latest[number - 1] < refused.invoked:
                yield Violation("refused_without_a_session", "no session of the plate ran then", (refused,))


def _certainly_running(
    starts: Sequence[Operation], ends: Mapping[str | None, Operation]
) -> Iterator[tuple[int, int, Operation]]:
    """From when until when each session ran whatever else is true: answered, and nobody asked for its end yet."""
    for start in starts:
        ended = ends[start.session].invoked if start.session in ends else NEVER
        if start.returned is not None and start.returned < ended:
            yield start.returned, ended, start


def _last(end: Operation | None) -> int:
    return NEVER if end is None or end.returned is None else end.returned


def _calls(operations: Iterable[Operation]) -> Iterator[int]:
    return (one.invoked for one in operations)


def _answers(operations: Iterable[Operation]) -> Iterator[int]:
    return (one.returned for one in operations if one.returned is not None)

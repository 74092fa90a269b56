"""Whether a concurrent history is linearizable: whether each operation can be given one instant between its call and
its answer so that, in the order of those instants, a sequential model would have answered the same.

Sources, from which this was written:
- M. Herlihy, J. Wing, "Linearizability: a correctness condition for concurrent objects", ACM TOPLAS 12(3), 1990: the
  definition, and that a history may be checked object by object.
- J. Wing, C. Gong, "Testing and verifying concurrent objects", J. Parallel and Distributed Computing 17, 1993: the
  search. Only an operation that was called before the earliest answer of all others still to come can be next.
- G. Lowe, "Testing for linearizability", Concurrency and Computation 29(4), 2017: a configuration is the set of
  operations that have had their instant together with the state, and none is looked at twice; what must answer soonest
  is tried first (just in time).
- A. Horn, D. Kroening, "Faster linearizability checking via P-compositionality", FORTE 2015: one search a partition.

Two shortcuts, each by an exchange of neighbours in the order:
- Of two candidates that do the same to every state, the one that must answer sooner may go first. So one candidate a
  kind is enough, and unanswered operations of a kind are as good as a number of them.
- A candidate that leaves every state as it is, and that the present state answers, may go at once.

And two guesses, which change the order of the search and not what it finds:
- Where a candidate that only looks waits for a state, those come first that lead there. A state that lasted a
  millisecond, once passed by, is missed only when the candidate must answer.
- The order that is longest goes on first, and each unanswered operation in it counts against so many answered ones. One
  that never was carried out is little noticed at first, and must be undone long after; so others are tried before.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Any, Generic, NamedTuple

from simulator.history.models import Model, State
from simulator.history.record import Operation

NEVER = 1 << 63
# Some 300 bytes each.
MAX_CONFIGURATIONS = 10_000_000
# So many answered operations an unanswered one counts against. With 15 no order is found where many were carried out,
# with 1 none where few were.
AN_UNANSWERED = 4


class Undecided(Exception):
    """The search was given up: it looked at as many configurations as it may."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """Why a history is not linearizable: after the longest order that was found, none of `candidates` can be next."""

    ordered: int
    state: Hashable
    candidates: tuple[Operation, ...]


class _Configuration(NamedTuple):
    """Those that have had their instant: all operations before `base`, those at base + i for each bit i of `ahead`, and
    the first `unanswered[k]` unanswered ones of kind k."""

    base: int
    ahead: int
    unanswered: tuple[int, ...]
    state: Any


def check(
    model: Model[State], operations: Sequence[Operation], max_configurations: int = MAX_CONFIGURATIONS
) -> Stuck | None:
    """None where the history of one object is linearizable, else where the search got stuck. Raises Undecided."""
    return _Search(model, operations).run(max_configurations)


class _Search(Generic[State]):
    def __init__(self, model: Model[State], operations: Sequence[Operation]) -> None:
        self._model = model
        ordered = sorted(operations, key=lambda operation: operation.invoked)
        self._operations = [operation for operation in ordered if not operation.is_open]
        self._invoked = [operation.invoked for operation in self._operations]
        self._returned = [operation.returned or 0 for operation in self._operations]
        self._kinds = [model.kind(operation) for operation in self._operations]
        self._unanswered: dict[Hashable, list[Operation]] = {}
        for operation in ordered:
            if operation.is_open:
                self._unanswered.setdefault(model.kind(operation), []).append(operation)

    def run(self, max_configurations: int) -> Stuck | None:
        first = _Configuration(0, 0, (0,) * len(self._unanswered), self._model.initial)
        furthest, tick = first, count()
        waiting = [(0, 0, first)]
        seen: set[_Configuration] = set()
        while waiting:
            _, _, configuration = heappop(waiting)
            if configuration in seen:
                continue
            if configuration.base == len(self._operations):
                return None
            if len(seen) >= max_configurations:
                raise Undecided(f"no order found in {max_configurations} configurations")
            seen.add(configuration)
            furthest = max(furthest, configuration, key=_number)
            for after in reversed(list(self._next(configuration))):
                heappush(waiting, (_cost(after), -next(tick), after))
        candidates, _ = self._candidates(furthest)
        return Stuck(_number(furthest), furthest.state, tuple(self._operations[index] for index in candidates))

    def _candidates(self, configuration: _Configuration) -> tuple[list[int], int]:
        """The operations that can be next, by when they must answer; and when the first of all must."""
        index, _, _, _ = configuration
        had, earliest, found = configuration.ahead, NEVER, []
        while index < len(self._operations) and self._invoked[index] <= earliest:
            if not had & 1:
                earliest = min(earliest, self._returned[index])
                found.append(index)
            had >>= 1
            index += 1
        found.sort(key=self._returned.__getitem__)
        return found, earliest

    def _next(self, configuration: _Configuration) -> Iterator[_Configuration]:
        """What may come after, the most promising first."""
        candidates, earliest = self._candidates(configuration)
        following, waiting, kinds = list[_Configuration](), list[Operation](), set()
        for index in candidates:
            operation = self._operations[index]
            if self._kinds[index] in kinds:
                continue
            kinds.add(self._kinds[index])
            state = self._model.step(configuration.state, operation)
            only_looks = self._model.only_looks(operation)
            if state is None:
                if only_looks:
                    waiting.append(operation)
                continue
            after = _advance(configuration, index - configuration.base, state)
            if only_looks:
                yield after
                return
            following.append(after)
        if waiting:
            following.sort(key=lambda after: self._model.distance(after.state, waiting[0]))
        yield from following
        yield from self._next_unanswered(configuration, earliest)

    def _next_unanswered(self, configuration: _Configuration, earliest: int) -> Iterator[_Configuration]:
        """One more of those that nobody answered, if it was called by now."""
        for place, alike in enumerate(self._unanswered.values()):
            number = configuration.unanswered[place]
            if number == len(alike) or alike[number].invoked > earliest:
                continue
            state = self._model.step(configuration.state, alike[number])
            if state is not None and state != configuration.state:
                unanswered = configuration.unanswered
                unanswered = (*unanswered[:place], number + 1, *unanswered[place + 1 :])
                yield configuration._replace(unanswered=unanswered, state=state)


def _number(configuration: _Configuration) -> int:
    """How many answered operations have had their instant."""
    return configuration.base + configuration.ahead.bit_count()


def _cost(configuration: _Configuration) -> int:
    """The least goes on first; of equal ones, the newest."""
    return AN_UNANSWERED * sum(configuration.unanswered) - _number(configuration)


def _advance(configuration: _Configuration, offset: int, state: Hashable) -> _Configuration:
    """The operation at base + offset has its instant now."""
    ahead = configuration.ahead | 1 << offset
    passed = (~ahead & ahead + 1).bit_length() - 1  # the ones at its lower end
    return _Configuration(configuration.base + passed, ahead >> passed, configuration.unanswered, state)

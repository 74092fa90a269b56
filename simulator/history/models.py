"""What a zone and a plate are in the simplest terms: a state, and which answers it allows.

A model is sequential. It knows nothing of time, processes or retries: the checker looks for an order of the operations
in which each answer is the one that the model would have given.
"""

from collections.abc import Hashable
from typing import NamedTuple, Protocol, TypeVar

from simulator.history.record import DONE, MAYBE, Operation

State = TypeVar("State", bound=Hashable)
MINUTE = 60_000_000  # microseconds
SESSION_IS_OVER = ("session_ended", "session_expired")


class Model(Protocol[State]):
    """A sequential object."""

    @property
    def initial(self) -> State: ...

    def step(self, state: State, operation: Operation) -> State | None:
        """The state after the operation; None where this state would not have answered so."""

    def kind(self, operation: Operation) -> Hashable:
        """Operations of one kind do the same to every state."""

    def only_looks(self, operation: Operation) -> bool:
        """Whether the operation leaves every state as it is."""

    def distance(self, state: State, operation: Operation) -> int:
        """About how many steps a state is from one that answers an operation that only looks."""


class Stand(NamedTuple):
    """A zone and class: vehicles that stand there, and places."""

    occupied: int
    capacity: int


class ZoneModel:
    """Admission to one zone for one class. Where it is strict, a start is admitted if, and only if, a place is free;
    a place is taken by a start until a stop, or until a session's time is over. Capacity may fall below the count."""

    def __init__(self, capacity: int, *, strict: bool = True, occupied: int = 0) -> None:
        self.initial = Stand(occupied, capacity)
        self.strict = strict

    def step(self, state: Stand, operation: Operation) -> Stand | None:
        occupied, capacity = state
        action, outcome = operation.action, operation.outcome
        is_full = self.strict and occupied >= capacity
        if action == "start" and outcome in (DONE, MAYBE):
            return None if is_full else Stand(occupied + 1, capacity)
        if action == "start" and outcome == "zone_full":
            return state if is_full else None
        if action in ("stop", "expiry") and outcome in (DONE, MAYBE):
            return Stand(occupied - 1, capacity) if occupied else None
        if action == "capacity" and operation.number is not None:
            return Stand(occupied, operation.number)
        return state if action == "count" and occupied == operation.number else None

    def kind(self, operation: Operation) -> Hashable:
        action = "stop" if operation.action == "expiry" else operation.action
        return action, DONE if operation.outcome == MAYBE else operation.outcome, operation.number

    def only_looks(self, operation: Operation) -> bool:
        return operation.action == "count" or operation.outcome not in (DONE, MAYBE)

    def distance(self, state: Stand, operation: Operation) -> int:
        if operation.action == "count" and operation.number is not None:
            return abs(state.occupied - operation.number)
        return max(state.capacity - state.occupied, 0)


class Running(NamedTuple):
    """A running session; `ends` is None where it runs until stopped. An unanswered start leaves an unknown one."""

    session: str | None
    ends: int | None


class PlateModel:
    """One plate and class: at most one session runs in the whole city. The state is that session, or False."""

    initial: Running | bool = False

    def step(self, state: Running | bool, operation: Operation) -> Running | bool | None:
        action, outcome, session = operation.action, operation.outcome, operation.session
        if action == "start":
            return _start(state, operation)
        is_its = isinstance(state, Running) and state.session == session
        if action == "expiry":
            return False if is_its else state
        if outcome in SESSION_IS_OVER or (action == "look" and outcome in ("ended", "expired")):
            return None if is_its else state
        return _touch(state, operation) if isinstance(state, Running) and is_its else None

    def kind(self, operation: Operation) -> Hashable:
        # That an operation of known answer is asked twice is rare; those that nobody answered are alike.
        return operation.action, operation.outcome, operation.session, operation.number, operation.ends

    def only_looks(self, operation: Operation) -> bool:
        return operation.action == "look" or (operation.action != "expiry" and operation.outcome not in (DONE, MAYBE))

    def distance(self, state: Running | bool, operation: Operation) -> int:
        return int(self.step(state, operation) is None)


def _start(state: Running | bool, operation: Operation) -> Running | bool | None:
    if operation.outcome == "already_parked":
        return state or None
    if state or operation.outcome not in (DONE, MAYBE):
        return None
    return Running(operation.session, operation.ends)


def _touch(state: Running, operation: Operation) -> Running | bool | None:
    """A stop, an extension of or a look at the session that runs."""
    action, outcome = operation.action, operation.outcome
    if action == "extend":
        return _extend(state, operation)
    if action == "stop":
        return False if outcome == MAYBE or (outcome == DONE and operation.ends == state.ends) else None
    return state if outcome == "running" and operation.ends == state.ends else None


def _extend(state: Running, operation: Operation) -> Running | None:
    if operation.outcome not in (DONE, MAYBE):
        fits = {"not_prepaid": state.ends is None, "max_stay_exceeded": state.ends is not None}
        return state if fits.get(operation.outcome) else None
    if state.ends is None or operation.number is None:
        return None
    ends = state.ends + operation.number * MINUTE
    return state._replace(ends=ends) if operation.ends in (ends, None) else None

"""The search against what it is defined by: every order of small histories; and runs that are right by construction."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import combinations, permutations
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator import history
from simulator.history import Operation, PlateModel, ZoneModel, bounds, linearizability
from simulator.history.models import Model
from simulator.history.record import DONE, MAYBE
from tests.simulator.history.histories import CAR, PLATE, ZONE, operation, start, stop

MINUTE = 60_000_000
STEP = 10  # between the instants at which the operations of a sequential run are carried out


def has_an_order(model: Model, operations: Sequence[Operation]) -> bool:
    """The definition: some of the unanswered ones, and all others, in an order that time and the model allow."""
    answered = [one for one in operations if not one.is_open]
    unanswered = [one for one in operations if one.is_open]
    return any(
        keeps_time(order) and is_answered_so(model, order)
        for number in range(len(unanswered) + 1)
        for happened in combinations(unanswered, number)
        for order in permutations([*answered, *happened])
    )


def keeps_time(order: Sequence[Operation]) -> bool:
    """No operation stands before one that was answered before it was called."""
    return not any(b.returned is not None and b.returned < a.invoked for a, b in combinations(order, 2))


def is_answered_so(model: Model, order: Sequence[Operation]) -> bool:
    state: Hashable = model.initial
    for one in order:
        state = model.step(state, one)
        if state is None:
            return False
    return True


intervals = st.tuples(st.integers(0, 12), st.integers(0, 8)).map(lambda pair: (pair[0], pair[0] + pair[1]))
calls_of_a_zone = st.sampled_from(
    [("start", DONE), ("start", "zone_full"), ("stop", DONE), ("count", DONE), ("start", MAYBE), ("stop", MAYBE)]
)
calls_of_a_plate = st.sampled_from(
    [("start", DONE), ("start", "already_parked"), ("stop", DONE), ("stop", "session_ended"), ("look", "running"),
     ("look", "ended"), ("start", MAYBE), ("stop", MAYBE), ("expiry", DONE)]
)  # fmt: skip


def made(call: tuple[str, str], interval: tuple[int, int], **facts: Any) -> Operation:
    returned = None if call[1] == MAYBE else interval[1]
    return operation(call[0], interval[0], returned, call[1], **facts)


zone_histories = st.lists(st.builds(made, calls_of_a_zone, intervals, number=st.integers(0, 2)), max_size=6)
plate_histories = st.lists(st.builds(made, calls_of_a_plate, intervals, session=st.sampled_from("ab")), max_size=6)


@settings(max_examples=250)
@given(zone_histories, st.integers(0, 2), st.booleans(), st.integers(0, 1))
def test_search_of_a_zone_says_what_every_order_says(operations, capacity: int, strict: bool, occupied: int):
    model = ZoneModel(capacity, strict=strict, occupied=occupied)
    assert (linearizability.check(model, operations) is None) == has_an_order(model, operations)


@settings(max_examples=250)
@given(plate_histories)
def test_search_of_a_plate_says_what_every_order_says(operations):
    assert (linearizability.check(PlateModel(), operations) is None) == has_an_order(PlateModel(), operations)


@settings(max_examples=250)
@given(zone_histories, st.integers(0, 2), st.booleans(), st.integers(0, 1))
def test_bounds_of_a_zone_reject_nothing_that_has_an_order(operations, capacity: int, strict: bool, occupied: int):
    model = ZoneModel(capacity, strict=strict, occupied=occupied)
    if list(bounds.check_zone(operations, capacity, strict=strict, occupied=occupied)):
        assert not has_an_order(model, operations)


def test_bounds_of_a_zone_know_that_what_touches_is_concurrent():
    """The vehicle may leave, be counted away, and the next one come, all at the instant 1."""
    operations = [start(0, 0, "a"), start(0, 1, "b"), stop(1, 6, "a"), operation("count", 1, 2, number=0)]
    assert has_an_order(ZoneModel(2), operations) and list(bounds.check_zone(operations, 2)) == []


def is_over_after_it_began(once: dict, session: str) -> bool:
    """A session's time is over some while after it began; to the model an expiry before its start would be nothing."""
    start = once.get(("start", session))
    return start is not None and start.returned is not None and start.returned < once["expiry", session].invoked


@settings(max_examples=250)
@given(plate_histories)
def test_bounds_of_a_plate_reject_nothing_that_has_an_order(operations):
    once = {(one.action, one.session): one for one in operations if one.outcome in (DONE, MAYBE)}
    refused = [one for one in operations if one.outcome not in (DONE, MAYBE)]
    effects = [*once.values(), *refused]  # as they are once calls are joined: a session begins once, and ends once
    assume(not any(("stop", session) in once and ("expiry", session) in once for session in "ab"))
    assume(all(is_over_after_it_began(once, session) for session in "ab" if ("expiry", session) in once))
    if list(bounds.check_plate(effects)):
        assert not has_an_order(PlateModel(), effects)


slack = st.tuples(st.integers(0, 6 * STEP), st.integers(0, 6 * STEP))


class Run:
    """A service that does one thing after another; its calls are spread over intervals around their instants."""

    def __init__(self, capacity: int, occupied: int = 0) -> None:
        self.capacity, self.instant, self.number = capacity, 0, 0
        self.standing: dict[str, tuple[str, int | None]] = {}  # by plate: session, and when it ends
        self.past: list[tuple[str, str]] = []
        self.history: list[Operation] = []

    def note(self, action: str, outcome: str, spread: tuple[int, int], answered: bool, **facts: Any) -> None:
        self.instant += STEP
        returned = self.instant + spread[1] if answered else None
        self.history.append(operation(action, self.instant - spread[0], returned, outcome, **facts))

    def start(self, plate: str, minutes: int | None, spread: tuple[int, int], answered: bool) -> None:
        ends = minutes and minutes * MINUTE
        if plate in self.standing:
            outcome, session = "already_parked", None
        elif len(self.standing) >= self.capacity:
            outcome, session = "zone_full", None
        else:
            self.number += 1
            outcome, session = DONE, f"session {self.number}"
            self.standing[plate] = session, ends
        known = session if answered else None
        self.note("start", outcome, spread, answered, plate=plate, session=known, ends=ends if answered else None)
        if not answered and session:  # nobody will ever stop it; it stays as one of whom nothing is known
            self.standing[plate] = "", ends

    def stop(self, plate: str, _: Any, spread: tuple[int, int], answered: bool) -> None:
        session, ends = self.standing.get(plate, ("", None))
        if session:
            del self.standing[plate]
            self.past.append((plate, session))
            self.note("stop", DONE, spread, answered, plate=plate, session=session, ends=ends)
        elif self.past:
            plate, session = self.past[-1]
            self.note("stop", "session_ended", spread, answered, plate=plate, session=session)

    def extend(self, plate: str, minutes: int | None, spread: tuple[int, int], answered: bool) -> None:
        session, ends = self.standing.get(plate, ("", None))
        if session and ends is not None and minutes:
            ends += minutes * MINUTE
            self.standing[plate] = session, ends
            facts = {"number": minutes, "ends": ends if answered else None}
            self.note("extend", DONE, spread, answered, plate=plate, session=session, **facts)

    def look(self, plate: str, _: Any, spread: tuple[int, int], __: bool) -> None:
        session, ends = self.standing.get(plate, ("", None))
        if session:
            self.note("look", "running", spread, True, plate=plate, session=session, ends=ends)
        elif self.past:
            plate, session = self.past[-1]
            self.note("look", "ended", spread, True, plate=plate, session=session)

    def count(self, _: str, __: Any, spread: tuple[int, int], ___: bool) -> None:
        self.note("count", DONE, spread, True, number=len(self.standing))

    def change(self, _: str, places: int | None, __: tuple[int, int], ___: bool) -> None:
        self.capacity = places or 0
        self.note("capacity", DONE, (STEP // 3, STEP // 3), True, number=self.capacity)


DO: list[Callable[..., None]] = [Run.start, Run.start, Run.stop, Run.stop, Run.extend, Run.look, Run.count, Run.change]
deeds = st.tuples(
    st.sampled_from(DO), st.sampled_from("pqrs"), st.none() | st.integers(1, 3), slack, st.integers(0, 9).map(bool)
)


@settings(max_examples=200)
@given(st.integers(0, 3), st.lists(deeds, max_size=60))
def test_runs_that_are_right_by_construction_are_accepted(capacity: int, done: list):
    run = Run(capacity)
    for do, *how in done:
        do(run, *how)
    zones = {(ZONE, CAR): ZoneModel(capacity)}
    found = history.check(run.history, zones).violations
    assert found == [], (found, run.history)


@pytest.mark.parametrize("unanswered", [0, 30])
def test_many_calls_at_once_are_decided_quickly(unanswered: int):
    """Without the two shortcuts these would be some 2^40 configurations."""
    lost = [start(n, None, plate=f"lost {n}") for n in range(unanswered)]
    begun = [start(100 + n, 500 + n, f"s{n}") for n in range(40)]
    ended = [stop(600 + n, 900 + n, f"s{n}") for n in range(40)]
    zones = {(ZONE, CAR): ZoneModel(40 + unanswered)}
    assert history.check([*lost, *begun, *ended], zones).violations == []
    zones = {(ZONE, CAR): ZoneModel(39)}
    assert {wrong.rule for wrong in history.check([*begun, *ended], zones).violations} == {
        "oversold",
        "not_linearizable",
    }


def test_search_that_takes_too_long_says_so():
    with pytest.raises(linearizability.Undecided):
        linearizability.check(ZoneModel(9), [start(n, 99, f"s{n}") for n in range(9)], max_configurations=5)


def test_stuck_search_names_what_cannot_be_next():
    stuck = linearizability.check(PlateModel(), [start(0, 1, "a", plate=PLATE), start(2, 3, "b", plate=PLATE)])
    assert stuck is not None and stuck.ordered == 1
    assert [candidate.session for candidate in stuck.candidates] == ["b"]


OLD = 5_000  # as old as some five hundred calls


def crowd_with_counts(
    random: Random, length: int, happened: float, *, around: int = 25, unanswered: float = 0.04
) -> Iterator[Operation]:
    """An advisory zone in which some five calls overlap at any time (`around` 25; 200: forty), and one start in
    twenty-five is not answered: right by construction, with counts of the very instant, of which nobody knows that they
    are."""
    instant, lost, running = 0, 0, list[str]()
    for plate in map(str, range(length)):
        instant += random.randrange(1, 20)
        called, answered = instant - random.randrange(around), instant + random.randrange(around)
        if random.random() < 0.2:
            yield operation("count", called, answered, number=len(running) + lost)
        elif running and random.random() < 0.5:
            session = running.pop(0)
            yield stop(called, answered, session, plate=session)
        elif random.random() < unanswered:
            lost += random.random() < happened
            yield start(called, None, outcome=MAYBE, plate=plate)
        else:
            running.append(plate)
            yield start(called, answered, plate, plate=plate)


@pytest.mark.parametrize("happened", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(12))
def test_counts_that_may_be_old_do_not_let_the_search_grow(seed: int, happened: float):
    operations = list(crowd_with_counts(Random(seed), 2_000, happened))
    zones = {(ZONE, CAR): ZoneModel(1, strict=False)}
    report = history.check(operations, zones, count_age=OLD, max_configurations=10)
    assert report.violations == []


@pytest.mark.parametrize(("around", "unanswered", "happened"), [(25, 0.1, 0.05), (200, 0.1, 0.05), (200, 0.04, 0.5)])
@pytest.mark.parametrize("seed", range(3))
def test_long_histories_of_many_calls_at_once_do_not_let_the_search_grow(
    seed: int, around: int, unanswered: float, happened: float
):
    """Whoever takes an unanswered start for one that was made, to answer one count, has to undo it thousands later."""
    operations = list(crowd_with_counts(Random(seed), 4_000, happened, around=around, unanswered=unanswered))
    zones = {(ZONE, CAR): ZoneModel(1, strict=False)}
    report = history.check(operations, zones, count_age=OLD, max_configurations=10)
    assert report.violations == []


def test_count_that_is_old_is_found_to_be_allowed_and_one_that_is_older_is_not():
    operations = [start(0, 10, "a"), stop(20, 30, "a"), operation("count", 100, 110, number=1)]
    zones = {(ZONE, CAR): ZoneModel(1)}
    assert history.check(operations, zones, count_age=75).violations == []
    rules = {found.rule for found in history.check(operations, zones, count_age=60).violations}
    assert rules == {"impossible_count", "not_linearizable"}

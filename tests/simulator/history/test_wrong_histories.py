"""What a service must never have answered, and what it may: each rule by the smallest history that shows it.

Time runs to the right; |--| is a call, |--… one that got no answer.
"""

import pytest

from simulator.history import Operation
from tests.simulator.history.histories import PLATE, expiry, full, operation, parked, places, report, rules, start, stop

MINUTE = 60_000_000
WRONG: dict[str, tuple[list[Operation], int, set[str]]] = {
    # a |--|
    # b     |--|      one place
    "oversold, one after another": ([start(0, 1, "a"), start(2, 3, "b")], 1, {"oversold", "not_linearizable"}),
    # a |-----|
    # b   |-----|     one place
    "oversold, both at once": ([start(0, 5, "a"), start(1, 6, "b")], 1, {"oversold", "not_linearizable"}),
    # a |--|  |stop|
    # b         |--|
    # c           |--|    one place: only one of b and c can have had it
    "oversold by one beside a stop": (
        [start(0, 1, "a"), stop(2, 9, "a"), start(3, 8, "b"), start(4, 9, "c")], 1, {"oversold", "not_linearizable"},
    ),
    "oversold after the capacity was lowered": (
        [start(0, 1, "a"), places(2, 3, 1), start(4, 5, "b")], 2, {"oversold", "not_linearizable"},
    ),
    # the place of b's stop cannot be had before that stop was called
    "oversold before the stop that made room": (
        [start(0, 1, "a"), start(2, 3, "b"), stop(4, 5, "a")], 1, {"oversold", "not_linearizable"},
    ),
    "refused while a place was free": (
        [start(0, 1, "a"), full(2, 3)], 2, {"refused_with_places_free", "not_linearizable"},
    ),
    "refused after the stop: it was lost": (
        [start(0, 1, "a"), stop(2, 3, "a"), full(4, 5)], 1, {"refused_with_places_free", "not_linearizable"},
    ),
    # a |--|
    # b      |--|          |--| full       one place; b's admission shows that a's stop, unanswered, was carried out
    # a    |stop…                          and b's own was answered
    "refused although the unanswered stop was carried out": (
        [start(0, 1, "a"), stop(2, None, "a"), start(3, 4, "b"), stop(5, 6, "b"), full(7, 8)], 1, {"not_linearizable"},
    ),
    "counted what never stood there": (
        [start(0, 1, "a"), operation("count", 2, 3, number=0)], 2, {"impossible_count", "not_linearizable"},
    ),
    "two sessions on one plate": (
        [start(0, 1, "a", plate=PLATE), start(2, 3, "b", plate=PLATE)], 9, {"two_sessions_at_once", "not_linearizable"},
    ),
    "two sessions on one plate, started at once": (
        [start(0, 5, "a", plate=PLATE), start(1, 6, "b", plate=PLATE)], 9, {"two_sessions_at_once", "not_linearizable"},
    ),
    "refused as parked when nobody was": (
        [start(0, 1, "a", plate=PLATE), stop(2, 3, "a", plate=PLATE), parked(4, 5)],
        9, {"refused_without_a_session", "not_linearizable"},
    ),
    "stopped twice": ([start(0, 1, "a"), stop(2, 3, "a"), stop(4, 5, "a")], 9, {"not_linearizable"}),
    "a stop was refused that nobody else made": (
        [start(0, 1, "a"), stop(2, 3, "a", "session_ended")], 9, {"not_linearizable"},
    ),
    "an answered start was forgotten": ([start(0, 1, "a"), stop(2, 3, "a", "not_found")], 9, {"not_linearizable"}),
    "a stale look: it runs, after its stop": (
        [start(0, 1, "a"), stop(2, 3, "a"), operation("look", 4, 5, "running", session="a", plate="plate of a")],
        9, {"not_linearizable"},
    ),
    "a stale look: it ended, before its stop": (
        [start(0, 1, "a"), operation("look", 2, 3, "ended", session="a", plate="plate of a"), stop(4, 5, "a")],
        9, {"not_linearizable"},
    ),
    "a lost extension": (
        [
            start(0, 1, "a", ends=0),
            operation("extend", 2, 3, session="a", plate="plate of a", number=10, ends=10 * MINUTE),
            stop(4, 5, "a", ends=0),
        ],
        9, {"not_linearizable"},
    ),
    "a doubled start: one key, two sessions": (
        [start(0, 1, "a", plate=PLATE, key="k"), start(2, 3, "b", plate=PLATE, key="k")],
        9, {"repeated_answer_differs"},
    ),
    "one session for two starts": (
        [start(0, 1, "a", key="k"), start(2, 3, "a", key="l")], 9,
        {"session_answered_twice", "two_sessions_at_once", "not_linearizable"},
    ),
    "a key refused after its answer": (
        [start(0, 1, "a", plate=PLATE, key="k"), parked(2, 3, key="k")],
        9, {"repeated_call_refused"},
    ),
    "a session went on past its end": (
        [start(0, 1, "a"), expiry(2, 3, "a"), stop(4, 5, "a", "nonsense")],
        9, {"not_linearizable"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_history_is_rejected(name: str):
    operations, capacity, wanted = WRONG[name]
    assert rules(operations, capacity) == wanted
    assert rules(operations, capacity, exact=False) == wanted - {"not_linearizable"}


RIGHT: dict[str, tuple[list[Operation], int]] = {
    "nothing": ([], 0),
    # a |-----|
    # b   |-----| full
    "two at once, one place": ([start(0, 5, "a"), full(1, 6)], 1),
    # b's refusal is answered before a's admission
    "refused before the one that took the place was answered": ([start(0, 9, "a"), full(1, 2)], 1),
    "the place of a stop that is on its way": ([start(0, 1, "a"), stop(2, 9, "a"), start(3, 8, "b")], 1),
    "refused while a stop is on its way": ([start(0, 1, "a"), stop(2, 9, "a"), full(3, 8), start(4, 7, "b")], 1),
    "what touches is concurrent": ([start(0, 1, "a"), stop(2, 3, "a"), start(3, 4, "b")], 1),
    # a start… , then refused: a was admitted;  then b is admitted: a's place was free again, or a was never admitted
    "an unanswered start was admitted": ([start(0, None), full(5, 6)], 1),
    "an unanswered start was not admitted": ([start(0, None), start(5, 6, "b")], 1),
    "an unanswered start was admitted late": ([start(0, None), start(1, 2, "b"), stop(3, 4, "b"), full(5, 6)], 1),
    "an unanswered stop was carried out": ([start(0, 1, "a"), stop(2, None, "a"), start(3, 4, "b")], 1),
    "an unanswered stop was not carried out yet": (
        [start(0, 1, "a"), stop(2, None, "a"), full(3, 4), start(5, 6, "b")], 1,
    ),
    "an unanswered stop was carried out, as the next one says": (
        [start(0, 1, "a"), stop(2, None, "a"), stop(3, 4, "a", "session_ended"), start(5, 6, "b")], 1,
    ),
    "an unanswered start parks its plate": (
        [start(0, None, plate=PLATE), parked(5, 6)], 9,
    ),
    "a key was sent again until it was answered": (
        [start(0, None, plate=PLATE, key="k"), full(1, 2), start(3, 4, "a", plate=PLATE, key="k")], 1,
    ),
    "a key was answered twice": (
        [start(0, 7, "a", key="k"), start(1, 2, "a", key="k"), stop(3, 4, "a", key="s"), stop(5, 6, "a", key="s")], 1,
    ),
    "a key was refused, and is free": (
        [start(0, 1, "a"), full(2, 3, key="k"), stop(4, 5, "a"), start(6, 7, "b", key="k")], 1,
    ),
    "capacity lowered below the count": (
        [start(0, 1, "a"), start(2, 3, "b"), places(4, 5, 1), full(6, 7), stop(8, 9, "a"), full(10, 11)],
        2,
    ),
    "capacity raised meanwhile": ([start(0, 1, "a"), places(2, 9, 2), full(3, 4), start(5, 6, "b")], 1),
    "a place comes free when the time is over": (
        [start(0, 1, "a"), expiry(2, 3, "a"), start(4, 5, "b")], 1,
    ),
    "a stop before the time was over": (
        [start(0, 1, "a"), stop(2, 3, "a"), start(4, 5, "b"), expiry(6, 7, "a")], 1,
    ),
    "an unanswered stop, or else the end of its time": (
        [start(0, 1, "a"), stop(2, None, "a"), expiry(6, 7, "a"), start(8, 9, "b")], 1,
    ),
    "an extension races a stop, and comes first": (
        [
            start(0, 1, "a", ends=0), stop(2, 9, "a", ends=10 * MINUTE),
            operation("extend", 3, 8, session="a", plate="plate of a", number=10, ends=10 * MINUTE),
        ],
        1,
    ),
    "an extension races a stop, and comes last": (
        [
            start(0, 1, "a", ends=0), stop(2, 9, "a", ends=0),
            operation("extend", 3, 8, "session_ended", session="a", plate="plate of a", number=10),
        ],
        1,
    ),
    "a duplicate that was told to wait": ([start(0, 1, "a", outcome="request_in_progress"), start(2, 3, "b")], 1),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_right_history_is_accepted(name: str):
    operations, capacity = RIGHT[name]
    assert report(operations, capacity).violations == []


def test_advisory_zone_admits_always_and_refuses_never():
    assert rules([start(0, 1, "a"), start(2, 3, "b")], strict=False) == set()
    assert rules([start(0, 1, "a"), full(2, 3)], strict=False) == {"refused_with_places_free", "not_linearizable"}


def test_count_may_be_as_old_as_is_allowed():
    history = [start(10, 11, "a"), operation("count", 15, 16, number=0)]
    assert rules(history, count_age=4) == set()
    assert rules(history, count_age=3) == {"impossible_count", "not_linearizable"}


def test_only_the_search_sees_that_two_answers_exclude_each_other():
    # a    |-----------------|
    # full    |--|  |--| count 0        one place: the refusal comes after a's admission, the count before it
    history = [start(0, 20, "a"), full(1, 2), operation("count", 5, 6, number=0)]
    assert rules(history, exact=False) == set()
    assert rules(history) == {"not_linearizable"}


def test_report_counts_what_it_saw():
    found = report([start(0, 1, "a"), start(2, None), stop(3, 4, "a")])
    assert (found.operations, found.unanswered, found.objects, found.violations) == (3, 1, 3, [])

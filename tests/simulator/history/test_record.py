"""From answers to operations: what was done, what was refused, and what nobody knows."""

import json
from pathlib import Path

import pytest

from simulator.answers import Answer
from simulator.history import record
from simulator.history.record import DONE, MAYBE
from tests.simulator.history.histories import operation

SESSION = {"id": "s", "state": "running", "ends_at": "2026-10-14T09:00:00+07:00"}
NINE = 1_791_943_200_000_000  # that instant in microseconds


@pytest.mark.parametrize(
    ("action", "status", "document", "outcome"),
    [
        ("start", 201, SESSION, DONE),
        ("look", 200, SESSION, "running"),
        ("stop", 409, {"code": "session_ended"}, "session_ended"),
        ("start", 500, {}, MAYBE),
        ("start", 503, {}, MAYBE),
        ("start", 0, None, MAYBE),
    ],
)
def test_answer_says_what_came_of_a_call(action: str, status: int, document: dict | None, outcome: str):
    asked = operation(action, 5, None)
    known = record.judged(asked, 9, status, json.dumps(document))
    assert (known.outcome, known.returned) == (outcome, None if outcome == MAYBE else 9)
    assert (known.session, known.ends) == (("s", NINE) if outcome in (DONE, "running") else (None, None))


def test_count_is_that_of_the_class():
    body = json.dumps({"car": {"occupied": 3}, "motorbike": {"occupied": 9}})
    assert record.judged(operation("count", 5, None), 9, 200, body).number == 3


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"id": "s"}', "<html>"])
@pytest.mark.parametrize("status", [201, 302, 404])
def test_answer_that_makes_no_sense_is_no_outcome_that_a_model_knows(status: int, body: str):
    assert "unreadable" in record.judged(operation("start", 5, None), 9, status, body).outcome


def answer(status: int, body: dict, tries: int = 1, action: str = "start") -> Answer:
    times = {"due": 1.0, "ready": 1.0, "sent": 2.0, "answered": 3.5, "tries": tries}
    about = {"plate": "p", "vehicle_class": "car", "zone": "z", "minutes": 30, "key": "k", "driver": 7}
    none = {"session": None, "captured_at": None}
    return Answer(action=action, status=status, body=json.dumps(body), **times, **about, **none)


def test_replayed_answers_become_operations():
    known = list(record.of_answers([answer(201, SESSION), answer(201, {}, action="check")]))
    assert len(known) == 1
    assert (known[0].invoked, known[0].returned, known[0].client) == (2_000_000_000, 3_500_000_000, "7")


def test_refusal_after_several_tries_leaves_open_what_became_of_the_first():
    refused, open_ = record.of_answers([answer(409, {"code": "zone_full"}, tries=2)])
    assert refused.outcome == "zone_full" and open_.outcome == MAYBE and open_.is_open
    assert len(list(record.of_answers([answer(201, SESSION, tries=2)]))) == 1


def test_history_is_read_as_it_was_written(tmp_path: Path):
    operations = [operation("start", 1, 2, session="s", ends=3), operation("stop", 4, None), operation("count", 5, 6)]
    record.write(tmp_path / "a", operations[:1])
    record.write(tmp_path / "b", operations[1:])
    assert record.read([tmp_path / "a", tmp_path / "b"]) == operations

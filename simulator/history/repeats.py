"""From calls to effects: a request that was sent again under its key is one operation, which took effect once.

A start that was answered 201 twice with one session took effect after the first call and before the first answer. What
keys promise is checked on the way: one key, one session; one session, one key; once answered, never refused.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from msgspec.structs import replace

from simulator.history.record import DONE, MAYBE, WITHOUT_EFFECT, Operation
from simulator.history.violation import Violation

POSTS = ("start", "stop", "extend")


class Effects(NamedTuple):
    """A history in which every effect stands once, and what was wrong with its keys."""

    operations: list[Operation]
    violations: list[Violation]


def settle(operations: Iterable[Operation]) -> Effects:
    """Join repeated calls, and unanswered stops with what is known of their sessions from elsewhere."""
    others: list[Operation] = []
    keyed: dict[tuple[str | None, ...], list[Operation]] = defaultdict(list)
    for operation in operations:
        if operation.outcome in WITHOUT_EFFECT:
            continue
        if operation.key is None or operation.action not in POSTS:
            others.append(operation)
        else:
            path = operation.session if operation.action != "start" else None
            keyed[operation.client, operation.action, path, operation.key].append(operation)
    violations: list[Violation] = []
    for calls in keyed.values():
        others += _join(calls, violations) if len(calls) > 1 else calls
    violations += _sessions_started_twice(others)
    return Effects(_settle_stops(others), violations)


def _join(calls: list[Operation], violations: list[Violation]) -> list[Operation]:
    """The calls under one key: one effect, if any, and each refusal."""
    answered = [call for call in calls if call.outcome == DONE]
    unanswered = [call for call in calls if call.outcome == MAYBE]
    refused = [call for call in calls if call.outcome not in (DONE, MAYBE)]
    if not answered:
        return [*refused, *sorted(unanswered, key=_invoked)[:1]]
    if len({(call.session, call.ends) for call in answered}) > 1:
        violations.append(Violation("repeated_answer_differs", "one key has got different answers", tuple(answered)))
    first = min(answered, key=_returned)
    late = [call for call in refused if call.invoked > _returned(first)]
    if late:
        violations.append(Violation("repeated_call_refused", "a key was refused after its answer", (first, *late)))
    return [*refused, replace(first, invoked=min(map(_invoked, answered + unanswered)))]


def _sessions_started_twice(operations: list[Operation]) -> list[Violation]:
    starts: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        if operation.action == "start" and operation.outcome == DONE and operation.session:
            starts[operation.session].append(operation)
    return [
        Violation("session_answered_twice", "two starts have got one session", tuple(calls))
        for calls in starts.values()
        if len(calls) > 1
    ]


def _settle_stops(operations: list[Operation]) -> list[Operation]:
    """A session ends once: by a stop that was answered, by one that was not, or because its time was over."""
    by_session: dict[str, list[Operation]] = defaultdict(list)
    kept: list[Operation] = []
    for operation in operations:
        is_start = operation.action == "start"
        if operation.session is None or is_start:
            kept.append(operation)
        else:
            by_session[operation.session].append(operation)
    for about in by_session.values():
        kept += _settle_end(about)
    return kept


def _settle_end(about: list[Operation]) -> list[Operation]:
    """All but the starts of one session, with at most one end of it (more only where more were answered)."""
    expiries = [one for one in about if one.action == "expiry"]
    unanswered = [one for one in about if (one.action, one.outcome) == ("stop", MAYBE)]
    rest = [one for one in about if one.action != "expiry" and (one.action, one.outcome) != ("stop", MAYBE)]
    if any(one.action == "stop" and one.outcome == DONE for one in about) or not (expiries or unanswered):
        return rest
    invoked = min(map(_invoked, expiries + unanswered))
    known = expiries or [one for one in rest if one.outcome in ("session_ended", "ended")]
    returned = min(map(_returned, known), default=None)
    return [*rest, replace((expiries or unanswered)[0], invoked=invoked, returned=returned)]


def _invoked(operation: Operation) -> int:
    return operation.invoked


def _returned(operation: Operation) -> int:
    assert operation.returned is not None
    return operation.returned

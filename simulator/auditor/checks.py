"""What a warden must have been answered: the verdict on a plate seen at an instant, from the book.

The answer rests on all that the service knew when the check arrived. Where a start, an extend or a stop of the same
vehicle was under way at that moment, both answers are right: every world that may have been is judged.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

from simulator.answers import Answer, microseconds, rfc3339
from simulator.auditor.model import Book, Session
from simulator.auditor.prices import DAY, MINUTE

GRACE = 5 * MINUTE
REACH = DAY


class Seen(NamedTuple):
    """A session as the service may have known it: paid until, and gone at (None: taken to stand there still)."""

    session: Session
    paid_until: int
    gone_at: int | None

    def runs(self, at: int) -> bool:
        return self.session.started_at <= at < self.paid_until

    def over_for(self, at: int) -> int:
        """How long it has been over: since the vehicle went, or in an overstay since its paid time ended."""
        return at - (self.gone_at if self.gone_at is not None and self.gone_at <= at else self.paid_until)

    def tells(self, at: int) -> bool:
        """Whether it says anything about an instant after its paid time."""
        return self.gone_at is None or self.gone_at > at or self.over_for(at) < REACH


class Expected(NamedTuple):
    """One right answer."""

    verdict: str
    session: str | None
    expired_for_seconds: int | None


def check(book: Book) -> None:
    """Every answered check of the run; divergences go to the book's verdict."""
    for answer, body in book.checks:
        if any(session.unsure for session in book.by_vehicle.get((answer.plate, answer.vehicle_class), [])):
            continue
        book.verdict.compared["checks"] += 1
        about = f"check of {answer.vehicle_class} {answer.plate} in {answer.zone}"
        _compare(book, answer, body, about)


def _compare(book: Book, answer: Answer, body: dict[str, Any], about: str) -> None:
    at = answer.captured_at or 0
    expected = possible(book, answer, at)
    try:
        found = Expected(body["verdict"], body["session"], body["expired_for_seconds"])
        same = (body["plate"], body["zone"]) == (answer.plate, answer.zone)
        echoed = microseconds(body["captured_at"]) // 1000 == at // 1000
    except (KeyError, TypeError, ValueError) as error:
        book.verdict.add("answer", about, f"{type(error).__name__} {error}")
        return
    if not same or not echoed:
        book.verdict.add("answer", about, f"is about {body['plate']} in {body['zone']} at {body['captured_at']}")
    if found not in expected:
        right = " or ".join(sorted(map(_words, expected)))
        book.verdict.add("check", about, f"{_words(found)} at {rfc3339(at)}, expected {right}")


def _words(answer: Expected) -> str:
    over = "" if answer.expired_for_seconds is None else f", over for {answer.expired_for_seconds} s"
    return f"{answer.verdict} (session {answer.session}{over})"


def possible(book: Book, answer: Answer, at: int) -> set[Expected]:
    """Every right answer to a check of a vehicle in a zone at the business instant `at`."""
    sessions = book.by_vehicle.get((answer.plate, answer.vehicle_class), [])
    known = [s for s in sessions if s.sent <= answer.answered and s.started_at <= at]
    worlds = product(*(list(_views(book, session, answer)) for session in known))
    return {judge([seen for seen in world if seen is not None], answer.zone, at) for world in worlds}


def _views(book: Book, session: Session, check: Answer) -> Iterator[Seen | None]:
    """How the service may have known a session while it answered the check; None: not yet."""
    if session.answered > check.sent:
        yield None
    strict = book.strict(session.zone)
    for over_at in _ends(session, check):
        if session.end_answered > check.sent:
            yield Seen(session, over_at, None if strict else over_at)
        if session.ended_at is not None and session.end_sent <= check.answered:
            yield Seen(session, min(over_at, session.ended_at), session.ended_at)


def _ends(session: Session, check: Answer) -> list[int]:
    """When its time may have been over: as the start and each extend said, up to the last that was certainly done."""
    said = [end for end in session.ends if end.sent <= check.answered]
    certain = max((number for number, end in enumerate(said) if end.answered <= check.sent), default=0)
    return [end.over_at for end in said[certain:]]


def judge(seen: list[Seen], zone: str, at: int) -> Expected:
    """The verdict on a vehicle with these sessions, seen in a zone at an instant."""
    here = [one for one in seen if one.session.zone == zone]
    for one in here:
        if one.runs(at):
            return Expected("paid", one.session.id, None)
    last = min((one for one in here if one.tells(at)), key=lambda one: one.over_for(at), default=None)
    if last is not None and last.over_for(at) < GRACE:
        return Expected("grace", last.session.id, last.over_for(at) // 1_000_000)
    for one in seen:
        if one.runs(at):
            return Expected("wrong_zone", one.session.id, None)
    if last is not None:
        return Expected("expired", last.session.id, last.over_for(at) // 1_000_000)
    return Expected("unpaid", None, None)

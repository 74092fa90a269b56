"""What a session must look like after the run, as of a business instant; the API and the database are both held against
it."""

from dataclasses import dataclass
from typing import NamedTuple

from simulator.auditor.model import Book, Session, owed_until


class Outcome(NamedTuple):
    """State (running, expired, ended), end and fee as they stand at an instant. Fee None: the auditor's list has no
    price."""

    state: str
    ended_at: int | None
    fee: int | None


@dataclass(frozen=True, slots=True)
class Found:
    """A session as the service or its database tells it. `ended_at` is also set where an advisory session's time is
    over."""

    id: str
    plate: str
    vehicle_class: str
    zone: str
    started_at: int
    ends_at: int | None
    state: str
    ended_at: int | None
    fee: int


def expected(book: Book, session: Session, now: int) -> Outcome:
    """How the session must stand at the business instant `now`."""
    if session.ended_at is not None:
        state = "ended" if session.ended_by == "driver" else "expired"
        return Outcome(state, session.ended_at, owed_until(book, session, session.ended_at))
    if not session.over_before(now):
        until = now if session.ends_at is None else session.ends_at
        return Outcome("running", None, owed_until(book, session, until))
    if book.strict(session.zone):
        return Outcome("expired", None, owed_until(book, session, now))
    return Outcome("expired", session.over_at, owed_until(book, session, session.over_at))


def compare(book: Book, found: Found, low: int, high: int, where: str) -> None:
    """Hold a session as found, read between two business instants, against the book."""
    verdict = book.verdict
    verdict.compared[f"sessions {where}"] += 1
    session = book.sessions.get(found.id) or _adopt(book, found, low)
    about = f"session {found.id} {where}"
    if session is None:
        return
    if session.unsure:
        _settle(book, session, found)
    verdict.expect("session", about, "plate", session.plate, found.plate)
    verdict.expect("session", about, "vehicle_class", session.vehicle_class, found.vehicle_class)
    verdict.expect("session", about, "zone", session.zone, found.zone)
    verdict.expect("session", about, "started_at", session.started_at, found.started_at)
    verdict.expect("session", about, "ends_at", session.ends_at, found.ends_at)
    first, last = expected(book, session, low), expected(book, session, high)
    stands = {(first.state, first.ended_at), (last.state, last.ended_at)}
    if (found.state, found.ended_at) not in stands:
        verdict.add(
            "session", about, f"{found.state} with ended_at {found.ended_at}, expected {' or '.join(map(str, stands))}"
        )
    elif first.fee is not None and last.fee is not None and not first.fee <= found.fee <= last.fee:
        owed = first.fee if first.fee == last.fee else f"{first.fee} to {last.fee}"
        verdict.add("fee", about, f"{found.fee} VND, expected {owed}")


def _adopt(book: Book, found: Found, low: int) -> Session | None:
    """A session that no answer told of: not ours if it began before the run, ours if a start had no answer, else a
    divergence."""
    if found.started_at < book.began:
        book.foreign += 1
        return None
    for number, answer in enumerate(book.unanswered_starts):
        if (answer.plate, answer.vehicle_class, answer.zone) == (found.plate, found.vehicle_class, found.zone):
            del book.unanswered_starts[number]
            longest = found.started_at + book.longest(found.zone)
            session = Session(
                found.id, answer.driver, found.plate, found.vehicle_class, found.zone, answer.minutes, answer.sent,
                answer.answered, found.started_at, found.ends_at, found.ends_at or longest, unsure=True,
            )  # fmt: skip
            book.sessions[session.id] = session
            return session
    book.verdict.add(
        "unknown",
        f"session {found.id}",
        f"{found.vehicle_class} {found.plate} in {found.zone}: no start was answered with it",
    )
    return None


def _settle(book: Book, session: Session, found: Found) -> None:
    """Nobody knew whether a request without an answer was done: the service's word decides, its sums are still
    checked."""
    session.ends_at = found.ends_at
    session.over_at = found.ends_at or session.over_at
    session.ended_at = found.ended_at
    session.ended_by = None if found.ended_at is None else "driver" if found.state == "ended" else "expiry"
    session.unsure = False


def lost(book: Book, seen: set[str], where: str) -> None:
    """Sessions whose start was answered and that are not to be found."""
    for session in book.sessions.values():
        if session.id not in seen:
            book.verdict.add(
                "lost",
                f"session {session.id} {where}",
                f"{session.vehicle_class} {session.plate} in {session.zone} is not there",
            )

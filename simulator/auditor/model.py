"""The auditor's books: what every vehicle and zone must be, worked out from the answers alone.

A session is known by the answer to its start. Real instants (seconds) bound what happened when inside the service: a
start took effect between `sent` and `answered`. Business instants (microseconds) are what the service said.
"""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import pairwise
from typing import Any, NamedTuple

from simulator.answers import Answer, RunHeader, ZoneFacts, microseconds
from simulator.auditor.prices import MINUTE, NoPrice, area_of, fee
from simulator.auditor.verdict import Verdict

Vehicle = tuple[str, str]  # plate, class
Count = tuple[str, str]  # zone, class
FOREVER = float("inf")
WITHOUT_ANSWER = (0, 500, 502, 503, 504)


class BadAnswer(Exception):
    """An answer lacks what it must have; the text says what."""


class End(NamedTuple):
    """When a session's time is over, as a start or an extend between two real instants had it."""

    sent: float
    answered: float
    over_at: int


@dataclass(slots=True)
class Session:
    """One session. `freed_after` and `freed_before` bound the real time at which a strict place was given back."""

    id: str
    driver: int
    plate: str
    vehicle_class: str
    zone: str
    minutes: int | None
    sent: float
    answered: float
    started_at: int
    ends_at: int | None
    over_at: int
    ended_at: int | None = None
    ended_by: str | None = None
    fee: int | None = None  # as answered by the stop
    ends: list[End] = field(default_factory=list)
    end_sent: float = FOREVER  # real bounds of the request that ended it
    end_answered: float = FOREVER
    freed_after: float = FOREVER
    freed_before: float = FOREVER
    unsure: bool = False  # a stop or an extend had no answer: nobody knows whether it was done
    free: bool = False  # by a right, or where nothing is asked

    @property
    def vehicle(self) -> Vehicle:
        return self.plate, self.vehicle_class

    @property
    def count(self) -> Count:
        return self.zone, self.vehicle_class

    def over_before(self, business: int) -> bool:
        return self.over_at <= business


@dataclass(frozen=True, slots=True)
class Refusal:
    """A start, stop or extend that was refused with a code. `session` is what a stop or an extend was about."""

    answer: Answer
    code: str


@dataclass
class Book:
    """One run: sessions, refusals, what had no answer. `take` it in, then `close`."""

    header: RunHeader
    verdict: Verdict
    sessions: dict[str, Session] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    unanswered_starts: list[Answer] = field(default_factory=list)
    unanswered_checks: int = 0
    checks: list[tuple[Answer, dict[str, Any]]] = field(default_factory=list)
    requests: int = 0
    errors: int = 0
    foreign: int = 0  # sessions of before the run that the service still tells of
    codes: Counter[str] = field(default_factory=Counter)
    by_vehicle: dict[Vehicle, list[Session]] = field(default_factory=lambda: defaultdict(list))
    attempts: dict[Vehicle, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    first_sent: float = FOREVER
    last_answered: float = 0.0

    def zone(self, code: str) -> ZoneFacts:
        return self.header.zones[code]

    def strict(self, code: str) -> bool:
        return self.header.zones[code].admission == "strict"

    @property
    def began(self) -> int:
        """The business instant before which nothing of this run can have happened."""
        clock = self.header.clock
        return clock.business_at(min(self.first_sent, self.last_answered)) - clock.margin - 1000

    @property
    def settled(self) -> int:
        """The business instant before which nothing more can change: that of the last answer."""
        return self.header.clock.business_at(self.last_answered) + self.header.clock.margin

    def longest(self, code: str) -> int:
        """The zone's maximum stay in microseconds."""
        return self.header.zones[code].max_stay_minutes * MINUTE

    def occupied_before(self, count: Count) -> int:
        """What stood there before the run, of which we know nothing more."""
        return self.header.zones[count[0]].occupied.get(count[1], 0)

    def standing(self, session: Session, business: int) -> bool:
        """Whether the session holds a place at a business instant after the run: a strict one until its end, an
        advisory one until its time is over."""
        return session.ended_at is None and (self.strict(session.zone) or not session.over_before(business))

    def take(self, answer: Answer) -> None:
        """One answer, in the order in which they came."""
        self.requests += 1
        self.first_sent = min(self.first_sent, answer.sent)
        self.last_answered = max(self.last_answered, answer.answered)
        if answer.status in WITHOUT_ANSWER:
            self._take_unknown(answer)
            return
        try:
            body = _object(answer.body)
            if answer.status >= 400:
                self._take_refusal(answer, body)
            else:
                _TAKE[answer.action](self, answer, body)
        except (BadAnswer, KeyError, TypeError, ValueError) as error:
            self.errors += 1
            self.verdict.add(
                "answer", _about(answer), f"{answer.status} {answer.body[:200]!r} ({type(error).__name__}: {error})"
            )

    def close(self) -> None:
        """All answers are in: put each vehicle's sessions in order, and find those that a later start closed."""
        for session in self.sessions.values():
            self.by_vehicle[session.vehicle].append(session)
        for vehicle, sessions in self.by_vehicle.items():
            sessions.sort(key=lambda session: (session.started_at, session.sent))
            for session, following in pairwise(sessions):
                self._close_by_restart(session, following)
            self._bound_by_attempts(sessions, self.attempts.get(vehicle, []))

    def _take_start(self, answer: Answer, body: dict[str, Any]) -> None:
        if answer.status != 201:
            raise BadAnswer("a start is answered with 201")
        started_at = microseconds(body["started_at"])
        ends_at = None if body["ends_at"] is None else microseconds(body["ends_at"])
        longest = self.longest(answer.zone)
        session = Session(
            body["id"], answer.driver, answer.plate, answer.vehicle_class, answer.zone, answer.minutes, answer.sent,
            answer.answered, started_at, ends_at, started_at + longest if ends_at is None else ends_at,
        )  # fmt: skip
        if session.id in self.sessions:
            self.verdict.add("doubled", f"session {session.id}", f"given to two starts, the second by {_about(answer)}")
            return
        session.free = body.get("payment_method") == "free"
        session.ends.append(End(answer.sent, answer.answered, session.over_at))
        self.sessions[session.id] = session
        self.attempts[session.vehicle].append(answer)
        self._check_echo(answer, body, "running")
        asked = None if answer.minutes is None else started_at + answer.minutes * MINUTE
        self.verdict.expect("answer", f"session {session.id}", "ends_at", asked, ends_at)
        self._check_fee(session, ends_at or started_at, body)
        self._check_instant(answer, started_at, "started_at")

    def _take_stop(self, answer: Answer, body: dict[str, Any]) -> None:
        session = self._session(answer, body)
        ended_at = microseconds(body["ended_at"])
        if session.ended_at is not None:
            self.verdict.add("doubled", f"session {session.id}", "two stops were both answered with 200")
        self._check_echo(answer, body, "ended")
        self._check_start(session, body)
        self._check_instant(answer, ended_at, "ended_at")
        if not self.strict(session.zone) and session.over_before(ended_at) and not session.unsure:
            self.verdict.add(
                "end", f"session {session.id}", f"stopped at {body['ended_at']}, though its time was over before"
            )
        session.ended_at, session.ended_by = ended_at, "driver"
        session.end_sent, session.end_answered = answer.sent, answer.answered
        session.freed_after, session.freed_before = min(session.freed_after, answer.sent), answer.answered
        session.fee = body["fee"]["amount"]
        self._check_fee(session, ended_at, body)

    def _take_extend(self, answer: Answer, body: dict[str, Any]) -> None:
        session = self._session(answer, body)
        if session.ends_at is None or answer.minutes is None:
            self.verdict.add("answer", f"session {session.id}", "extended, though it has no prepaid time")
            return
        ends_at = session.ends_at + answer.minutes * MINUTE
        longest = session.started_at + self.longest(session.zone)
        if ends_at > longest:
            self.verdict.add("answer", f"session {session.id}", "extended past the zone's maximum stay")
        self._check_echo(answer, body, "running")
        self._check_start(session, body)
        if not session.unsure:
            self.verdict.expect("answer", f"session {session.id}", "ends_at", ends_at, microseconds(body["ends_at"]))
        if session.over_before(self.header.clock.business_at(answer.sent) - self.header.clock.margin):
            self.verdict.add("end", f"session {session.id}", "extended, though its time was over before")
        session.ends_at = session.over_at = microseconds(body["ends_at"])
        session.ends.append(End(answer.sent, answer.answered, session.over_at))
        self._check_fee(session, session.ends_at, body)

    def _take_check(self, answer: Answer, body: dict[str, Any]) -> None:
        if answer.status != 201:
            raise BadAnswer("a check is answered with 201")
        self.checks.append((answer, body))

    def _take_refusal(self, answer: Answer, body: dict[str, Any]) -> None:
        refusal = Refusal(answer, str(body["code"]))
        self.codes[refusal.code] += 1
        self.refusals.append(refusal)
        if answer.action == "start" and _may_have_closed(answer):
            self.attempts[answer.plate, answer.vehicle_class].append(answer)

    def _take_unknown(self, answer: Answer) -> None:
        """No answer after all tries: an error, and from here on nobody knows whether it was done."""
        self.errors += 1
        session = self.sessions.get(answer.session or "")
        if answer.action == "check":
            self.unanswered_checks += 1
        elif answer.action == "start":
            self.unanswered_starts.append(answer)
            self.attempts[answer.plate, answer.vehicle_class].append(answer)
        elif session is not None:
            session.unsure = True
            if answer.action == "stop":
                session.freed_after = min(session.freed_after, answer.sent)

    def _session(self, answer: Answer, body: dict[str, Any]) -> Session:
        if answer.status != 200:
            raise BadAnswer(f"a {answer.action} is answered with 200")
        if body["id"] != answer.session:
            raise BadAnswer(f"the answer is about session {body['id']}")
        session = self.sessions.get(body["id"])
        if session is None:
            raise BadAnswer("no start was answered with this session")
        return session

    def _check_echo(self, answer: Answer, body: dict[str, Any], state: str) -> None:
        about = f"session {body['id']}"
        expect = self.verdict.expect
        expect("answer", about, "zone", answer.zone, body["zone"])
        expect("answer", about, "vehicle_class", answer.vehicle_class, body["vehicle_class"])
        expect("answer", about, "plate", answer.plate, body["plate"])
        expect("answer", about, "state", state, body["state"])
        if (body["ended_at"] is None) != (state == "running"):
            self.verdict.add("answer", about, f"{state}, but ended_at is {body['ended_at']}")

    def _check_start(self, session: Session, body: dict[str, Any]) -> None:
        self.verdict.expect(
            "answer", f"session {session.id}", "started_at", session.started_at, microseconds(body["started_at"])
        )

    def _check_fee(self, session: Session, until: int, body: dict[str, Any]) -> None:
        owed = owed_until(self, session, until)
        if owed is not None:
            self.verdict.compared["fees in answers"] += 1
            self.verdict.expect("fee", f"session {session.id}", "the answered fee", owed, body["fee"]["amount"])
        self.verdict.expect("fee", f"session {session.id}", "the currency", "VND", body["fee"]["currency"])

    def _check_instant(self, answer: Answer, business: int, name: str) -> None:
        """What the service says happened now must have happened between the request and its answer (ms precision)."""
        clock = self.header.clock
        low = clock.business_at(answer.sent) - clock.margin - 1000
        high = clock.business_at(answer.answered) + clock.margin
        if not low <= business <= high:
            off = (low - business if business < low else business - high) / 1e6
            self.verdict.add(
                "clock", _about(answer), f"{name} lies {off:.3f} business seconds outside request and answer"
            )

    def _close_by_restart(self, session: Session, following: Session) -> None:
        """A start of the same plate closes a session whose time is over: an advisory one at its end, a strict one at
        that start."""
        if session.ended_at is not None or not session.over_before(following.started_at):
            return
        session.ended_by = "restart"
        session.end_sent, session.end_answered = following.sent, following.answered
        session.freed_before = min(session.freed_before, following.answered)
        session.freed_after = min(session.freed_after, following.sent)
        session.ended_at = following.started_at if self.strict(session.zone) else session.over_at

    def _bound_by_attempts(self, sessions: list[Session], attempts: list[Answer]) -> None:
        """Also a start without an answer, or whose card was declined, may have closed a strict session that was over:
        nobody saw when."""
        clock = self.header.clock
        for session in sessions:
            for attempt in attempts:
                later = attempt.sent > session.answered and attempt.status != 201
                if later and session.over_before(clock.business_at(attempt.answered) + clock.margin):
                    session.freed_after = min(session.freed_after, attempt.sent)
                    session.unsure = session.unsure or (self.strict(session.zone) and session.ended_at is None)


def _may_have_closed(refusal: Answer) -> bool:
    """Whether a start that was refused may have closed the vehicle's last session all the same: its card was declined
    afterwards, the service failed, or what an earlier try of it did is not known."""
    is_certain = refusal.tries == 1 and refusal.status < HTTPStatus.INTERNAL_SERVER_ERROR
    return not is_certain or refusal.status == HTTPStatus.PAYMENT_REQUIRED


def owed_until(book: Book, session: Session, until: int) -> int | None:
    """What the session costs if it ends at `until`, by the auditor's own list and its own idea of the zone's area.

    None where the auditor cannot know: its list lacks the area (which a note in the verdict says), or a strict overstay
    of a free session goes on, whose right it does not see.
    """
    if session.free:
        return None if book.strict(session.zone) and until > session.over_at else 0
    zone = book.zone(session.zone)
    area = area_of(zone.district, zone.street) or zone.rate_area
    try:
        return fee(area, session.vehicle_class, session.started_at, until)
    except NoPrice as error:
        if str(error) not in book.verdict.notes:
            book.verdict.notes.append(str(error))
        return None


def _object(body: str) -> dict[str, Any]:
    document = json.loads(body)
    if not isinstance(document, dict):
        raise BadAnswer("not a JSON object")
    return document


def _about(answer: Answer) -> str:
    return f"{answer.action} of {answer.vehicle_class} {answer.plate} in {answer.zone}"


_TAKE = {
    "start": Book._take_start,
    "stop": Book._take_stop,
    "extend": Book._take_extend,
    "check": Book._take_check,
}

"""What must hold in a run whatever the order was in which requests met inside the service.

A start was in effect for certain from its answer to the moment its stop was sent, and possibly from the moment it was
sent to the answer of its stop. More certain vehicles than places is an over-admission. A refusal must have been
possible at some moment between request and answer.

      start sent   answered                 stop sent   answered
          |- - - - - |=======================|- - - - - - |
           possible           certain            possible
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import accumulate, pairwise

from simulator.answers import Answer, rfc3339
from simulator.auditor import checks
from simulator.auditor.model import FOREVER, Book, Count, Refusal, Session
from simulator.auditor.prices import CARS, MINUTE, area_of


def check(book: Book) -> None:
    """Every rule on a closed book; divergences go to its verdict."""
    _check_areas(book)
    _check_admissions(book)
    _check_doubled_vehicles(book)
    _check_refusals(book)
    checks.check(book)


def _check_areas(book: Book) -> None:
    """A zone of the nine districts must be priced as its street is, or every fee in it is wrong together."""
    for code, zone in book.header.zones.items():
        area = area_of(zone.district, zone.street)
        if area is not None and zone.rate_area in CARS:
            book.verdict.compared["rate areas"] += 1
            book.verdict.expect("rate_area", f"zone {code}", "rate_area", area, zone.rate_area)


def _check_admissions(book: Book) -> None:
    """Never more vehicles in a strict zone than it has places."""
    for count, sessions in _strict_sessions(book).items():
        capacity = book.zone(count[0]).capacity.get(count[1], 0)
        most, when = busiest((s.answered, s.freed_after) for s in sessions)
        book.verdict.compared["strict counts"] += 1
        if most > capacity:
            at = rfc3339(book.header.clock.business_at(when))
            book.verdict.add("over_admission", " ".join(count), f"{most} vehicles at {at} on {capacity} places")


def busiest(intervals: Iterable[tuple[float, float]]) -> tuple[int, float]:
    """The highest number of intervals (start-inclusive, end-exclusive) that hold at once, and since when."""
    changes = sorted(change for begin, end in intervals if begin < end for change in ((begin, 1), (end, -1)))
    most, when, held = 0, 0.0, 0
    for at, change in changes:  # at equal times ends (-1) sort before begins
        held += change
        if held > most:
            most, when = held, at
    return most, when


def _strict_sessions(book: Book) -> dict[Count, list[Session]]:
    found: dict[Count, list[Session]] = defaultdict(list)
    for session in book.sessions.values():
        if book.strict(session.zone):
            found[session.count].append(session)
    return found


class Possible:
    """How many vehicles may have stood in one strict zone at a real instant, at most."""

    def __init__(self, occupied_before: int, intervals: Iterable[tuple[float, float]]) -> None:
        changes = sorted(change for begin, end in intervals for change in ((begin, -1), (end, 1)))  # begins first
        self._times = [at for at, _ in changes]
        self._counts = list(accumulate((-change for _, change in changes), initial=occupied_before))

    def most(self, begin: float, end: float) -> int:
        """The highest possible count at any instant of [begin, end]. What ends at `begin` may still have stood
        there."""
        first = bisect_left(self._times, begin)
        last = bisect_right(self._times, end)
        return max(self._counts[first : last + 1])


def _possible_counts(book: Book) -> dict[Count, Possible]:
    """For each strict count. Sessions whose end nobody saw, and starts without an answer, may stand there for ever."""
    intervals: dict[Count, list[tuple[float, float]]] = defaultdict(list)
    for count, sessions in _strict_sessions(book).items():
        intervals[count] += [(s.sent, s.freed_before) for s in sessions]
    for answer in book.unanswered_starts:
        intervals[answer.zone, answer.vehicle_class].append((answer.sent, FOREVER))
    wanted = {
        (refusal.answer.zone, refusal.answer.vehicle_class) for refusal in book.refusals if refusal.code == "zone_full"
    }
    known = [count for count in wanted if count[0] in book.header.zones]
    return {count: Possible(book.occupied_before(count), intervals[count]) for count in known}


def _check_doubled_vehicles(book: Book) -> None:
    """One session a plate and class in the whole city: a second is admitted only once the first may be over."""
    for sessions in book.by_vehicle.values():
        for first, second in pairwise(sessions):
            still_there = not first.over_before(second.started_at) and not first.unsure
            if still_there and first.freed_after > second.answered and first.answered < second.sent:
                book.verdict.add(
                    "doubled",
                    f"{first.vehicle_class} {first.plate}",
                    f"sessions {first.id} and {second.id} run at once",
                )


def _check_refusals(book: Book) -> None:
    """Every refusal must be one that the facts allow; one that they do not is an error of the service."""
    possible = _possible_counts(book)
    for refusal in book.refusals:
        book.verdict.compared["refusals"] += 1
        why = _wrong(book, refusal, possible)
        if why is not None:
            book.errors += 1
            answer = refusal.answer
            about = f"{answer.action} of {answer.vehicle_class} {answer.plate} in {answer.zone}"
            book.verdict.add("refusal", about, f"{refusal.code}, but {why}")


def _wrong(book: Book, refusal: Refusal, possible: dict[Count, Possible]) -> str | None:
    """None for a refusal that was right, else what speaks against it."""
    if refusal.code == "zone_full" and refusal.answer.action == "start":
        return _not_full(book, refusal.answer, possible)
    rule = _RULES.get((refusal.answer.action, refusal.code))
    if rule is None:
        return f"nothing in the run leads to it (answer {refusal.answer.status})"
    session = book.sessions.get(refusal.answer.session or "")
    if session is None and refusal.answer.action != "start":
        return "no start was answered with this session"
    return rule(book, refusal.answer, session)


def _not_full(book: Book, answer: Answer, possible: dict[Count, Possible]) -> str | None:
    zone = book.header.zones.get(answer.zone)
    if zone is None or zone.admission != "strict":
        return "the zone is not strict"
    capacity = zone.capacity.get(answer.vehicle_class, 0)
    most = possible[answer.zone, answer.vehicle_class].most(answer.sent, answer.answered)
    return f"at most {most} of {capacity} places can have been taken" if most < capacity else None


def _not_parked(book: Book, answer: Answer, _: Session | None) -> str | None:
    vehicle = answer.plate, answer.vehicle_class
    clock = book.header.clock
    earliest = clock.business_at(answer.sent) - clock.margin - 1000
    for session in book.by_vehicle.get(vehicle, []):
        may_run = session.unsure or session.over_at > earliest
        if session.sent <= answer.answered and session.freed_before >= answer.sent and may_run:
            return None
    others = [a for a in book.unanswered_starts if (a.plate, a.vehicle_class) == vehicle and a.sent <= answer.answered]
    return None if others else "the vehicle had no session then"


def _not_served(book: Book, answer: Answer, _: Session | None) -> str | None:
    zone = book.header.zones.get(answer.zone)
    return "the zone has places for it" if zone and answer.vehicle_class in zone.capacity else None


def _not_too_long(book: Book, answer: Answer, session: Session | None) -> str | None:
    longest = book.zone(answer.zone).max_stay_minutes
    bought = answer.minutes or 0
    if session is not None and session.ends_at is not None:
        bought += (session.ends_at - session.started_at) // MINUTE
    return (
        f"{bought} minutes are within the zone's {longest}"
        if bought <= longest and not (session and session.unsure)
        else None
    )


def _not_over(book: Book, answer: Answer, session: Session | None) -> str | None:
    assert session is not None
    clock = book.header.clock
    if session.over_at <= clock.business_at(answer.answered) + clock.margin:
        closed = (
            not book.strict(session.zone)
            or answer.action == "extend"
            or session.ended_by == "restart"
            or session.unsure
        )
        return None if closed else "a session in a strict zone runs until it is stopped"
    return None if session.unsure else f"its time is over at {rfc3339(session.over_at)}"


def _not_stopped(_: Book, answer: Answer, session: Session | None) -> str | None:
    assert session is not None
    stopped = session.ended_by == "driver" and session.freed_after <= answer.answered
    return None if stopped or session.unsure else "it was not stopped before"


def _prepaid(_: Book, __: Answer, session: Session | None) -> str | None:
    assert session is not None
    return "it has prepaid time" if session.ends_at is not None else None


Rule = Callable[[Book, Answer, Session | None], str | None]
_RULES: dict[tuple[str, str], Rule] = {
    ("start", "already_parked"): _not_parked,
    ("start", "class_not_served"): _not_served,
    ("start", "unknown_zone"): _not_served,
    ("start", "max_stay_exceeded"): _not_too_long,
    ("stop", "session_expired"): _not_over,
    ("stop", "session_ended"): _not_stopped,
    ("extend", "session_expired"): _not_over,
    ("extend", "session_ended"): _not_stopped,
    ("extend", "max_stay_exceeded"): _not_too_long,
    ("extend", "not_prepaid"): _prepaid,
}

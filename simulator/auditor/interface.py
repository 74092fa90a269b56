"""The book against the service's own answers after the run: sessions, what each zone has free, its own check of
itself."""

import time
from collections import Counter
from typing import Any
from urllib.parse import quote

from simulator.answers import microseconds
from simulator.auditor import outcome
from simulator.auditor.model import Book, Count
from simulator.auditor.outcome import Found
from simulator.service import Service
from simulator.users import Keys

QUIET_SECONDS = 1.5
MAP_AGE_SECONDS = 1.5
PAGE = 200


def wait_until_quiet(last_answered: float) -> None:
    """Copies may be a little late after the last answer: give them the time that they have."""
    time.sleep(max(0.0, min(last_answered + QUIET_SECONDS - time.time(), QUIET_SECONDS)))


def compare(book: Book, service: Service, keys: Keys) -> None:
    """Everything that the API tells against the book; divergences go to its verdict. Raises ServiceError."""
    wait_until_quiet(book.last_answered)
    _compare_sessions(book, service, keys)
    _compare_availability(book, service)
    _compare_map(book, service)
    _compare_consistency(book, service, keys)


def _compare_sessions(book: Book, service: Service, keys: Keys) -> None:
    seen: set[str] = set()
    for token in keys.drivers:
        pages = service.pages(f"/v1/sessions?limit={PAGE}", token)
        asked = time.time()
        for page in pages:
            low, high = _between(book, asked, time.time())
            for document in page["sessions"]:
                _compare_session(book, document, seen, low, high)
            asked = time.time()
    outcome.lost(book, seen, "in the API")


def _compare_session(book: Book, document: dict[str, Any], seen: set[str], low: int, high: int) -> None:
    try:
        found = _found(document)
    except (KeyError, TypeError, ValueError) as error:
        book.verdict.add("answer", f"session {document.get('id')} in the API", f"{type(error).__name__} {error}")
        return
    if found.id in seen:
        book.verdict.add("doubled", f"session {found.id}", "listed twice by the API")
    seen.add(found.id)
    outcome.compare(book, found, low, high, "in the API")


def _between(book: Book, before: float, after: float) -> tuple[int, int]:
    """The business instants between which the service looked at its clock."""
    clock = book.header.clock
    return clock.business_at(before) - clock.margin, clock.business_at(after) + clock.margin


def _found(document: dict[str, Any]) -> Found:
    return Found(
        id=document["id"],
        plate=document["plate"],
        vehicle_class=document["vehicle_class"],
        zone=document["zone"],
        started_at=microseconds(document["started_at"]),
        ends_at=None if document["ends_at"] is None else microseconds(document["ends_at"]),
        state=document["state"],
        ended_at=None if document["ended_at"] is None else microseconds(document["ended_at"]),
        fee=document["fee"]["amount"],
    )


def standing(book: Book, now: int) -> Counter[Count]:
    """How many vehicles of the run stand in each zone at a business instant after it."""
    return Counter(session.count for session in book.sessions.values() if book.standing(session, now))


def _compare_availability(book: Book, service: Service) -> None:
    """Zone by zone, live. Without a request for a place nothing but the passing of time changes a count: downwards."""
    by_zone: dict[str, list[Any]] = {}
    for session in book.sessions.values():
        if session.ended_at is None:
            by_zone.setdefault(session.zone, []).append(session)
    for code, zone in book.header.zones.items():
        asked = time.time()
        answer = service.get(f"/v1/zones/{quote(code)}/availability")
        low, high = _between(book, asked, time.time())
        for vehicle_class, capacity in zone.capacity.items():
            mine = [s for s in by_zone.get(code, []) if s.vehicle_class == vehicle_class]
            least, most = (sum(book.standing(s, now) for s in mine) for now in (high, low))
            _compare_count(
                book,
                (code, vehicle_class),
                answer.get(vehicle_class, {}),
                capacity,
                (least, most),
                "in its availability",
            )


def _compare_map(book: Book, service: Service) -> None:
    asked = time.time()
    features = [feature for page in service.pages("/v1/zones") for feature in page["features"]]
    low, high = _between(book, asked - MAP_AGE_SECONDS, time.time())
    least, most = standing(book, high), standing(book, low)
    for feature in features:
        facts = feature["properties"]
        zone = book.header.zones.get(facts["code"])
        for vehicle_class, capacity in zone.capacity.items() if zone else ():
            count = facts["code"], vehicle_class
            counts = facts["availability"].get(vehicle_class, {})
            _compare_count(book, count, counts, capacity, (least[count], most[count]), "on the map")


def _compare_count(
    book: Book, count: Count, found: dict[str, Any], capacity: int, bounds: tuple[int, int], where: str
) -> None:
    book.verdict.compared[f"counts {where}"] += 1
    about = f"{count[0]} {count[1]} {where}"
    book.verdict.expect("count", about, "capacity", capacity, found.get("capacity"))
    least, most = bounds[0], bounds[1] + book.occupied_before(count)
    occupied = found.get("occupied")
    if occupied is None or not least <= occupied <= most:
        book.verdict.add(
            "count", about, f"occupied is {occupied}, expected {least if least == most else f'{least} to {most}'}"
        )
        return
    book.verdict.expect("count", about, "available", max(0, capacity - occupied), found.get("available"))
    book.verdict.expect("count", about, "overflow", max(0, occupied - capacity), found.get("overflow"))


def _compare_consistency(book: Book, service: Service, keys: Keys) -> None:
    """The service's own check, Redis against PostgreSQL included, must find as little as we do."""
    answer = service.get("/v1/admin/consistency", keys.operator)
    book.verdict.compared["checks by the service itself"] += len(answer["checks"])
    if answer["divergences"]:
        names = ", ".join(f"{check['name']} {check['details']}" for check in answer["checks"] if check["divergences"])
        book.verdict.add("consistency", "GET /v1/admin/consistency", f"{answer['divergences']} divergences: {names}")

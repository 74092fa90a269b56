"""What a run amounts to by district: sessions, the busiest moment, revenue, response times. All from the book."""

from array import array
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simulator.auditor.model import Book, Session, owed_until
from simulator.report import milliseconds

CLASS_OF_PEAK = "car"


@dataclass(slots=True)
class Responses:
    """Response times (due to answered, seconds) by zone, taken while the answers are read."""

    by_zone: dict[str, "array[float]"] = field(default_factory=lambda: defaultdict(lambda: array("d")))

    def add(self, zone: str, seconds: float) -> None:
        self.by_zone[zone].append(seconds)

    def of(self, zones: Iterable[str]) -> dict[str, float]:
        """Percentiles in milliseconds over these zones."""
        return milliseconds(*(self.by_zone[zone] for zone in zones if zone in self.by_zone))


def charged(book: Book, session: Session, now: int) -> int:
    """What the session has been charged by the business instant `now`: its fee from the moment it is over, 0 before."""
    end = session.ended_at
    if end is None and not book.strict(session.zone):
        end = session.over_at
    if end is None or end > now:
        return 0
    return owed_until(book, session, end) or 0


def peak(intervals: Iterable[tuple[int, int | None]]) -> int:
    """The most vehicles at once; intervals are start-inclusive, end-exclusive, None is still there."""
    changes = [(begin, 1) for begin, _ in intervals]
    changes += [(end, -1) for _, end in intervals if end is not None]
    changes.sort()
    return int(max(np.cumsum([change for _, change in changes]), default=0)) if changes else 0


def _stay(book: Book, session: Session) -> tuple[int, int | None]:
    """From when to when the session held its place (None: it still does, in a strict zone)."""
    end = session.ended_at
    if end is None and not book.strict(session.zone):
        end = session.over_at
    return session.started_at, end


def summarise(book: Book, responses: Responses, now: int) -> list[dict[str, Any]]:
    """One row a district, by code, as of a business instant: revenue is what was charged by then; peak occupancy is of
    cars, vehicles divided by spaces."""
    zones: dict[str, list[str]] = defaultdict(list)
    for code, zone in book.header.zones.items():
        zones[zone.district].append(code)
    sessions: dict[str, list[Session]] = defaultdict(list)
    for session in book.sessions.values():
        sessions[book.zone(session.zone).district].append(session)
    return [_row(book, district, zones[district], sessions[district], responses, now) for district in sorted(zones)]


def _row(
    book: Book, district: str, zones: list[str], sessions: list[Session], responses: Responses, now: int
) -> dict[str, Any]:
    spaces = sum(book.zone(code).capacity.get(CLASS_OF_PEAK, 0) for code in zones)
    most = peak([_stay(book, session) for session in sessions if session.vehicle_class == CLASS_OF_PEAK])
    times = responses.of(zones)
    return {
        "code": district,
        "name": book.header.districts.get(district, district),
        "sessions": len(sessions),
        "peak_occupancy": round(most / spaces, 4) if spaces else 0.0,
        "revenue": sum(charged(book, session, now) for session in sessions),
        "p50_ms": times["p50"],
        "p95_ms": times["p95"],
        "p99_ms": times["p99"],
    }

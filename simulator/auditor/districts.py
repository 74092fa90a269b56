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
Cell = tuple[str, str]  # district, vehicle class


@dataclass(slots=True)
class Responses:
    """Response times (due to answered, seconds) by zone, taken while the answers are read."""

    by_zone: dict[str, "array[float]"] = field(default_factory=lambda: defaultdict(lambda: array("d")))

    def add(self, zone: str, seconds: float) -> None:
        self.by_zone[zone].append(seconds)

    def of(self, zones: Iterable[str]) -> dict[str, float]:
        """Percentiles in milliseconds over these zones."""
        return milliseconds(*(self.by_zone[zone] for zone in zones if zone in self.by_zone))


@dataclass(frozen=True, slots=True)
class Figures:
    """One district and class up to an instant. `peak` is the most vehicles at once, `revenue` VND charged by then."""

    arrivals: int = 0
    departures: int = 0
    occupied: int = 0  # vehicle microseconds
    peak: int = 0
    revenue: int = 0


def figures(book: Book, before: int) -> dict[Cell, Figures]:
    """Every district and class in which something happened before a business instant."""
    cells: dict[Cell, list[Session]] = defaultdict(list)
    for session in book.sessions.values():
        if session.started_at < before:
            cells[book.zone(session.zone).district, session.vehicle_class].append(session)
    return {cell: _figures(book, sessions, before) for cell, sessions in cells.items()}


def _figures(book: Book, sessions: list[Session], before: int) -> Figures:
    stays = [(session.started_at, gone_at(book, session)) for session in sessions]
    left = [end for _, end in stays if end is not None and end < before]
    return Figures(
        arrivals=len(stays),
        departures=len(left),
        occupied=sum(min(before if end is None else end, before) - begin for begin, end in stays),
        peak=peak(stays),
        revenue=sum(charged(book, session, before) for session in sessions),
    )


def gone_at(book: Book, session: Session) -> int | None:
    """When the session gives its place back: its end, or where its time is over; None in a strict zone until a stop."""
    if session.ended_at is None and not book.strict(session.zone):
        return session.over_at
    return session.ended_at


def charged(book: Book, session: Session, before: int) -> int:
    """What the session was charged before a business instant: its fee once it is over, nothing until then."""
    end = gone_at(book, session)
    return 0 if end is None or end >= before else owed_until(book, session, end) or 0


def peak(stays: Iterable[tuple[int, int | None]]) -> int:
    """The most vehicles at once; stays are start-inclusive, end-exclusive, None is still there."""
    changes = [(begin, 1) for begin, _ in stays]
    changes += [(end, -1) for _, end in stays if end is not None]
    changes.sort()
    return int(np.cumsum([change for _, change in changes]).max(initial=0))


def summarise(book: Book, responses: Responses, before: int) -> list[dict[str, Any]]:
    """One row a district, by code, up to a business instant; peak occupancy is of cars, vehicles divided by spaces."""
    zones: dict[str, list[str]] = defaultdict(list)
    for code, zone in book.header.zones.items():
        zones[zone.district].append(code)
    found = figures(book, before)
    return [_row(book, district, zones[district], found, responses) for district in sorted(zones)]


def _row(
    book: Book, district: str, zones: list[str], found: dict[Cell, Figures], responses: Responses
) -> dict[str, Any]:
    spaces = sum(book.zone(code).capacity.get(CLASS_OF_PEAK, 0) for code in zones)
    mine = [figures for (code, _), figures in found.items() if code == district]
    most = found.get((district, CLASS_OF_PEAK), Figures()).peak
    times = responses.of(zones)
    return {
        "code": district,
        "name": book.header.districts.get(district, district),
        "sessions": sum(figures.arrivals for figures in mine),
        "peak_occupancy": round(most / spaces, 4) if spaces else 0.0,
        "revenue": sum(figures.revenue for figures in mine),
        "p50_ms": times["p50"],
        "p95_ms": times["p95"],
        "p99_ms": times["p99"],
    }

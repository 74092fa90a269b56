"""The book against the planners' reports: what each district took in, and how many vehicles stood there."""

from collections import defaultdict
from typing import Any
from urllib.parse import urlencode

from simulator.answers import rfc3339
from simulator.auditor.districts import Cell, Figures, figures
from simulator.auditor.model import Book
from simulator.service import Service
from simulator.users import Keys

MICROSECONDS_A_MINUTE = 60_000_000
ROUNDING = 0.001  # minutes, of each row


def compare(book: Book, service: Service, keys: Keys, before: int) -> dict[str, int] | None:
    """Revenue and occupancy of all districts from the run's begin up to a business instant. Raises ServiceError.

    Gives the revenue that the service reports by district, in VND; None where it is not only this run's."""
    if book.foreign or any(any(zone.occupied.values()) for zone in book.header.zones.values()):
        book.verdict.notes.append("the reports hold sessions of before this run too: they are not compared")
        return None
    expected = figures(book, before)
    revenue: dict[str, int] = defaultdict(int)
    for name, check in (("revenue", _check_revenue), ("occupancy", _check_occupancy)):
        for cell, rows in _read(book, service, keys, name, before).items():
            book.verdict.compared[f"districts in the {name} report"] += 1
            check(book, cell, rows, expected.get(cell, Figures()))
            if name == "revenue":
                revenue[cell[0]] += sum(row["revenue"]["amount"] for row in rows)
    return dict(revenue)


def _read(book: Book, service: Service, keys: Keys, name: str, before: int) -> dict[Cell, list[dict[str, Any]]]:
    query = urlencode({"from": rfc3339(book.began), "to": rfc3339(before), "bucket": "1d", "by": "district"})
    found: dict[Cell, list[dict[str, Any]]] = defaultdict(list)
    for page in service.pages(f"/v1/reports/{name}?{query}", keys.planner):
        for row in page["rows"]:
            found[row["district"], row["vehicle_class"]].append(row)
    return found


def _check_revenue(book: Book, cell: Cell, rows: list[dict[str, Any]], expected: Figures) -> None:
    about = f"{cell[1]}s of district {cell[0]} in the revenue report"
    book.verdict.expect("report", about, "sessions", expected.departures, sum(row["sessions"] for row in rows))
    book.verdict.expect("report", about, "revenue", expected.revenue, sum(row["revenue"]["amount"] for row in rows))


def _check_occupancy(book: Book, cell: Cell, rows: list[dict[str, Any]], expected: Figures) -> None:
    about = f"{cell[1]}s of district {cell[0]} in the occupancy report"
    book.verdict.expect("report", about, "arrivals", expected.arrivals, sum(row["arrivals"] for row in rows))
    book.verdict.expect("report", about, "departures", expected.departures, sum(row["departures"] for row in rows))
    book.verdict.expect("report", about, "peak", expected.peak, max(row["peak_occupied"] for row in rows))
    minutes = sum(row["occupied_minutes"] for row in rows)
    if abs(minutes - expected.occupied / MICROSECONDS_A_MINUTE) > ROUNDING * len(rows):
        right = round(expected.occupied / MICROSECONDS_A_MINUTE, 3)
        book.verdict.add("report", about, f"occupied_minutes is {minutes}, expected {right}")

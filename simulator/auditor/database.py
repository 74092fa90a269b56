"""The book against PostgreSQL: rows read with SQL of the auditor's own, in one read-only snapshot, through a read-only
URL."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from simulator.auditor import money, outcome
from simulator.auditor.model import Book, Count
from simulator.auditor.money import Income
from simulator.auditor.outcome import Found
from simulator.service import ServiceError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
BATCH = 2_000

_RUNNING = """
SELECT id::text, plate, vehicle_class, zone_code, started_at, ends_at, over_at, admission, counted
  FROM active_session"""
_OVER = """
SELECT id::text, plate, vehicle_class, zone_code, started_at, ends_at, ended_at, ended_by, fee
  FROM parking_session WHERE started_at >= %s"""
_COUNTS = "SELECT zone_code, vehicle_class, occupied, capacity FROM zone_occupancy"
_CHARGES = """
SELECT p.id::text, p.fee, count(DISTINCT t.id), COALESCE(-sum(e.amount), 0)
  FROM parking_session p
  LEFT JOIN ledger_transaction t ON t.kind = 'parking' AND t.reference = p.id::text
  LEFT JOIN (ledger_entry e JOIN ledger_account a ON a.id = e.account_id AND a.kind IN ('revenue', 'vat'))
       ON e.transaction_id = t.id
 WHERE p.started_at >= %s
 GROUP BY p.id, p.fee
HAVING count(DISTINCT t.id) <> CASE WHEN p.fee > 0 THEN 1 ELSE 0 END OR COALESCE(-sum(e.amount), 0) <> p.fee"""
_STRAY_CHARGES = """
SELECT t.reference FROM ledger_transaction t
 WHERE t.kind = 'parking' AND NOT EXISTS (SELECT FROM parking_session p WHERE p.id::text = t.reference)"""

_CHECKS = "SELECT id::text, plate, verdict FROM parking_check WHERE received_at >= %s"


def compare(book: Book, database_url: str, reported: Mapping[str, int] | None) -> dict[str, Income]:
    """Sessions, counts and money as PostgreSQL holds them against the book; what each district took in. `reported` is
    the service's own revenue report by district. Raises ServiceError where it cannot be read."""
    try:
        return _compare(book, database_url, reported)
    except psycopg.Error as error:
        raise ServiceError(f"the database cannot be audited: {str(error).strip()}") from error


def _compare(book: Book, database_url: str, reported: Mapping[str, int] | None) -> dict[str, Income]:
    with psycopg.connect(database_url, options="-c timezone=UTC") as connection:
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        asked = time.time()
        connection.execute("SELECT 1").fetchone()  # the snapshot is taken here
        clock = book.header.clock
        now = clock.business_at(asked)
        low, high = now - clock.margin, clock.business_at(time.time()) + clock.margin
        counted = _compare_sessions(book, connection, low, high)
        _compare_counts(book, connection, counted)
        _compare_charges(book, connection)
        _compare_checks(book, connection)
        return money.compare(book, connection, _EPOCH + book.began * _MICROSECOND, low, reported)


def _rows(
    connection: psycopg.Connection, name: str, query: str, values: tuple[Any, ...] = ()
) -> Iterator[tuple[Any, ...]]:
    """The rows of a query, a batch at a time (a day has many)."""
    with connection.cursor(name=name) as cursor:
        cursor.itersize = BATCH
        cursor.execute(query, values)
        yield from cursor


def _microseconds(instant: datetime | None) -> int | None:
    return None if instant is None else (instant - _EPOCH) // _MICROSECOND


def _compare_sessions(book: Book, connection: psycopg.Connection, low: int, high: int) -> Counter[Count]:
    """Every session of the run once, running or over, as it must be. Gives how many rows each zone counts."""
    seen: set[str] = set()
    counted: Counter[Count] = Counter()
    since = _EPOCH + book.began * _MICROSECOND
    for row in _rows(connection, "running", _RUNNING):
        counted[row[3], row[2]] += row[8]
        _note(book, seen, row[0])
        _compare_running(book, row, low, high)
    for row in _rows(connection, "over", _OVER, (since,)):
        _note(book, seen, row[0])
        _compare_over(book, row, low, high)
    outcome.lost(book, seen, "in PostgreSQL")
    return counted


def _note(book: Book, seen: set[str], session_id: str) -> None:
    if session_id in seen:
        book.verdict.add("doubled", f"session {session_id}", "more than one row in PostgreSQL")
    seen.add(session_id)


def _compare_running(book: Book, row: tuple[Any, ...], low: int, high: int) -> None:
    """A running row holds no state and no fee: what must follow from it is compared, by the rule of its admission."""
    session_id, plate, vehicle_class, zone, started_at, ends_at, over_at, admission, counted = row
    session = book.sessions.get(session_id)
    over = _microseconds(over_at) or 0
    gone = admission == "advisory" and over <= low
    outcome.compare(
        book,
        Found(
            session_id, plate, vehicle_class, zone, _microseconds(started_at) or 0, _microseconds(ends_at),
            "expired" if over <= low else "running", over if gone else None, _owed(book, session_id, low),
        ),
        low,
        high,
        "in PostgreSQL",
    )  # fmt: skip
    about = f"session {session_id} in PostgreSQL"
    if session is not None:
        book.verdict.expect("session", about, "over_at", session.over_at, over)
        rule = book.zone(session.zone).admission
        book.verdict.expect("session", about, "admission", rule, admission)
    if not counted and over > high:
        book.verdict.add("count", about, "gave its place back before its time was over")


def _owed(book: Book, session_id: str, now: int) -> int:
    session = book.sessions.get(session_id)
    return 0 if session is None else outcome.expected(book, session, now).fee or 0


def _compare_over(book: Book, row: tuple[Any, ...], low: int, high: int) -> None:
    session_id, plate, vehicle_class, zone, started_at, ends_at, ended_at, ended_by, fee = row
    state = "ended" if ended_by == "driver" else "expired"
    began, end = _microseconds(started_at) or 0, _microseconds(ended_at)
    outcome.compare(
        book,
        Found(session_id, plate, vehicle_class, zone, began, _microseconds(ends_at), state, end, fee),
        low,
        high,
        "in PostgreSQL",
    )


def _compare_counts(book: Book, connection: psycopg.Connection, counted: Counter[Count]) -> None:
    """Each zone's number against its rows (counted here), its capacity, and in strict zones against the book itself."""
    in_book = Counter(s.count for s in book.sessions.values() if s.ended_at is None)
    for zone, vehicle_class, occupied, capacity in _rows(connection, "counts", _COUNTS):
        count = zone, vehicle_class
        about = f"{zone} {vehicle_class} in PostgreSQL"
        book.verdict.compared["counts in PostgreSQL"] += 1
        book.verdict.expect("count", about, "occupied against its rows", counted[count], occupied)
        if zone not in book.header.zones:
            continue
        before = book.occupied_before(count)
        book.verdict.expect("count", about, "capacity", book.zone(zone).capacity.get(vehicle_class), capacity)
        if not book.strict(zone):
            continue
        if not in_book[count] <= occupied <= in_book[count] + before:
            book.verdict.add("count", about, f"occupied is {occupied}, expected {in_book[count]} by the answers")
        if occupied > capacity:
            book.verdict.add("over_admission", about, f"{occupied} vehicles on {capacity} places")


def _compare_charges(book: Book, connection: psycopg.Connection) -> None:
    """What the ledger charges for each session that is over: its fee, once; and nothing for any other."""
    since = _EPOCH + book.began * _MICROSECOND
    book.verdict.compared["charges"] += sum(1 for s in book.sessions.values() if s.ended_at is not None)
    for session_id, fee, number, amount in _rows(connection, "charges", _CHARGES, (since,)):
        book.verdict.add(
            "charge", f"session {session_id}", f"{number} charges of {amount} VND in all for a fee of {fee} VND"
        )
    for (session_id,) in _rows(connection, "stray_charges", _STRAY_CHARGES):
        book.verdict.add("charge", f"session {session_id}", "it was charged and has not ended")


def _compare_checks(book: Book, connection: psycopg.Connection) -> None:
    """Each answered check is stored once, as it was answered. One without an answer may be stored too."""
    answered = {body.get("id"): (body.get("plate"), body.get("verdict")) for _, body in book.checks}
    since = _EPOCH + book.began * _MICROSECOND
    spare = book.unanswered_checks
    for check_id, *stored in _rows(connection, "checks", _CHECKS, (since,)):
        said = answered.pop(check_id, None)
        if said is not None:
            book.verdict.compared["checks in PostgreSQL"] += 1
            book.verdict.expect("check", f"check {check_id} in PostgreSQL", "plate and verdict", said, tuple(stored))
        elif spare > 0:
            spare -= 1
        else:
            book.verdict.add(
                "unknown", f"check {check_id}", f"{stored[1]} for {stored[0]}: nobody was answered with it"
            )
    for check_id in answered:
        book.verdict.add("lost", f"check {check_id} in PostgreSQL", "it is not there")

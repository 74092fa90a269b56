"""The book against the money: ledger, receipts and wallets as PostgreSQL holds them, read with SQL of its own.

What a district took in is told four times: by the auditor's own bills, by the service's report, by the ledger and by
the receipts. They must agree to the đồng. A session that ran out is charged once no late stop can come any more, and
its receipt follows within seconds: until then it may be missing in the ledger, or among the receipts, and is counted.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import psycopg

from simulator.auditor.districts import gone_at
from simulator.auditor.model import Book, Session, owed_until
from simulator.auditor.prices import MINUTE

# A phone that was offline may state a stop up to so long ago; only then is a session that ran out closed and charged.
LATE_STOP = 15 * MINUTE
# Real seconds that the service's jobs may take to close a session, and to issue a receipt.
JOBS_SECONDS = 60

_BOOKED = """
SELECT t.reference, t.at, max(split_part(a.code, '/', 2)) FILTER (WHERE a.kind = 'revenue'),
       (-sum(e.amount) FILTER (WHERE a.kind IN ('revenue', 'vat')))::bigint, r.district, r.amount
  FROM ledger_transaction t
  JOIN ledger_entry e ON e.transaction_id = t.id
  JOIN ledger_account a ON a.id = e.account_id
  LEFT JOIN receipt r ON r.id = t.id
 WHERE t.kind = 'parking' AND t.at >= %s
 GROUP BY t.id, t.reference, t.at, r.district, r.amount"""
_CLIENTS = """
SELECT id::text, client FROM active_session WHERE started_at >= %(since)s
UNION ALL SELECT id::text, client FROM parking_session WHERE started_at >= %(since)s"""
# What moved for each person but by parking: what they were given, less what they owe.
_GIVEN = """
SELECT a.owner, (-sum(e.amount) FILTER (WHERE t.kind <> 'parking'))::bigint,
       json_object_agg(t.reference, -e.amount) FILTER (WHERE t.kind = 'parking')
  FROM ledger_account a JOIN ledger_entry e ON e.account_id = a.id JOIN ledger_transaction t ON t.id = e.transaction_id
 WHERE a.kind = %s GROUP BY a.owner"""
_WALLETS = """
SELECT w.owner, w.balance, w.held, w.owed, COALESCE(sum(h.amount), 0)::bigint, count(h.id) - count(s.id)
  FROM wallet w
  LEFT JOIN hold h ON h.owner = w.owner AND h.state = 'pending'
  LEFT JOIN active_session s ON s.id = h.id
 WHERE w.kind = 'wallet' GROUP BY w.owner, w.balance, w.held, w.owed"""


class Booked(NamedTuple):
    """What the ledger has of a session: when, for which district, how much; and what its receipt says, if there is
    one."""

    at: datetime
    district: str | None
    amount: int
    receipt_district: str | None
    receipt_amount: int | None


@dataclass(slots=True)
class Income:
    """What one district took in from sessions that were over by the run's last answer, in VND, told four times.

    `unbooked` is what the ledger does not have yet, `unreceipted` what it has and the receipts do not; `report` is None
    where the report holds other sessions too.
    """

    bills: int = 0
    report: int | None = None
    ledger: int = 0
    receipts: int = 0
    unbooked: int = 0
    unreceipted: int = 0


def compare(
    book: Book, connection: psycopg.Connection, since: datetime, now: int, reported: Mapping[str, int] | None
) -> dict[str, Income]:
    """Income by district; what differs goes to the book's verdict. `now` is the business instant of the snapshot,
    `reported` the service's own revenue report by district."""
    booked: dict[str, list[Booked]] = defaultdict(list)
    for row in connection.execute(_BOOKED, (since,)):
        booked[row[0]].append(Booked(*row[1:]))
    incomes = income(book, booked, now, reported)
    for district, found in sorted(incomes.items()):
        book.verdict.compared["districts in the ledger"] += 1
        _judge(book, district, found)
    _compare_wallets(book, connection, since, booked)
    return incomes


def income(
    book: Book, booked: Mapping[str, list[Booked]], now: int, reported: Mapping[str, int] | None
) -> dict[str, Income]:
    """The four sums of each district. Sessions that the auditor's list has no price for are in none of them."""
    slack = round(JOBS_SECONDS * book.header.clock.speed * 1e6)
    found: dict[str, Income] = {zone.district: Income() for zone in book.header.zones.values()}
    for session, bill in _bills(book):
        mine = found[book.zone(session.zone).district]
        mine.bills += bill
        if session.id not in booked:
            mine.unbooked += bill
            _check_unbooked(book, session, bill, now - slack)
        for entry in booked.get(session.id, ()):
            found.setdefault(entry.district or "", Income()).ledger += entry.amount
            if entry.receipt_amount is not None:
                found.setdefault(entry.receipt_district or "", Income()).receipts += entry.receipt_amount
                continue
            mine.unreceipted += entry.amount
            if _instant(entry.at) < now - slack:
                book.verdict.add("receipt", f"session {session.id}", f"no receipt for {entry.amount} VND")
    if reported is not None:
        for district, mine in found.items():
            mine.report = reported.get(district, 0)
    return found


def _bills(book: Book) -> Iterator[tuple[Session, int]]:
    """Every session that was over by the last answer, and what it costs by the auditor's own list."""
    for session in book.sessions.values():
        end = gone_at(book, session)
        bill = None if end is None or end >= book.settled else owed_until(book, session, end)
        if bill is not None:
            yield session, bill


def _check_unbooked(book: Book, session: Session, bill: int, latest: int) -> None:
    """A session may be over and not charged only while a late stop may still come, and the jobs need their time."""
    over_at = session.over_at if session.ended_at is None else session.ended_at
    waits = session.ended_at is None and over_at + LATE_STOP >= latest
    if bill and not waits:
        book.verdict.add("charge", f"session {session.id}", f"{bill} VND are not in the ledger")


def _judge(book: Book, district: str, found: Income) -> None:
    """The four sums agree, to the đồng."""
    about = f"district {district}"
    expect = book.verdict.expect
    expect("revenue", about, "the ledger's revenue and VAT", found.bills - found.unbooked, found.ledger)
    expect("revenue", about, "the sum of its receipts", found.ledger - found.unreceipted, found.receipts)
    if found.report is not None:
        expect("revenue", about, "the report's revenue", found.bills, found.report)


def _compare_wallets(
    book: Book, connection: psycopg.Connection, since: datetime, booked: Mapping[str, list[Booked]]
) -> None:
    """Each driver has what they were given but for what the auditor's own bills come to; what is put aside is for
    sessions that run."""
    left = _left(book, connection, since, booked)
    for owner, balance, held, owed, holds, idle in connection.execute(_WALLETS):
        about = f"the wallet of {owner}"
        book.verdict.compared["wallets"] += 1
        if owner in left:
            book.verdict.expect("wallet", about, "what is in it, less what is owed", left[owner], balance - owed)
        book.verdict.expect("wallet", about, "what is put aside", holds, held)
        book.verdict.expect("wallet", about, "money put aside for no running session", 0, idle)


def _left(
    book: Book, connection: psycopg.Connection, since: datetime, booked: Mapping[str, list[Booked]]
) -> dict[str, int]:
    """By owner: what the ledger gave them and sessions of before the run took, less the auditor's bills of this run."""
    left: dict[str, int] = defaultdict(int)
    for kind in ("wallet", "receivable"):
        for owner, given, parked in connection.execute(_GIVEN, (kind,)):
            before = sum(amount for session, amount in (parked or {}).items() if session not in book.sessions)
            left[owner] += (given or 0) + before
    for session_id, client in connection.execute(_CLIENTS, {"since": since}):
        session = book.sessions.get(session_id)
        if session is not None and session_id in booked:
            bill = _bill(book, session)
            left[client] -= sum(entry.amount for entry in booked[session_id]) if bill is None else bill
    return left


def _bill(book: Book, session: Session) -> int | None:
    end = gone_at(book, session)
    return None if end is None else owed_until(book, session, end)


def _instant(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def columns(found: Income | None) -> dict[str, Any]:
    """What a district's row shows of it."""
    return {name: None if found is None else getattr(found, name) for name in ("report", "ledger", "receipts")}

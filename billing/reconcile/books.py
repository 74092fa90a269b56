"""The comparison of a day, in one transaction: a list's lines and the ledger's bookings, joined by name."""

from collections.abc import Iterable
from datetime import date, datetime
from functools import cache
from importlib import resources
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg.rows import class_row

from billing import ledger
from billing.ledger import Posting
from billing.reconcile.days import least_id, span_of
from billing.reconcile.debits import name_debits
from billing.reconcile.kinds import UNEXPLAINED, Difference
from billing.reconcile.lists import List

# Sorting and hashing a day in memory; it may take longer than a request may, and wait for another run of a day to end.
# Of a day's lines a sample says enough.
_SETTINGS: tuple[LiteralString, ...] = (
    "SET LOCAL work_mem = '64MB'",
    "SET LOCAL statement_timeout = 0",
    "SET LOCAL lock_timeout = '60s'",
    "SET LOCAL default_statistics_target = 10",
)
_COPY = "COPY line FROM STDIN (FORMAT csv)"
_PAYOUTS = "SELECT name, amount FROM theirs WHERE booking = 'payout' AND is_today"
# What `payments` counts.
_COUNTED = ["payment", "transfer", "cash_start", "cash_payment", "withdrawal_paid"]


class Rail(NamedTuple):
    """How a gateway's list is compared: with which account (and kind of booking there), the methods of its payments,
    and its own queries among those of billing/sql/reconcile."""

    account: str
    methods: tuple[str, ...] = ()
    only: str | None = None
    told: str = "credits"
    booked: str = "booked"
    found: tuple[str, ...] = ("far", "ours", "sides", "found", "rows")


RAILS = {
    "stripe": Rail("clearing/stripe", ("card",)),
    "vietqr": Rail("clearing/vietqr", ("vietqr",)),
    "vnpay": Rail("clearing/vnpay", ("vnpay",)),
    "bank": Rail("bank", only="withdrawal_paid", told="bank_told",
                 found=("far", "ours", "sides", "bank_found", "bank_rows")),
    "cash": Rail("clearing/cash", ("cash",), told="cash_told", booked="cash_booked",
                 found=("ours", "sides", "cash_found", "rows", "cash_rows")),
}  # fmt: skip


def compare(connection: psycopg.Connection, day: date, listed: List, now: datetime) -> None:
    """Compare a day of a gateway's list with the ledger, and keep what was found. Talks to nobody."""
    rail, values = RAILS[listed.gateway], _values(day, listed, now)
    with connection.transaction():
        _set(connection)
        _load(connection, listed, values)
        _run(connection, ("theirs", rail.booked), values)
        connection.execute("ANALYZE theirs, booked")
        _run(connection, (*rail.found, "sums", "store", "gone"), values)
        _pay_out(connection, listed.gateway, connection.execute(_PAYOUTS).fetchall(), now)
    _settle_elsewhere(connection, values)


def _set(connection: psycopg.Connection) -> None:
    for statement in _SETTINGS:
        connection.execute(statement)


def _values(day: date, listed: List, now: datetime) -> dict[str, Any]:
    rail, span = RAILS[listed.gateway], span_of(day)
    return {
        "day": day, "gateway": listed.gateway, "source": listed.source, "now": now, "clearing": rail.account,
        "since": span.since, "until": span.until, "late_until": span.with_late().until,
        "list_since": listed.span.since, "list_until": listed.span.until,
        "least_id": least_id(span.since), "bound_id": least_id(span.until),
        "wide_least_id": least_id(listed.span.since), "wide_bound_id": least_id(listed.span.until),
        "methods": list(rail.methods), "only": rail.only, "counted": _COUNTED,
    }  # fmt: skip


def _run(connection: psycopg.Connection, names: Iterable[str], values: dict[str, Any]) -> None:
    for name in names:
        connection.execute(_query(name), values)


@cache
def _query(name: str) -> LiteralString:
    """The text of billing/sql/reconcile/<name>.sql."""
    file = resources.files("billing") / "sql" / "reconcile" / f"{name}.sql"
    return file.read_text(encoding="utf-8")


def _load(connection: psycopg.Connection, listed: List, values: dict[str, Any]) -> None:
    _run(connection, ("lines",), values)
    if listed.source in ("credits", "shifts"):
        _run(connection, (RAILS[listed.gateway].told,), values)
    else:
        with connection.cursor().copy(_COPY) as copy:
            for block in listed.blocks():
                copy.write(block)
    if listed.gateway == "bank" and listed.source == "file":
        name_debits(connection, listed.span)
    connection.execute("ANALYZE line")


def _pay_out(connection: psycopg.Connection, gateway: str, lines: Iterable[tuple[str, int]], now: datetime) -> None:
    """Book what the gateway sent to our bank (an amount below 0), or took back."""
    ledger.post(
        connection,
        [
            Posting("payout", name, now, {f"clearing/{gateway}": amount, "bank": -amount})
            for name, amount in lines
            if amount
        ],
    )


# Whoever changes differences holds the row of their day, and takes those in order.
_HOLD = """
SELECT FROM reconciliation r WHERE r.gateway = %(gateway)s AND r.day IN (SELECT day FROM settled)
 ORDER BY r.day FOR UPDATE"""
_SETTLE = """
UPDATE reconciliation_difference d SET state = 'explained', settled_at = %(now)s, error = NULL
  FROM settled s
 WHERE d.gateway = %(gateway)s AND d.state = 'open'
   AND (d.day, d.booking, d.reference) = (s.day, s.booking, s.reference)"""


def _settle_elsewhere(connection: psycopg.Connection, values: dict[str, Any]) -> None:
    """Explain what two days say of one movement, and what other days left open and is over by now."""
    with connection.transaction():
        _set(connection)
        _run(connection, ("settled",), values)
        connection.execute(_HOLD, values)
        connection.execute(_SETTLE, values)


def keep_file(connection: psycopg.Connection, day: date, gateway: str, now: datetime) -> bool:
    """Whether a day was compared with a file before, which says more than the credits that we were told of."""
    query = "UPDATE reconciliation SET compared_at = %s WHERE day = %s AND gateway = %s AND source = 'file'"
    return connection.execute(query, (now, day, gateway)).rowcount == 1


def open_differences(connection: psycopg.Connection, day: date, gateway: str, kinds: Iterable[str]) -> list[Difference]:
    """Those of these kinds that are open, oldest first."""
    return _read(
        connection, "day = %s AND gateway = %s AND state = 'open' AND kind = ANY(%s)", day, gateway, list(kinds)
    )


def all_differences(connection: psycopg.Connection, day: date) -> list[Difference]:
    """All of a day, by gateway and instant."""
    return _read(connection, "day = %s", day)


def _read(connection: psycopg.Connection, where: str, *values: Any) -> list[Difference]:
    cursor = connection.cursor(row_factory=class_row(Difference))
    columns = ", ".join(Difference._fields)
    query = f"SELECT {columns} FROM reconciliation_difference WHERE {where} ORDER BY gateway, at, booking, reference"
    return cursor.execute(query, values).fetchall()


def note(connection: psycopg.Connection, day: date, difference: Difference, now: datetime) -> None:
    """Keep what became of a difference that was open."""
    connection.execute(
        "UPDATE reconciliation_difference SET kind = %s, state = %s, error = %s, settled_at = %s "
        "WHERE (day, gateway, booking, reference) = (%s, %s, %s, %s) AND state = 'open'",
        (difference.kind, difference.state, difference.error, None if difference.state == "open" else now,
         day, difference.gateway, difference.booking, difference.reference),
    )  # fmt: skip


# --- what the gateway kept, and what lies at our bank already ---------------------------------------------------------
_DUE = """
SELECT r.fees, r.source = 'file', r.theirs - COALESCE(sum(d.theirs), 0)::bigint
  FROM (SELECT * FROM reconciliation WHERE day = %(day)s AND gateway = %(gateway)s FOR UPDATE) r
  LEFT JOIN reconciliation_difference d
    ON d.day = r.day AND d.gateway = r.gateway AND d.at >= %(since)s AND d.at < %(until)s
   AND d.state = 'open' AND d.kind <> 'payment_row'
 GROUP BY r.fees, r.source, r.theirs"""
# A day has few of these: found by their kind first, not among all entries of the account.
_BOOKED_BEFORE = """
WITH named AS MATERIALIZED (SELECT id FROM ledger_transaction WHERE kind = %s AND starts_with(reference, %s))
SELECT count(*), COALESCE(-sum(e.amount), 0)::bigint
  FROM named n JOIN ledger_entry e ON e.transaction_id = n.id
   AND e.account_id = (SELECT id FROM ledger_account WHERE code = %s)"""


def settle(connection: psycopg.Connection, day: date, gateway: str, now: datetime) -> None:
    """Book a day's fees; and what a bank's statement shows of transfers as money at our bank. A sum a day: what a later
    run finds besides is booked beside it."""
    span = span_of(day)
    values = {"day": day, "gateway": gateway, "since": span.since, "until": span.until}
    with connection.transaction():
        row = connection.execute(_DUE, values).fetchone()
        assert row is not None
        fees, is_file, at_bank = row
        _book_rest(connection, "fee", f"fee/{gateway}", day, gateway, fees, now)
        if gateway == "vietqr" and is_file:
            _book_rest(connection, "payout", "bank", day, gateway, at_bank, now)


def _book_rest(
    connection: psycopg.Connection, kind: str, account: str, day: date, gateway: str, due: int, now: datetime
) -> None:
    clearing, reference = f"clearing/{gateway}", f"{gateway}/{day}"
    row = connection.execute(_BOOKED_BEFORE, (kind, reference, clearing)).fetchone()
    assert row is not None
    times, before = row
    if rest := due - before:
        name = f"{reference}/{times + 1}" if times else reference
        ledger.post(connection, [Posting(kind, name, now, {clearing: -rest, account: rest})])


class Compared(NamedTuple):
    """A day of one gateway; VND."""

    gateway: str
    source: str
    payments: int
    theirs: int
    ours: int
    fees: int
    unexplained: int


_COMPARED = """
SELECT r.gateway, r.source, r.payments, r.theirs, r.ours, r.fees,
       (abs(r.residue) + COALESCE((SELECT sum(abs(d.amount)) FROM reconciliation_difference d
                                    WHERE d.day = r.day AND d.gateway = r.gateway AND d.state = 'open'
                                      AND d.kind = ANY (%s)), 0))::bigint
  FROM reconciliation r WHERE r.day = %s ORDER BY r.gateway"""


def compared(connection: psycopg.Connection, day: date) -> list[Compared]:
    """What was compared of a day, by gateway."""
    return [Compared(*row) for row in connection.execute(_COMPARED, (list(UNEXPLAINED), day))]

"""A month's reconciliation: a million payments over four rails, day by day, with one in some hundred out of order.

The payments are written straight into the tables, as the service would have left them, in October 2026. The bank's and
VNPay's lists are files; Stripe's is made up line by line in this process, for its network and its pages are not ours to
measure; attendants' shifts lie in the database, of which one a day is counted short. What is measured is all that
`./iparking reconcile` does on each of the 31 days, lists read included.
"""

import csv
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from app.database import upgrade
from app.stack import Stack
from bench.errors import BenchError
from billing.gateways import Entry, Movement
from billing.reconcile import lists, reconcile
from billing.reconcile.days import HANOI, span_of

Say = Callable[[str], None]
PAYMENTS = 1_000_000
DATABASE = "bench_reconcile"
FIRST, DAYS = date(2026, 10, 1), 31
NOW = datetime(2026, 11, 3, 4, tzinfo=HANOI)
CLIENTS = 20_000
ATTENDANTS, SHORT = 100, 1_000
# Of each ten payments: four by card, three transfers, two at VNPay, one in cash.
RAILS = ("stripe", "stripe", "vietqr", "vietqr", "vnpay", "stripe", "stripe", "vietqr", "vnpay", "cash")
# Of each thousand a card charge that we did not hear of, one that Stripe does not know, a transfer of nobody.
THOUSAND, LOST, UNKNOWN, OF_NOBODY = 1_000, 10, 5, 2
FAULTS = ("missing_at_us", "missing_at_gateway", "unmatched_credit")
COUNTS = ("payments", "differences", "healed", "unexplained")
BOOKED_AFTER = timedelta(seconds=3)

_ACCOUNTS = """
INSERT INTO ledger_account (code)
SELECT 'clearing/' || g FROM unnest('{stripe,vietqr,vnpay,cash}'::text[]) g
UNION ALL SELECT 'cash_difference'
UNION ALL SELECT 'float/attendant-' || n FROM generate_series(0, %(attendants)s - 1) n
UNION ALL SELECT 'receivable/driver-' || n FROM generate_series(0, %(clients)s - 1) n"""
_MADE = """
CREATE UNLOGGED TABLE made AS
SELECT n, m.at, (10 + n %% 90) * 1000 AS amount, 'driver-' || n %% %(clients)s AS client,
       'attendant-' || n / 10 %% %(attendants)s AS attendant, (%(rails)s::text[])[n %% 10 + 1] AS gateway,
       n %% 1000 = %(lost)s AS is_lost, n %% 1000 NOT IN (%(lost)s, %(of_nobody)s) AS is_known,
       uuid_of(m.at) AS payment, uuid_of(m.at + %(after)s::interval) AS id
  FROM generate_series(0, %(payments)s - 1) n
 CROSS JOIN LATERAL (SELECT %(since)s::timestamptz + n * %(step)s::interval AS at) m"""
_PAYMENT = """
INSERT INTO payment (id, client, purpose, session_id, method, amount, paid, state, reference, gateway_reference,
                     created_at, settled_at)
SELECT payment, client, CASE gateway WHEN 'cash' THEN 'session' ELSE 'arrears' END,
       CASE gateway WHEN 'cash' THEN payment END, CASE gateway WHEN 'stripe' THEN 'card' ELSE gateway END, amount,
       CASE WHEN is_known THEN amount END,
       CASE WHEN is_lost THEN 'unknown' WHEN is_known THEN 'paid' ELSE 'created' END, 'pay-' || n,
       CASE WHEN gateway = 'stripe' AND is_known THEN 'pi-' || n END, at, CASE WHEN is_known THEN at END
  FROM made"""
_CREDIT = """
INSERT INTO credit (gateway, transaction_id, amount, at, description, received_at, payment_id, client)
SELECT gateway, 'FT' || n, amount, at, 'pay-' || n, at, payment, client
  FROM made WHERE gateway IN ('vietqr', 'vnpay') AND is_known"""
_TRANSACTION = """
INSERT INTO ledger_transaction (id, kind, reference, at)
SELECT id, CASE gateway WHEN 'stripe' THEN 'payment' WHEN 'cash' THEN 'cash' ELSE 'transfer' END,
       CASE WHEN gateway IN ('stripe', 'cash') THEN 'pay-' || n ELSE gateway || '/FT' || n END, at + %(after)s::interval
  FROM made WHERE is_known"""
_ENTRY = """
INSERT INTO ledger_entry (transaction_id, account_id, amount)
SELECT m.id, a.id, e.amount
  FROM made m
 CROSS JOIN LATERAL (
       VALUES (CASE m.gateway WHEN 'cash' THEN 'float/' || m.attendant ELSE 'clearing/' || m.gateway END, m.amount),
              ('receivable/' || m.client, -m.amount)) e(code, amount)
  JOIN ledger_account a ON a.code = e.code
 WHERE m.is_known"""
# Each attendant has a shift a day, from the Hanoi midnight to the next.
_SHIFT = """
INSERT INTO shift (id, attendant, opened_at, opening, closed_at, counted, expected)
SELECT uuid_of(s.opened_at), s.attendant, s.opened_at, 0, s.opened_at + interval '24 hours - 1 second',
       s.cash - CASE s.attendant WHEN 'attendant-0' THEN %(short)s ELSE 0 END, s.cash
  FROM (SELECT attendant, date_trunc('day', at + %(after)s::interval, 'Asia/Ho_Chi_Minh') AS opened_at,
               sum(amount) AS cash
          FROM made WHERE gateway = 'cash' GROUP BY 1, 2) s"""
_MOVEMENT = """
INSERT INTO cash_movement (shift_id, kind, session_id, amount, at)
SELECT s.id, 'payment', m.payment, m.amount, m.at + %(after)s::interval
  FROM made m JOIN shift s ON s.attendant = m.attendant
   AND s.opened_at = date_trunc('day', m.at + %(after)s::interval, 'Asia/Ho_Chi_Minh')
 WHERE m.gateway = 'cash' ORDER BY m.n"""
_COUNT = """
INSERT INTO ledger_transaction (id, kind, reference, at)
SELECT uuid_of(closed_at), 'cash_shift', id::text, closed_at FROM shift WHERE counted <> expected"""
_COUNT_ENTRY = """
INSERT INTO ledger_entry (transaction_id, account_id, amount)
SELECT t.id, a.id, CASE a.code WHEN 'clearing/cash' THEN -%(short)s ELSE %(short)s END
  FROM ledger_transaction t JOIN ledger_account a ON a.code IN ('clearing/cash', 'cash_difference')
 WHERE t.kind = 'cash_shift'"""
_TABLES = (_PAYMENT, _CREDIT, _TRANSACTION, _ENTRY, _SHIFT, _MOVEMENT, _COUNT, _COUNT_ENTRY)


@dataclass(frozen=True, slots=True)
class Month:
    """So many payments, evenly over the month; those of a rail are found by arithmetic."""

    payments: int

    @property
    def step(self) -> timedelta:
        """From one payment to the next."""
        return timedelta(days=DAYS) / self.payments

    def at(self, n: int) -> datetime:
        """When payment n was made."""
        return span_of(FIRST).since + n * self.step

    def between(self, since: datetime, until: datetime, rail: str) -> Iterator[int]:
        """The payments of a rail in a span."""
        start = span_of(FIRST).since
        first, last = (max(-((start - bound) // self.step), 0) for bound in (since, until))
        return (n for n in range(first, min(last, self.payments)) if RAILS[n % 10] == rail)

    def write_files(self, folder: Path, day: date) -> tuple[Path, Path]:
        """The bank's statement of a day, and VNPay's list."""
        span = span_of(day)
        bank, vnpay = folder / f"bank-{day}.csv", folder / f"vnpay-{day}.csv"
        with bank.open("w", newline="") as file:
            csv.writer(file).writerow(["transaction_id", "at", "debit", "credit", "description"])
            credits = ((f"FT{n}", _local(self.at(n)), "", amount(n), f"pay-{n}") for n in self.between(*span, "vietqr"))
            csv.writer(file).writerows(credits)
        with vnpay.open("w", newline="") as file:
            csv.writer(file).writerow(["transaction_id", "reference", "at", "amount", "fee", "status"])
            sales = (
                (f"FT{n}", f"pay-{n}", _local(self.at(n)), amount(n), 100, "00") for n in self.between(*span, "vnpay")
            )
            csv.writer(file).writerows(sales)
        return bank, vnpay


def amount(n: int) -> int:
    """VND of payment n."""
    return (10 + n % 90) * 1000


def _local(at: datetime) -> str:
    return at.astimezone(HANOI).strftime("%d/%m/%Y %H:%M:%S")


class Listed:
    """As much of a card gateway as a reconciliation asks, out of the month."""

    def __init__(self, month: Month) -> None:
        self._month = month

    def entries(self, since: datetime, until: datetime) -> Iterator[Entry]:
        """See CardGateway."""
        for n in self._month.between(since, until, "stripe"):
            if n % THOUSAND != UNKNOWN:
                value, at = amount(n), self._month.at(n)
                yield Entry(f"txn-{n}", "charge", value, value // 30, at, f"ch-{n}", f"pi-{n}", f"pay-{n}")

    def find(self, gateway_reference: str) -> Movement:
        """See CardGateway."""
        n = int(gateway_reference.removeprefix("pi-"))
        return Movement(gateway_reference, "paid", amount(n), paid=amount(n), reference=f"pay-{n}")


def measure_month(stack: Stack, say: Say, payments: int = PAYMENTS) -> dict[str, Any]:
    """Make the payments in a database of their own, and reconcile the month twice: with what is out of order, and when
    all of it is healed or listed. Seconds, and this process's memory. Raises BenchError where the outcome is wrong."""
    url = stack.create_database(DATABASE, fresh=True)
    upgrade(url)
    month = Month(payments)
    began = time.monotonic()
    with psycopg.connect(stack.admin_url(), dbname=DATABASE, autocommit=True) as superuser:
        make(superuser, month)
    say(f"{payments:,} payments made in {time.monotonic() - began:.0f} s")
    with psycopg.connect(url, autocommit=True, options="-c timezone=UTC -c jit=off") as connection:
        first = _reconcile(connection, month, say)
        again = _reconcile(connection, month, say)
    if any(first[name] != again[name] for name in COUNTS):
        raise BenchError("the second run of the month found other things than the first")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return first | {"again_seconds": again["seconds"], "peak_mb": peak}


def make(connection: psycopg.Connection, month: Month) -> None:
    """Write the payments, and all that is booked of them."""
    values = {
        "since": span_of(FIRST).since, "step": month.step, "payments": month.payments, "clients": CLIENTS,
        "lost": LOST, "of_nobody": OF_NOBODY, "after": BOOKED_AFTER, "rails": list(RAILS),
        "attendants": ATTENDANTS, "short": SHORT,
    }  # fmt: skip
    with connection.transaction():
        connection.execute("SET LOCAL synchronous_commit = off")
        connection.execute(_ACCOUNTS, values)
        # Rows that balance by construction: the triggers that see to it are a superuser's to switch off.
        connection.execute("SET LOCAL session_replication_role = replica")
        for query in (_MADE, *_TABLES):
            connection.execute(query, values)
    connection.execute("DROP TABLE made")
    connection.execute(
        "VACUUM (ANALYZE) payment, credit, ledger_transaction, ledger_entry, ledger_account, shift, cash_movement"
    )


def _reconcile(connection: psycopg.Connection, month: Month, say: Say) -> dict[str, Any]:
    """One run over all days: what was found, and the seconds that it took."""
    sums, kinds = dict.fromkeys(COUNTS, 0), dict.fromkeys(FAULTS, 0)
    took: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for n in range(DAYS):
            day = FIRST + timedelta(days=n)
            files = month.write_files(Path(folder), day)
            began = time.monotonic()
            found = _day(connection, month, day, *files)
            took.append(time.monotonic() - began)
            sums = {name: sums[name] + found[name] for name in sums}
            kinds = {kind: kinds[kind] + found["kinds"].get(kind, {"count": 0})["count"] for kind in kinds}
    say(f"{sums['payments']:,} payments reconciled in {sum(took):.1f} s: {sums['differences']:,} differences")
    if sums["unexplained"] or any(count != month.payments // THOUSAND for count in kinds.values()):
        raise BenchError(f"{sums['unexplained']} VND unexplained; not one of each fault in a thousand: {kinds}")
    return sums | {"seconds": round(sum(took), 1), "slowest_day_seconds": round(max(took), 2)}


def _day(connection: psycopg.Connection, month: Month, day: date, bank: Path, vnpay: Path) -> dict[str, Any]:
    cards: Any = Listed(month)
    with ExitStack() as stack:
        read = [
            lists.of_cards(cards, "stripe", day, NOW), *lists.of_statement(bank, day), lists.of_vnpay(vnpay, day),
            lists.of_shifts(day),
        ]  # fmt: skip
        for one in read:
            stack.enter_context(one)
        return reconcile(connection, day, read, cards, NOW).as_dict()

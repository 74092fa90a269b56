"""Wallets: the lines that explain a balance, what is owed and for which sessions, and how it is paid out of the wallet.

Whoever moves money that depends on what a wallet holds or owes locks its row first, and wallets in the order of their
owners and kinds; the ledger's own trigger takes them in the same order.
"""

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import class_row

from billing import ledger
from billing.ledger import RECEIVABLE, WALLET, Posting, Wallet

FLOAT = "float/"
# What is booked because of another booking stands behind it in the order of time, which is to the millisecond.
NEXT = timedelta(milliseconds=1)


class Line(NamedTuple):
    """One booking of a wallet, in VND as its owner sees it: `amount` came in (below 0: out), `balance` was then there.

    `reference` names what it was for; `session_id` is the session where it was for one. `reverses` is the booking that
    this one takes back, `reversed_by` the one that took this one back.
    """

    id: UUID
    kind: str
    at: datetime
    reference: str
    session_id: UUID | None
    reverses: UUID | None
    reversed_by: UUID | None
    amount: int
    balance: int


class Debt(NamedTuple):
    """What is still owed for a session (None: for something else), in VND, and since when."""

    session_id: UUID | None
    amount: int
    since: datetime | None


_UUID = "'^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'"
# A balance is the sum of all lines up to its own: of those before the page, and then one by one.
_LINES = f"""
WITH account AS (
    SELECT id FROM ledger_account WHERE code = %(code)s
), page AS (
    SELECT e.transaction_id, -e.amount AS amount FROM ledger_entry e
     WHERE e.account_id = (SELECT id FROM account)
       AND (%(before)s::uuid IS NULL OR e.transaction_id < %(before)s::uuid)
     ORDER BY e.transaction_id DESC LIMIT %(limit)s
), earlier AS (
    SELECT COALESCE(-sum(e.amount), 0) AS balance FROM ledger_entry e
     WHERE e.account_id = (SELECT id FROM account)
       AND e.transaction_id < (SELECT transaction_id FROM page ORDER BY transaction_id LIMIT 1)
)
SELECT t.id, t.kind, t.at, t.reference,
       CASE WHEN n.name ~ {_UUID} AND COALESCE(o.kind, t.kind) IN ('parking', 'refund', 'refund_to_wallet', 'void')
            THEN n.name::uuid
            ELSE (SELECT p.session_id FROM payment p WHERE p.reference = t.reference) END AS session_id,
       t.reverses, r.id AS reversed_by, p.amount,
       (earlier.balance + sum(p.amount) OVER (ORDER BY p.transaction_id))::bigint AS balance
  FROM page p
 CROSS JOIN earlier
  JOIN ledger_transaction t ON t.id = p.transaction_id
  LEFT JOIN ledger_transaction o ON o.id = t.reverses
  LEFT JOIN ledger_transaction r ON r.reverses = t.id
 CROSS JOIN LATERAL (SELECT split_part(COALESCE(o.reference, t.reference), '/', 1)) n(name)
 ORDER BY p.transaction_id DESC
"""


def lines(connection: psycopg.Connection, owner: str, before: UUID | None, limit: int) -> list[Line]:
    """The bookings of a driver's wallet, newest first, at most `limit`, older than `before` (the last id seen)."""
    with connection.cursor(row_factory=class_row(Line)) as cursor:
        return cursor.execute(_LINES, {"code": WALLET + owner, "before": before, "limit": limit}).fetchall()


def debts(connection: psycopg.Connection, owner: str, owed: int) -> list[Debt]:
    """For what a driver owes `owed` VND in all, oldest first. Its sum is `owed`."""
    if owed <= 0:
        return []
    with connection.cursor(row_factory=class_row(Debt)) as cursor:
        found = cursor.execute("SELECT session_id, amount, since FROM debts_of(%s, %s)", (owner, owed)).fetchall()
    rest = owed - sum(debt.amount for debt in found)
    return [*found, *([Debt(None, rest, None)] if rest else [])]


def owed_for(connection: psycopg.Connection, owner: str, session_id: UUID, owed: int) -> int:
    """What of `owed` is for one session."""
    return sum(debt.amount for debt in debts(connection, owner, owed) if debt.session_id == session_id)


_LOCK = """
SELECT owner, kind, balance, held, owed FROM wallet WHERE owner = ANY(%s) AND kind = ANY(%s)
 ORDER BY owner, kind FOR NO KEY UPDATE
"""


def lock(connection: psycopg.Connection, *codes: str) -> list[Wallet]:
    """What is in wallets and floats (`wallet/<owner>`, `float/<owner>`), which nobody else moves before the caller's
    transaction ends. Those in which nothing was ever booked are empty, and not locked."""
    wanted = [code.split("/", 1) for code in codes]
    rows = connection.execute(_LOCK, ([owner for _, owner in wanted], [kind for kind, _ in wanted])).fetchall()
    found = {f"{kind}/{owner}": Wallet(*has) for owner, kind, *has in rows}
    return [found.get(code, Wallet()) for code in codes]


def settle_owed(connection: psycopg.Connection, owner: str, at: datetime, most: int | None = None) -> int:
    """Pay what a driver owes out of what is free in the wallet, oldest first, as one transaction of kind `arrears`.

    Whoever puts money into a wallet calls it behind that, in the same transaction, with `most` as what came in: that
    first pays what is owed, and what was there before is left to its owner, who may mean to pay in another way. Gives
    the VND paid; 0 where nothing is owed, or nothing is free.
    """
    with connection.transaction():
        (has,) = lock(connection, WALLET + owner)
        amount = min(max(has.available, 0), has.owed, has.owed if most is None else most)
        if amount <= 0:
            return 0
        entries = {WALLET + owner: amount, RECEIVABLE + owner: -amount}
        ledger.post(connection, [Posting("arrears", str(uuid4()), at + NEXT, entries)])
    return amount

"""The ledger: double entry in integer VND, and it only grows.

A transaction is a set of entries that sum to zero (debit positive, credit negative); the database refuses one that is
not, and every change of what was booked. A kind and a reference name a transaction, so that nothing is booked twice:
who is in doubt books again. A correction is a reversal, which points to what it reverses.

Accounts are named by their kind and whose they are: wallet/driver-1, receivable/driver-1, clearing/stripe,
revenue/002/iparking, vat. What a person's wallet holds is a credit, so it is shown with the sign turned.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

from billing.errors import InsufficientFunds, LedgerConflict, OwesTooMuch, UnknownTransaction

WALLET = "wallet/"
RECEIVABLE = "receivable/"


@dataclass(frozen=True, slots=True)
class Posting:
    """A transaction to be booked: VND by account code, summing to zero. `reverses` is what it corrects."""

    kind: str
    reference: str
    at: datetime
    entries: Mapping[str, int]
    reverses: UUID | None = None


@dataclass(frozen=True, slots=True)
class Wallet:
    """What a driver has, in VND: `held` of it is put aside for running sessions; `owed` is what was never paid."""

    balance: int = 0
    held: int = 0
    owed: int = 0

    @property
    def available(self) -> int:
        """What may be spent now."""
        return self.balance - self.held


_POST = "SELECT position, id FROM post_entries(%s, %s, %s::timestamptz[], %s::uuid[], %s, %s, %s)"


def post(connection: psycopg.Connection, postings: Sequence[Posting]) -> list[UUID]:
    """Book transactions, all or none; their ids, also of those that were booked before.

    Raises LedgerConflict where something else was booked under a posting's kind and reference, or what it reverses was
    reversed before; CheckViolation where one does not balance (by the end of the caller's transaction, if there is
    one) or a wallet would be overdrawn.
    """
    if not postings:
        return []
    with connection.transaction() if len(postings) > 1 else nullcontext():
        booked = connection.execute(_POST, _arguments(postings))
        ids: dict[int, UUID] = dict(booked.fetchall())
        return [ids.get(n) or _booked_before(connection, one) for n, one in enumerate(postings, 1)]


def _arguments(postings: Sequence[Posting]) -> tuple[list[Any], ...]:
    entries = [(n, code, amount) for n, one in enumerate(postings, 1) for code, amount in one.entries.items() if amount]
    return (
        [one.kind for one in postings],
        [one.reference for one in postings],
        [one.at for one in postings],
        [one.reverses for one in postings],
        [n for n, _, _ in entries],
        [code for _, code, _ in entries],
        [amount for _, _, amount in entries],
    )


def open_accounts(connection: psycopg.Connection, *codes: str) -> None:
    """Open those accounts that are not open yet: for who locks wallets before he books, since accounts come first."""
    connection.execute("SELECT open_accounts(%s)", (list(codes),))


_BOOKED = """
SELECT t.id, t.reverses, json_object_agg(a.code, e.amount)
  FROM ledger_transaction t JOIN ledger_entry e ON e.transaction_id = t.id JOIN ledger_account a ON a.id = e.account_id
 WHERE t.kind = %s AND t.reference = %s GROUP BY t.id
"""


def _booked_before(connection: psycopg.Connection, posting: Posting) -> UUID:
    row = connection.execute(_BOOKED, (posting.kind, posting.reference)).fetchone()
    wanted = {code: amount for code, amount in posting.entries.items() if amount}
    if row is None or (row[1], row[2]) != (posting.reverses, wanted):
        raise LedgerConflict(
            f"{posting.kind} {posting.reference} was booked before with other entries, or reverses what is reversed"
        )
    return UUID(str(row[0]))


def find(connection: psycopg.Connection, kind: str, reference: str) -> UUID | None:
    """The id of what was booked under a kind and a reference; None where nothing was."""
    query = "SELECT id FROM ledger_transaction WHERE kind = %s AND reference = %s"
    row = connection.execute(query, (kind, reference)).fetchone()
    return row[0] if row else None


def reverse(connection: psycopg.Connection, transaction_id: UUID, reference: str, at: datetime) -> UUID:
    """Book the opposite of a transaction; the id of the reversal. A transaction is reversed once.

    Raises UnknownTransaction, LedgerConflict, CheckViolation.
    """
    rows = connection.execute(
        "SELECT a.code, e.amount FROM ledger_entry e JOIN ledger_account a ON a.id = e.account_id "
        "WHERE e.transaction_id = %s",
        (transaction_id,),
    ).fetchall()
    if not rows:
        raise UnknownTransaction(f"no ledger transaction {transaction_id}")
    opposite = {code: -amount for code, amount in rows}
    return post(connection, [Posting("reversal", reference, at, opposite, transaction_id)])[0]


_BALANCE = """
SELECT COALESCE(sum(e.amount), 0)::bigint FROM ledger_account a JOIN ledger_entry e ON e.account_id = a.id
 WHERE a.code = %(code)s AND (%(at)s::timestamptz IS NULL OR EXISTS (
       SELECT FROM ledger_transaction t WHERE t.id = e.transaction_id AND t.at <= %(at)s::timestamptz))
"""


def balance(connection: psycopg.Connection, code: str, at: datetime | None = None) -> int:
    """The sum of an account's entries in VND (debit positive): all, or those booked by an instant (inclusive)."""
    row = connection.execute(_BALANCE, {"code": code, "at": at}).fetchone()
    assert row is not None
    return int(row[0])


def wallet(connection: psycopg.Connection, owner: str) -> Wallet:
    """What a driver has; nothing, where nothing was ever booked for them."""
    row = connection.execute(
        "SELECT balance, held, owed FROM wallet WHERE owner = %s AND kind = 'wallet'", (owner,)
    ).fetchone()
    return Wallet(*row) if row else Wallet()


class Hold(NamedTuple):
    """What is to be put aside in a driver's wallet for a session, in VND in all, and until when it stands at most."""

    session_id: UUID
    owner: str
    amount: int
    expires_at: datetime


def raise_hold(connection: psycopg.Connection, hold: Hold, at: datetime, owed_limit: int) -> None:
    """Put more aside for a running session, or the first money for one that began free.

    Raises InsufficientFunds where the wallet lacks it; for the first money OwesTooMuch, as at a start.
    """
    try:
        with connection.transaction():
            connection.execute("SELECT raise_hold(%s, %s, %s, %s, %s, %s)", (*hold, at, owed_limit))
    except psycopg.errors.CheckViolation as error:
        if error.diag.constraint_name == "owed_within_limit":
            raise OwesTooMuch("too much is owed from earlier sessions: pay that first") from None
        if error.diag.constraint_name not in ("wallet_not_overdrawn", "wallet_covers_hold"):
            raise
        raise InsufficientFunds("the wallet does not cover the longer stay: top it up") from None


def expire_holds(connection: psycopg.Connection, now: datetime, limit: int) -> int:
    """Give back what was put aside for longer than any session may last, in at most `limit` wallets; the number of
    holds. A float's holds stay until their sessions end: the cash was taken.
    """
    row = connection.execute("SELECT expire_holds(%s, %s)", (now, limit)).fetchone()
    assert row is not None
    return int(row[0])


def fund(connection: psycopg.Connection, owners: Sequence[str], amount: int, at: datetime) -> None:
    """Give test money to wallets, once each. Never in production."""
    post(connection, [Posting("funding", one, at, {"funding": amount, WALLET + one: -amount}) for one in owners])

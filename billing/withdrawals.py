"""Withdrawals: wallet money that goes to a driver's own bank account.

A request takes the money out of the wallet at once (debit wallet, credit clearing/bank); an operator makes the transfer
and says so (debit clearing/bank, credit bank), or rejects it, which puts the money back.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from billing import ledger, wallets
from billing.errors import AlreadyDecided, InsufficientFunds, UnknownWithdrawal
from billing.ledger import WALLET, Posting

STATES = ("requested", "paid", "rejected")
CLEARING, BANK = "clearing/bank", "bank"


class BankAccount(NamedTuple):
    """Where money goes: the bank by its NAPAS number, the account, and whose it is."""

    bank_bin: str
    account_number: str
    account_holder: str


class Withdrawal(NamedTuple):
    """A withdrawal as it stands; VND."""

    id: UUID
    client: str
    amount: int
    bank_bin: str
    account_number: str
    account_holder: str
    state: str
    bank_reference: str | None
    requested_at: datetime
    decided_at: datetime | None


_COLUMNS = ", ".join(Withdrawal._fields)


def request(connection: psycopg.Connection, client: str, amount: int, to: BankAccount, at: datetime) -> Withdrawal:
    """Take money out of a wallet. What is owed is paid first. Raises InsufficientFunds for more than is free then."""
    with connection.transaction():
        wallets.settle_owed(connection, client, at)
        (has,) = wallets.lock(connection, WALLET + client)
        if amount > has.available:
            raise InsufficientFunds(f"{has.available} VND can be withdrawn; the rest is put aside, or was owed")
        made = _one(
            connection,
            "INSERT INTO withdrawal (id, client, amount, bank_bin, account_number, account_holder, requested_at) "
            f"VALUES (uuid_of(%s), %s, %s, %s, %s, %s, %s) RETURNING {_COLUMNS}",
            (at, client, amount, *to, at),
        )
        entries = {WALLET + client: amount, CLEARING: -amount}
        ledger.post(connection, [Posting("withdrawal", str(made.id), at + 2 * wallets.NEXT, entries)])
    return made


def _one(connection: psycopg.Connection, query: str, values: Sequence[object]) -> Withdrawal:
    with connection.cursor(row_factory=class_row(Withdrawal)) as cursor:
        row = cursor.execute(query, values).fetchone()
    if row is None:
        raise UnknownWithdrawal("no such withdrawal")
    return row


def pay(connection: psycopg.Connection, withdrawal_id: UUID, bank_reference: str, at: datetime) -> Withdrawal:
    """Note that the bank made the transfer. Raises UnknownWithdrawal, AlreadyDecided."""
    with connection.transaction():
        found = _undecided(connection, withdrawal_id)
        entries = {CLEARING: found.amount, BANK: -found.amount}
        ledger.post(connection, [Posting("withdrawal_paid", str(found.id), at, entries)])
        return _decide(connection, found.id, "paid", bank_reference, at)


def reject(connection: psycopg.Connection, withdrawal_id: UUID, at: datetime) -> Withdrawal:
    """Put the money back into the wallet, where it first pays what is owed.

    Raises UnknownWithdrawal, AlreadyDecided.
    """
    with connection.transaction():
        found = _undecided(connection, withdrawal_id)
        entries = {CLEARING: found.amount, WALLET + found.client: -found.amount}
        ledger.post(connection, [Posting("withdrawal_rejected", str(found.id), at, entries)])
        wallets.settle_owed(connection, found.client, at, found.amount)
        return _decide(connection, found.id, "rejected", None, at)


def _undecided(connection: psycopg.Connection, withdrawal_id: UUID) -> Withdrawal:
    found = _one(connection, f"SELECT {_COLUMNS} FROM withdrawal WHERE id = %s FOR UPDATE", (withdrawal_id,))
    if found.state != "requested":
        raise AlreadyDecided(f"the withdrawal is {found.state}")
    return found


def _decide(
    connection: psycopg.Connection, withdrawal_id: UUID, state: str, bank_reference: str | None, at: datetime
) -> Withdrawal:
    query = "UPDATE withdrawal SET state = %s, bank_reference = %s, decided_at = %s WHERE id = %s"
    return _one(connection, f"{query} RETURNING {_COLUMNS}", (state, bank_reference, at, withdrawal_id))


_LIST = f"""
SELECT {_COLUMNS} FROM withdrawal
 WHERE (%(client)s::text IS NULL OR client = %(client)s::text)
   AND (%(state)s::text IS NULL OR state = %(state)s::text)
   AND (%(before)s::uuid IS NULL OR id < %(before)s::uuid)
 ORDER BY id DESC LIMIT %(limit)s
"""


def find_all(
    connection: psycopg.Connection, client: str | None, state: str | None, before: UUID | None, limit: int
) -> list[Withdrawal]:
    """Withdrawals of a client or (None) of all, newest first, at most `limit`, older than `before`."""
    values = {"client": client, "state": state, "before": before, "limit": limit}
    with connection.cursor(row_factory=class_row(Withdrawal)) as cursor:
        return cursor.execute(_LIST, values).fetchall()


_WAITING = f"""
SELECT {_COLUMNS} FROM withdrawal WHERE decided_at >= %(since)s AND requested_at < %(until)s
UNION ALL
SELECT {_COLUMNS} FROM withdrawal WHERE state = 'requested' AND requested_at < %(until)s
 ORDER BY id
"""


def waiting(connection: psycopg.Connection, since: datetime, until: datetime) -> list[Withdrawal]:
    """What waited to be paid at some time of a span, whatever was decided since."""
    with connection.cursor(row_factory=class_row(Withdrawal)) as cursor:
        return cursor.execute(_WAITING, {"since": since, "until": until}).fetchall()

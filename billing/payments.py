"""Payments: money on its way from a driver, at a gateway or in an attendant's hand, and what the ledger learns of it.

A payment moves forward only, so that answers, webhooks and jobs may come in any order and twice: who comes late changes
nothing. That the money came (`paid`) wins over all else, since a gateway says so only when it has it.

    created ─┬─> requires_action ─┬─> authorized ─┬─> paid <── failed, expired, void (it came after all)
             └─> unknown ─────────┴───────────────┴─> failed, expired, void
"""

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import psycopg

from billing import ledger, wallets
from billing.errors import LedgerConflict, UnknownPayment
from billing.ledger import Posting

OPEN = ("created", "unknown", "requires_action", "authorized")
# From which states a payment may come into another.
_BEFORE = {
    "unknown": ("created",),
    "requires_action": ("created", "unknown"),
    "authorized": ("created", "unknown", "requires_action"),
    "failed": ("created", "unknown", "requires_action"),
    "expired": OPEN,
    "void": OPEN,
}


class Payment(NamedTuple):
    """A payment as the database has it; VND."""

    id: UUID
    client: str
    purpose: str  # session, topup, arrears
    session_id: UUID | None
    method: str
    amount: int  # asked for, or held
    paid: int | None  # what came, or was captured
    state: str
    reference: str  # ours
    gateway_reference: str | None
    failure: str | None  # the gateway's code of a decline
    created_at: datetime
    expires_at: datetime | None
    settled_at: datetime | None


class New(NamedTuple):
    """A payment to be made."""

    id: UUID
    client: str
    purpose: str
    session_id: UUID | None
    method: str
    amount: int
    reference: str
    created_at: datetime
    expires_at: datetime | None = None


COLUMNS = ", ".join(Payment._fields)


def new_id(at: datetime) -> UUID:
    """A UUIDv7 (RFC 9562): the payments of a day lie together."""
    milliseconds, noise = int(at.timestamp() * 1000), secrets.randbits(74)
    return UUID(int=milliseconds << 80 | 7 << 76 | noise >> 62 << 64 | 2 << 62 | noise & (1 << 62) - 1)


def create(connection: psycopg.Connection, news: Sequence[New]) -> None:
    """Write payments down before their gateways hear of them. Those that are there already are left alone."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO payment (id, client, purpose, session_id, method, amount, reference, created_at, expires_at, "
            "state) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, 'created') ON CONFLICT DO NOTHING",
            news,
        )


def find(connection: psycopg.Connection, payment_id: UUID) -> Payment:
    """A payment. Raises UnknownPayment."""
    return _one(connection, "id", payment_id)


def find_by_reference(connection: psycopg.Connection, reference: str) -> Payment:
    """The payment with our reference. Raises UnknownPayment."""
    return _one(connection, "reference", reference)


def find_at_gateway(connection: psycopg.Connection, gateway_reference: str) -> Payment:
    """The payment that its gateway knows by this name. Raises UnknownPayment."""
    return _one(connection, "gateway_reference", gateway_reference)


def _one(connection: psycopg.Connection, column: str, value: object) -> Payment:
    row = connection.execute(f"SELECT {COLUMNS} FROM payment WHERE {column} = %s", (value,)).fetchone()
    if row is None:
        raise UnknownPayment(f"no payment {value}")
    return Payment(*row)


def lock(connection: psycopg.Connection, payment_id: UUID) -> Payment:
    """A payment that nobody else moves before the caller's transaction ends. Raises UnknownPayment."""
    row = connection.execute(f"SELECT {COLUMNS} FROM payment WHERE id = %s FOR UPDATE", (payment_id,)).fetchone()
    if row is None:
        raise UnknownPayment(f"no payment {payment_id}")
    return Payment(*row)


def of_session(connection: psycopg.Connection, session_id: UUID) -> list[Payment]:
    """The payments made for a session, oldest first."""
    query = f"SELECT {COLUMNS} FROM payment WHERE session_id = %s ORDER BY created_at, id"
    return [Payment(*row) for row in connection.execute(query, (session_id,))]


def move(
    connection: psycopg.Connection,
    payment: Payment,
    state: str,
    at: datetime,
    *,
    gateway_reference: str | None = None,
    failure: str | None = None,
) -> bool:
    """Let a payment come into a state other than paid; False where it was there, or past it, before."""
    settled_at = None if state in OPEN else at
    moved = connection.execute(
        "UPDATE payment SET state = %s, settled_at = %s, failure = COALESCE(%s, failure), "
        "gateway_reference = COALESCE(%s, gateway_reference) WHERE id = %s AND state = ANY(%s)",
        (state, settled_at, failure, gateway_reference, payment.id, list(_BEFORE[state])),
    )
    return moved.rowcount == 1


def pay(
    connection: psycopg.Connection,
    payment: Payment,
    amount: int,
    gateway: str,
    at: datetime,
    gateway_reference: str | None = None,
) -> bool:
    """The money came: note and book it, in one transaction. False where that was done before.

    A top-up goes to the wallet, where it first pays what is owed. All else goes to what its driver owes; where that was
    paid in another way meanwhile, the wallet gets the rest. Raises LedgerConflict where another amount was said before.
    """
    with connection.transaction():
        paid = connection.execute(
            "UPDATE payment SET state = 'paid', paid = %s, settled_at = COALESCE(settled_at, %s), failure = NULL, "
            "gateway_reference = COALESCE(%s, gateway_reference) WHERE id = %s AND state <> 'paid'",
            (amount, at, gateway_reference, payment.id),
        )
        if paid.rowcount == 0:
            _check_repeated(connection, payment.id, amount)
            return False
        owed = 0 if payment.purpose == "topup" else min(amount, _lock_owed(connection, payment.client))
        entries = {
            f"clearing/{gateway}": amount,
            ledger.RECEIVABLE + payment.client: -owed,
            ledger.WALLET + payment.client: owed - amount,
        }
        ledger.post(connection, [Posting("payment", payment.reference, at, entries)])
        wallets.settle_owed(connection, payment.client, at, amount - owed)
    return True


def _lock_owed(connection: psycopg.Connection, client: str) -> int:
    """What a client owes, until the caller's transaction ends; VND."""
    query = "SELECT owed FROM wallet WHERE owner = %s AND kind = 'wallet' FOR UPDATE"
    row = connection.execute(query, (client,)).fetchone()
    return max(row[0], 0) if row else 0


def _check_repeated(connection: psycopg.Connection, payment_id: UUID, amount: int) -> None:
    was = find(connection, payment_id)
    if was.paid != amount:
        raise LedgerConflict(f"payment {was.reference} was booked with {was.paid} VND before, not {amount}")

"""Payments: due when a session ends (sql/functions/record_due.sql), then settled with a gateway.

To settle, read what is due, close the transaction, call the gateway with the payment's id as the reference, and note
the answer in a transaction of its own. Two jobs that settle the same payment get the same answer and note it once.
"""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select, tuple_, update

from billing.errors import PaymentAlreadySettled, UnknownPayment
from billing.models import Payment


class Due(NamedTuple):
    """A payment that is still to be made; amount in VND."""

    id: UUID
    session_id: UUID
    client: str
    method: str
    amount: int
    created_at: datetime


def due(connection: Connection, method: str, limit: int, after: Due | None = None) -> list[Due]:
    """At most `limit` due of a method, oldest first; with `after` those behind it (one in doubt holds up none)."""
    query = select(*(getattr(Payment, name) for name in Due._fields))
    query = query.where(Payment.state == "due", Payment.method == method)
    if after is not None:
        query = query.where(tuple_(Payment.created_at, Payment.id) > (after.created_at, after.id))
    rows = connection.execute(query.order_by(Payment.created_at, Payment.id).limit(limit))
    return [Due(*row) for row in rows]


def mark_paid(connection: Connection, payment_id: UUID, gateway_reference: str, at: datetime) -> None:
    """Note that the money came. Saying so again changes nothing. Raises UnknownPayment, PaymentAlreadySettled."""
    _settle(connection, payment_id, "paid", gateway_reference, at)


def mark_failed(connection: Connection, payment_id: UUID, at: datetime) -> None:
    """Note that the gateway declined. Saying so again changes nothing. Raises UnknownPayment, PaymentAlreadySettled."""
    _settle(connection, payment_id, "failed", None, at)


def _settle(connection: Connection, payment_id: UUID, state: str, reference: str | None, at: datetime) -> None:
    settled = connection.execute(
        update(Payment)
        .where(Payment.id == payment_id, Payment.state == "due")
        .values(state=state, gateway_reference=reference, settled_at=at)
    )
    if settled.rowcount:
        return
    found = connection.execute(select(Payment.state, Payment.gateway_reference).where(Payment.id == payment_id)).first()
    if found is None:
        raise UnknownPayment(f"no payment {payment_id}")
    if tuple(found) != (state, reference):
        raise PaymentAlreadySettled(f"payment {payment_id} was settled before as {found.state}")

"""The part of a refund that goes back to a card: its gateway is asked until it has spoken, then the refund is settled.

What is booked of a payment tells what the driver's wallet gets in its stead, not what a call was answered: an answer
can be lost, somebody can give money back on the gateway's own page (given_back.py), and either can fail days later.

The payment's row, then the refund's, then the wallet's.
"""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import psycopg

from billing import ledger, payments, refunds, wallets
from billing.ledger import WALLET, Posting
from billing.refunds import ON_THE_WAY, Refund


class AtGateway(NamedTuple):
    """What a gateway is to give back: of which payment, by the gateway's name, and how much. `refund_id` is the key."""

    refund_id: UUID
    payment_id: UUID
    gateway_reference: str | None
    amount: int


_AT_GATEWAY = """
SELECT r.id, p.id, p.gateway_reference, r.to_gateway
  FROM refund r JOIN payment p ON p.id = payment_to_refund(r.session_id, r.id)
 WHERE r.state = 'pending_gateway' ORDER BY r.id LIMIT %s
"""


def refund_via_gateway(
    connection: psycopg.Connection, ask: Callable[[AtGateway], bool | None], at: datetime, limit: int = 100
) -> int:
    """Have a gateway give back what waits for that; the number settled. No transaction is open while it is asked.

    `ask` says True once the gateway has done it (billing.given_back has booked that), False where it refuses for good,
    and None where it is not known yet: asked again. It may not be so any more: what is booked of it tells how much goes
    to the wallet.
    """
    settled = 0
    for one in [AtGateway(*row) for row in connection.execute(_AT_GATEWAY, (limit,)).fetchall()]:
        if ask(one) is not None:
            settled += _settle_at_gateway(connection, one, at)
    return settled


def _settle_at_gateway(connection: psycopg.Connection, one: AtGateway, at: datetime) -> bool:
    with connection.transaction():
        payments.lock(connection, one.payment_id)
        found = refunds.lock(connection, one.refund_id)
        if found.state != "pending_gateway":
            return False
        short = _short(connection, found, one.payment_id)
        settle(connection, one.refund_id)
        to_wallet(connection, one.refund_id, short, at)
    return True


_IS_GIVEN = "SELECT 1 FROM gateway_refund WHERE refund_id = %s AND state = 'given'"


def _short(connection: psycopg.Connection, refund: Refund, payment_id: UUID) -> int:
    """What nobody gave back of a refund that waits: neither the gateway by our order, nor somebody on its page."""
    if connection.execute(_IS_GIVEN, (refund.id,)).fetchone():
        return 0
    return max(refund.to_gateway - max(standing(connection, payment_id).spare, 0), 0)


def settle(connection: psycopg.Connection, refund_id: UUID) -> None:
    """The gateway is not asked for a refund any more. In the transaction of a caller who holds the payment."""
    connection.execute("UPDATE refund SET state = 'refunded' WHERE id = %s AND state = 'pending_gateway'", (refund_id,))


def to_wallet(connection: psycopg.Connection, refund_id: UUID, amount: int, at: datetime) -> None:
    """Put into the driver's wallet what a gateway was to give back and did not: once for a refund; 0 changes nothing.

    In the transaction of a caller who holds the payment.
    """
    if amount == 0:
        return
    found = refunds.lock(connection, refund_id)
    entries = {ON_THE_WAY: amount, WALLET + found.client: -amount}
    ledger.post(connection, [Posting("refund_to_wallet", f"{found.session_id}/{refund_id}", at, entries)])
    wallets.settle_owed(connection, found.client, at, amount)


class Standing(NamedTuple):
    """How a payment stands with what was ordered back of it; VND (sql/functions/refund_standing.sql).

    `left_there` the gateway has still. Orders that it did not carry out under our key are `waiting`, or `settled`: less
    what the wallet was given of those. `by_page` is what somebody gave back of orders on the gateway's page.
    """

    left_there: int
    waiting: int
    settled: int
    by_page: int

    def crowded_out(self, more: int = 0) -> int:
        """What of the orders that wait the gateway cannot carry out; as if `more` were given back on its page."""
        return min(self.waiting, max(self.waiting - self.left_there + more, 0))

    @property
    def spare(self) -> int:
        """What the page gave back of orders that wait; below zero: so much is missing of settled ones."""
        return self.by_page - self.settled


def standing(connection: psycopg.Connection, payment_id: UUID) -> Standing:
    """How a payment stands, which the caller has locked."""
    row = connection.execute("SELECT * FROM refund_standing(%s)", (payment_id,)).fetchone()
    assert row is not None
    return Standing(*row)

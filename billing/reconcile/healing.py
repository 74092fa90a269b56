"""What is provably ours to put right: a gateway is asked how things stand now, and only that is booked.

Each is done in its own transaction, with none open over a call, and may be done twice or by two at once: bookings have
their names, and a refund the key that follows from what it gives back.
"""

from datetime import datetime

import psycopg

from billing import given_back, ledger, payments, transfers
from billing.errors import BillingError
from billing.gateways import CardGateway, Movement, Refund
from billing.ledger import RECEIVABLE, Posting
from billing.payments import Payment
from billing.reconcile.kinds import Difference
from billing.transfers import Credit


class NotOurs(BillingError):
    """It cannot be proved that this is ours to put right; the text says why."""


def heal(
    connection: psycopg.Connection, gateway: CardGateway | None, difference: Difference, now: datetime
) -> Difference:
    """The difference as it stands after what could be done about it: healed, or open with the error."""
    try:
        return _heal(connection, gateway, difference, now)
    except (BillingError, psycopg.errors.IntegrityError) as error:
        return difference._replace(error=str(error).partition("\n")[0])


def _heal(
    connection: psycopg.Connection, gateway: CardGateway | None, difference: Difference, now: datetime
) -> Difference:
    if difference.booking == "transfer":
        return _receive(connection, difference, now)
    if gateway is None or difference.payment_id is None or difference.source is None:
        raise NotOurs("no payment of ours has this reference")
    payment = payments.find(connection, difference.payment_id)
    if difference.kind == "missing_at_us":
        _book_charge(connection, payment, _found(gateway, difference, payment), difference, now)
    elif difference.kind == "doubled":
        _undo_second(connection, gateway, payment, difference, now)
    else:
        _book_refund(connection, gateway, payment, difference, now)
    return difference._replace(state="healed", error=None)


def _receive(connection: psycopg.Connection, difference: Difference, now: datetime) -> Difference:
    """Book a credit that we were not told of. It may turn out to be nobody's."""
    transaction = difference.reference.removeprefix(f"{difference.gateway}/")
    credit = Credit(
        difference.gateway, transaction, difference.theirs or 0, difference.at, difference.description or ""
    )
    if transfers.receive(connection, credit, now).client is None:
        return difference._replace(kind="unmatched_credit", error=None)
    return difference._replace(state="healed", error=None)


def _found(gateway: CardGateway, difference: Difference, payment: Payment) -> Movement:
    """The charge as its gateway has it now. Raises NotOurs where that is not what the list says."""
    movement = gateway.find(difference.source or "")
    if movement.reference not in (None, payment.reference):
        raise NotOurs(f"the gateway has it as {movement.reference}, not as {payment.reference}")
    if movement.state != "paid" or movement.paid != difference.theirs:
        raise NotOurs(f"the gateway says now: {movement.state}, {movement.paid} VND")
    return movement


def _book_charge(
    connection: psycopg.Connection, payment: Payment, movement: Movement, difference: Difference, now: datetime
) -> None:
    """A charge of which the answer and the webhook were lost."""
    with connection.transaction():
        locked = payments.lock(connection, payment.id)
        payments.pay(connection, locked, movement.paid, difference.gateway, now, movement.gateway_reference)


def _book_refund(
    connection: psycopg.Connection, gateway: CardGateway, payment: Payment, difference: Difference, now: datetime
) -> None:
    """A refund of which we do not know, made on the gateway's own page, or by our order and the answer was lost; or one
    that we know, and of which we do not know that it failed. Where each stands depends on those before it, so that all
    of the payment are booked."""
    name = difference.reference.removeprefix(f"{difference.gateway}/")
    listed = gateway.refunds(difference.source or "")
    made = next((one for one in listed if one.gateway_reference == name), None)
    if made is None or (made.state == "failed") != (difference.kind == "refund_failed"):
        raise NotOurs(f"the gateway says of the refund now: {made.state if made else 'there is none'}")
    if made.state != "failed":
        if made.amount != -(difference.theirs or 0):
            raise NotOurs(f"the gateway says now: {made.amount} VND")
        if ledger.find(connection, difference.booking, difference.reference):  # with a second charge
            return
    if difference.source != payment.gateway_reference:
        raise NotOurs("it is of a second charge for the payment")
    for one in listed:
        given_back.book(connection, payment, one, difference.gateway, now)


def _undo_second(
    connection: psycopg.Connection, gateway: CardGateway, payment: Payment, difference: Difference, now: datetime
) -> None:
    """Give a second charge for one payment back, and book both. Raises NotOurs unless the first one stands."""
    second = _found(gateway, difference, payment)
    if second.reference is None:
        raise NotOurs("the gateway does not say for which payment it was")
    first = gateway.find(payment.gateway_reference or "")
    if (payment.state, first.state, first.paid) != ("paid", "paid", payment.paid):
        raise NotOurs(f"the first charge is {first.state} at the gateway, {first.paid} VND")
    given = _given_back(gateway, second, f"{payment.id}:doubled:{second.gateway_reference}")
    owner, clearing = RECEIVABLE + payment.client, f"clearing/{difference.gateway}"
    charged = Posting("payment", difference.reference, now, {clearing: second.paid, owner: -second.paid})
    refunds = [
        Posting("refund", f"{difference.gateway}/{one.gateway_reference}", now,
                {owner: one.amount, clearing: -one.amount})
        for one in given
    ]  # fmt: skip
    ledger.post(connection, [charged, *refunds])


def _given_back(gateway: CardGateway, charge: Movement, key: str) -> list[Refund]:
    """All refunds of a charge, once nothing is left of it."""
    given = [one for one in gateway.refunds(charge.gateway_reference) if one.state != "failed"]
    left = charge.paid - sum(one.amount for one in given)
    return [*given, gateway.refund(charge.gateway_reference, left, key)] if left > 0 else given

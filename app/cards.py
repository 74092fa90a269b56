"""Cards: one is kept, money on it is held when a session starts, and what its gateway says is noted and booked.

The payment and the call for its hold are written in the transaction that starts the session; the call itself is made
after it, with no transaction open. Whatever happens in between, the job (app/card_jobs.py) makes the same call again.
A start whose hold is declined is taken back; one whose card asks its driver something counts as paid for a while.
"""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import psycopg

from app.resources import Resources
from billing import calls, given_back, kept_cards, payments
from billing.calls import Call, Outcome, Subject
from billing.errors import GatewayUnavailable, NoCard, PaymentDeclined, UnknownPayment
from billing.gateways import Action, CardGateway, Movement
from billing.payments import New, Payment
from zones import sessions
from zones.sessions import Count, Start, Started

log = logging.getLogger(__name__)
GATEWAY = "stripe"
TOO_SMALL = "amount_too_small"


class Shown(NamedTuple):
    """A payment by card as its driver sees it, with what he must still do."""

    payment: Payment
    action: Action | None


def real_now() -> datetime:
    """The gateway's own time, also where business time is simulated."""
    return datetime.now(UTC)


def keep(resources: Resources, client: str, token: str) -> None:
    """Keep a card for a client, in place of the one before. Raises PaymentDeclined, PaymentRefused, GatewayUnavailable.

    The token is the key: it is of one card, and may be used once.
    """
    gateway = resources.inline_card_gateway
    if gateway is None:
        raise NoCard("cards are not taken here")
    card = gateway.keep_card(client, token, f"{client}:{token}")
    kept_cards.keep(resources.connections.get(), client, card, resources.clock.now())


def check_card(resources: Resources, client: str, method: str) -> None:
    """Refuse a start by card of who has left none. Raises NoCard."""
    if method == "card" and resources.card_gateway is not None:
        kept_cards.of(resources.connections.get(), client)


# --- at a start -------------------------------------------------------------------------------------------------------
def together(
    resources: Resources, connection: psycopg.Connection, starts: Sequence[Start]
) -> AbstractContextManager[object]:
    """The transaction that a group of starts needs: one, where a payment is written with them."""
    return connection.transaction() if _by_card(resources, starts) else nullcontext()


def _by_card(resources: Resources, starts: Sequence[Start]) -> list[Start]:
    return [one for one in starts if one.payment_method == "card"] if resources.card_gateway else []


def open_payments(
    resources: Resources, connection: psycopg.Connection, starts: Sequence[Start], answers: Sequence[object]
) -> None:
    """Write down the payments of sessions that have just begun by card, and the calls for their holds."""
    begun = {one.id for one in answers if isinstance(one, Started) and one.zone_count is not None}
    for start in _by_card(resources, starts):
        if start.id in begun:
            _open(resources, connection, start)


def _open(resources: Resources, connection: psycopg.Connection, start: Start) -> None:
    amount = to_hold(resources, start)
    if amount == 0:
        return
    new = New(start.id, start.client, "session", start.id, "card", amount, str(start.id), start.started_at)
    payments.create(connection, [new])
    if amount < resources.settings.stripe_minimum:
        payment = payments.find(connection, new.id)
        payments.move(connection, payment, "void", start.started_at, failure=TOO_SMALL)
        return
    card = kept_cards.of(connection, start.client)
    request = {**card._asdict(), "description": f"{start.plate}, {start.zone}"}
    calls.plan(connection, new.id, "hold", amount, real_now(), request=request, lease=True)


def to_hold(resources: Resources, start: Start) -> int:
    """VND: the price of the time that is asked for, or of the first hours where it is open."""
    longest = start.max_over_at - start.started_at
    open_time = min(timedelta(minutes=resources.settings.card_hold_minutes), longest)
    return start.price.owed(start.ends_at - start.started_at if start.ends_at else open_time)


def authorize(resources: Resources, session_id: UUID, method: str, *, is_new: bool) -> None:
    """Place the hold of a session that has just begun; of a repeated start, say what became of it.

    Raises PaymentDeclined, and the session was taken back. What has no answer yet, or needs the driver, lets it stand.
    """
    if method != "card" or resources.card_gateway is None:
        return
    connection = resources.connections.get()
    call = calls.waiting(connection, session_id) if is_new else None
    if call is not None:
        carry_out(resources, resources.inline_card_gateway, call)
    try:
        payment = payments.find(connection, session_id)
    except UnknownPayment:  # nothing was to be held
        return
    if payment.state == "failed":
        raise PaymentDeclined(f"the card was declined: {payment.failure}", payment.failure or "declined")


def shown(resources: Resources, payment_id: UUID) -> Shown:
    """A payment by card, with what its driver's phone needs to go on. What is held for a session has the session's id.

    Raises UnknownPayment.
    """
    payment = payments.find(resources.connections.get(), payment_id)
    gateway = resources.inline_card_gateway
    if payment.state != "requires_action" or gateway is None or payment.gateway_reference is None:
        return Shown(payment, None)
    try:
        return Shown(payment, gateway.find(payment.gateway_reference).action)
    except GatewayUnavailable:
        return Shown(payment, None)


# --- what the gateway says --------------------------------------------------------------------------------------------
def carry_out(resources: Resources, gateway: CardGateway | None, call: Call) -> Outcome:
    """Make a call, and note and book what came of it. A request's gateway may leave it to the job."""
    connection = resources.connections.get()
    if gateway is None:
        raise GatewayUnavailable("cards are not set up here")
    payment = payments.find(connection, call.payment_id)
    outcome = calls.make(gateway, call, Subject(payment.reference, payment.gateway_reference), real_now())
    with connection.transaction():
        calls.settle(connection, call, outcome, real_now())
        counts = _note(connection, payments.lock(connection, payment.id), call, outcome, resources.clock.now())
    resources.push(*counts)
    if outcome.state == "parked":
        log.error("call %s is parked: %s", call.key, outcome.error)
    return outcome


def _note(connection: psycopg.Connection, payment: Payment, call: Call, outcome: Outcome, now: datetime) -> list[Count]:
    for made in outcome.refunds:
        given_back.book(connection, payment, made, GATEWAY, now)
    if outcome.movement is not None:
        return follow(connection, payment, outcome.movement, now)
    if call.verb not in ("hold", "charge"):
        return []
    if outcome.state == "refused":
        failed = Movement(outcome.gateway_reference or "", "failed", call.amount, decline=outcome.code)
        return follow(connection, payment, failed, now)
    if outcome.state == "parked":  # no money moved, by a mistake of ours: the session stands, and is owed
        payments.move(connection, payment, "void", now, failure=outcome.code)
    else:
        payments.move(connection, payment, "unknown", now)
    return []


def follow(connection: psycopg.Connection, payment: Payment, movement: Movement, now: datetime) -> list[Count]:
    """Bring a locked payment to where its gateway has it, in the caller's transaction.

    A session whose hold was never granted is taken back; the counts that changed by it.
    """
    at_gateway = movement.gateway_reference or None
    if movement.state == "paid":
        payments.pay(connection, payment, movement.paid, GATEWAY, now, at_gateway)
        return []
    state = "unknown" if movement.state == "pending" else movement.state
    moved = payments.move(connection, payment, state, now, gateway_reference=at_gateway, failure=movement.decline)
    if not moved or state in payments.OPEN or payment.state == "authorized" or payment.id != payment.session_id:
        return []
    return sessions.void(connection, [payment.id], now)

"""Cards, without their drivers: unanswered calls, captures after the end, questions left open, small fees, webhooks."""

import logging
import time
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple
from uuid import UUID

import psycopg

from app import charges
from app.cards import GATEWAY, carry_out, follow, real_now
from app.resources import Resources
from billing import calls, given_back, ledger, payments
from billing.errors import GatewayUnavailable, UnknownPayment
from billing.gateways import CardGateway
from billing.gateways.stripe_events import about
from billing.ledger import Posting
from billing.payments import New, Payment
from billing.refunds_at_gateway import AtGateway, refund_via_gateway
from billing.webhooks import Event, Handlers

log = logging.getLogger(__name__)
BATCH = 200
# Real seconds that a thread works before it lets the job look whether all is well.
LONGEST_ROUND = 5.0
# What became of a refund's call, by its state; what waits, or is parked for a person to see, is not known yet.
REFUNDED = {"done": True, "refused": False}
# So long a start counts as paid while its driver is asked something; other payments say themselves how long they wait.
PENDING = timedelta(seconds=60)
# A card that was declined is not asked again before.
NEXT_COLLECTION = timedelta(days=1)


def look(resources: Resources) -> int:
    """Plan what sessions need that are over, or whose drivers did not answer; the number of the former."""
    if resources.card_gateway is None:
        return 0
    ask_overdue(resources, resources.card_gateway)
    return plan_ends(resources)


def settle(resources: Resources) -> int:
    """One thread's share of the calls that wait; the number made."""
    if resources.card_gateway is None:
        return 0
    until, made = time.monotonic() + LONGEST_ROUND, 0
    while time.monotonic() < until and (call := calls.take(resources.connections.get(), real_now())):
        carry_out(resources, resources.card_gateway, call)
        made += 1
    return made


def refund(resources: Resources) -> int:
    """Have the gateway give back what operators decided; the number of refunds that are settled by it."""
    if resources.card_gateway is None:
        return 0
    connection = resources.connections.get()
    return refund_via_gateway(connection, partial(_ask_refund, connection), resources.clock.now(), BATCH)


def _ask_refund(connection: psycopg.Connection, wanted: AtGateway) -> bool | None:
    """Plan the call once; later, what became of it."""
    with connection.transaction():
        payment = payments.lock(connection, wanted.payment_id)
        state = calls.for_refund(connection, wanted.refund_id)
        if state is None:
            request = {"refund": str(wanted.refund_id)}
            calls.plan(connection, payment.id, "refund", wanted.amount, real_now(), request=request)
    return REFUNDED.get(state or "")


# What was held for sessions that are over by now, with what each still owes (it may have been paid in another way). One
# that is being looked at is left out, and so is whose driver's card is being charged for what he owes: that may be it.
_ENDED = f"""
SELECT {", ".join(f"p.{name}" for name in Payment._fields)}, GREATEST(LEAST(e.amount, w.owed), 0)
  FROM payment p
  LEFT JOIN wallet w ON w.owner = p.client AND w.kind = 'wallet'
  LEFT JOIN ledger_transaction t ON t.kind = 'parking' AND t.reference = p.session_id::text
  LEFT JOIN ledger_account a ON a.code = 'receivable/' || p.client
  LEFT JOIN ledger_entry e ON e.transaction_id = t.id AND e.account_id = a.id
 WHERE p.method = 'card' AND p.id = p.session_id AND p.state IN ('authorized', 'requires_action')
   AND NOT EXISTS (SELECT FROM active_session s WHERE s.id = p.session_id)
   AND NOT EXISTS (SELECT FROM gateway_call c WHERE c.payment_id = p.id AND c.state IN ('waiting', 'parked'))
   AND NOT EXISTS (SELECT FROM payment o
                    WHERE o.client = p.client AND o.method = 'card' AND o.purpose <> 'topup'
                      AND o.id IS DISTINCT FROM o.session_id AND o.state = ANY (%s)
                      AND NOT EXISTS (SELECT FROM gateway_call c WHERE c.payment_id = o.id AND c.state = 'parked'))
 ORDER BY p.created_at LIMIT %s FOR UPDATE OF p SKIP LOCKED"""


def plan_ends(resources: Resources) -> int:
    """Plan the captures of sessions that are over, and the releases where nothing is taken; the number planned."""
    connection = resources.connections.get()
    with connection.transaction():
        ended = connection.execute(_ENDED, (list(payments.OPEN), BATCH)).fetchall()
        for row in ended:
            _plan_end(resources, connection, Payment(*row[:-1]), row[-1])
    return len(ended)


def _plan_end(resources: Resources, connection: psycopg.Connection, payment: Payment, owed: int) -> None:
    """Take what is owed, at most what was held; what is less than Stripe takes is left to collect()."""
    amount = min(owed, payment.amount) if payment.state == "authorized" else 0
    if amount >= resources.settings.stripe_minimum:
        calls.plan(connection, payment.id, "capture", amount, real_now())
    else:
        calls.plan(connection, payment.id, "release", 0, real_now())


_OVERDUE = """
SELECT p.id, p.gateway_reference FROM payment p
 WHERE p.method = 'card' AND p.state = 'requires_action' AND p.created_at <= %(now)s - %(pending)s
   AND COALESCE(p.expires_at <= %(now)s, true)
   AND NOT EXISTS (SELECT FROM gateway_call c WHERE c.payment_id = p.id AND c.state IN ('waiting', 'parked'))
 ORDER BY p.created_at LIMIT %(limit)s"""


def ask_overdue(resources: Resources, gateway: CardGateway) -> None:
    """Give up payments whose drivers have not answered in time; who has, and we did not hear of it, is noted."""
    connection, now = resources.connections.get(), resources.clock.now()
    overdue = {"now": now, "pending": PENDING, "limit": BATCH}
    for payment_id, at_gateway in connection.execute(_OVERDUE, overdue).fetchall():
        try:
            if refresh(resources, gateway, payment_id, at_gateway).state == "requires_action":
                calls.plan(connection, payment_id, "release", 0, real_now())
        except GatewayUnavailable as error:
            log.warning("payment %s is left for later: %s", payment_id, error)
            return


def refresh(resources: Resources, gateway: CardGateway, payment_id: UUID, gateway_reference: str) -> Payment:
    """Ask the gateway how a payment stands, and note it; the payment as it is then. Raises GatewayUnavailable."""
    movement, connection = gateway.find(gateway_reference), resources.connections.get()
    with connection.transaction():
        counts = follow(connection, payments.lock(connection, payment_id), movement, resources.clock.now())
    resources.push(*counts)
    return payments.find(connection, payment_id)


# --- what waited until it was enough ----------------------------------------------------------------------------------
# What sessions by card have left unpaid, by client; who means to pay another one by VietQR is not charged for it here.
# That is what they were charged less what cards paid for it without a word of their drivers (their holds, and what was
# collected), and at most what is still owed for them as far as payments that name no session pay the oldest first.
# Locked are the wallets, so that two jobs collect nothing twice.
_WAITING = """
SELECT w.owner, LEAST(o.owed, d.owed)::bigint, w.balance - w.held, c.customer, c.payment_method
  FROM wallet w LEFT JOIN card c ON c.client = w.owner
 CROSS JOIN LATERAL (
       SELECT (SELECT sum(e.amount) FROM payment p
                 JOIN ledger_transaction t ON t.kind = 'parking' AND t.reference = p.session_id::text
                 JOIN ledger_entry e ON e.transaction_id = t.id
                 JOIN ledger_account a ON a.id = e.account_id AND a.code = 'receivable/' || w.owner
                WHERE p.client = w.owner AND p.method = 'card' AND p.id = p.session_id)
              - COALESCE((SELECT sum(p.paid) FROM payment p
                           WHERE p.client = w.owner AND p.method = 'card' AND p.purpose <> 'topup'
                             AND p.expires_at IS NULL), 0)
              + COALESCE((SELECT sum(e.amount) FROM ledger_account a
                            JOIN ledger_entry e ON e.account_id = a.id
                            JOIN ledger_transaction t ON t.id = e.transaction_id AND t.kind = 'small_fee'
                           WHERE a.code = 'receivable/' || w.owner), 0)) d(owed)
 CROSS JOIN LATERAL (
       SELECT sum(d.amount) FROM debts_of(w.owner, w.owed) d
         JOIN payment p ON p.id = d.session_id AND p.method = 'card') o(owed)
 WHERE w.kind = 'wallet' AND w.owed > 0 AND d.owed > 0 AND o.owed > 0
   AND NOT EXISTS (SELECT FROM payment p WHERE p.client = w.owner AND p.method = 'card' AND p.state = ANY (%(open)s))
   AND NOT EXISTS (SELECT FROM payment p WHERE p.client = w.owner AND p.purpose = 'arrears' AND p.method = 'card'
                      AND p.state = 'failed' AND p.settled_at > GREATEST(%(since)s, c.kept_at))
 ORDER BY w.owner LIMIT %(limit)s FOR UPDATE OF w SKIP LOCKED"""


def collect(resources: Resources) -> int:
    """See to what sessions by card have left unpaid: together by card once that is enough for one, before out of the
    wallet where small fees may draw on it. The number of clients who are charged."""
    if resources.card_gateway is None:
        return 0
    connection, now = resources.connections.get(), resources.clock.now()
    wanted = {"open": list(payments.OPEN), "since": now - NEXT_COLLECTION, "limit": BATCH}
    with connection.transaction():
        found = connection.execute(_WAITING, wanted).fetchall()
        return sum(_collect(resources, connection, now, Waiting(*row)) for row in found)


class Waiting(NamedTuple):
    """What a client owes for sessions by card, what is free in the wallet (VND), and the card."""

    client: str
    owed: int
    available: int
    customer: str | None
    payment_method: str | None


def _collect(resources: Resources, connection: psycopg.Connection, now: datetime, one: Waiting) -> bool:
    if charges.is_under_way(connection, one.client):  # begun between this round's snapshot and its locks
        return False
    new = payments.new_id(now)
    if one.owed >= resources.settings.stripe_minimum and one.customer is not None:
        payments.create(connection, [New(new, one.client, "arrears", None, "card", one.owed, str(new), now)])
        request = {"customer": one.customer, "payment_method": one.payment_method, "present": False}
        calls.plan(connection, new, "charge", one.owed, real_now(), request=request)
        return True
    if resources.settings.small_fees != "wallet" or one.available < one.owed:
        return False
    entries = {ledger.WALLET + one.client: one.owed, ledger.RECEIVABLE + one.client: -one.owed}
    ledger.post(connection, [Posting("small_fee", str(new), now, entries)])
    return True


# --- webhooks ---------------------------------------------------------------------------------------------------------
# An event only says that something happened: how things stand now, the gateway is asked. So order does not matter.
_INTENTS = ("amount_capturable_updated", "canceled", "payment_failed", "requires_action", "succeeded")
_REFUNDS = ("charge.refunded", "charge.refund.updated", "refund.created", "refund.updated", "refund.failed")


def handlers(resources: Resources) -> Handlers:
    """What is done about Stripe's events."""
    intents = {(GATEWAY, f"payment_intent.{kind}"): lambda event: _intent(resources, event) for kind in _INTENTS}
    return intents | {(GATEWAY, kind): lambda event: _refunded(resources, event) for kind in _REFUNDS}


def _gateway(resources: Resources) -> CardGateway:
    if resources.card_gateway is None:
        raise GatewayUnavailable("cards are not set up here")
    return resources.card_gateway


def _intent(resources: Resources, event: Event) -> None:
    """Raises UnknownPayment for one with a reference of ours that we do not know; one without is none of ours."""
    intent = about(event)
    reference = (intent.get("metadata") or {}).get("payment")
    if reference is None:
        return
    payment = payments.find_by_reference(resources.connections.get(), reference)
    if payment.state != "paid":
        refresh(resources, _gateway(resources), payment.id, intent["id"])


def _refunded(resources: Resources, event: Event) -> None:
    """Book what was given back, by us or on Stripe's own page, and what of it failed: each once, whoever comes first.

    Of what was not paid, nothing can be given back: Stripe only let a hold go. Of a second charge for one payment,
    reconciliation books both, the charge and what was given back of it.
    """
    intent, gateway = about(event).get("payment_intent"), _gateway(resources)
    if not intent:
        return
    payment = _payment_of(resources, gateway, intent)
    if payment is None or payment.state != "paid" or payment.gateway_reference != intent:
        return
    connection = resources.connections.get()
    for made in gateway.refunds(intent):
        given_back.book(connection, payment, made, GATEWAY, resources.clock.now())


def _payment_of(resources: Resources, gateway: CardGateway, intent: str) -> Payment | None:
    """The payment behind an intent, with what was paid of it booked; None where it is none of ours.

    Raises UnknownPayment for one with a reference of ours that we do not know.
    """
    connection = resources.connections.get()
    try:
        payment = payments.find_at_gateway(connection, intent)
    except UnknownPayment:
        reference = gateway.find(intent).reference
        if reference is None:
            return None
        payment = payments.find_by_reference(connection, reference)
    return payment if payment.state == "paid" else refresh(resources, gateway, payment.id, intent)

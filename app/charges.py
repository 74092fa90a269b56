"""Cards charged at their drivers' word: a top-up, what is owed, or what one session left owed.

The payment and the call for its charge are written in one transaction, with the driver's idempotency key where there is
one; the call is made after it, with no transaction open. Whatever happens in between, the job (app/card_jobs.py) makes
the same call again, and whoever hears first that the money came (the answer, a webhook, the job, the reconciliation)
books it.
"""

from datetime import timedelta
from uuid import UUID

import psycopg

from app import cards
from app.cards import Shown
from app.paying import CARD_MAXIMUM
from app.resources import Resources
from billing import calls, kept_cards, payments, transfers, wallets
from billing.calls import Call
from billing.errors import (
    AmountTooLarge,
    AmountTooSmall,
    MethodUnavailable,
    PaymentDeclined,
    PaymentRefused,
    PaymentUnderWay,
)
from billing.ledger import WALLET
from billing.payments import New, Payment
from billing.transfers import Wanted

METHOD = "card"
# So long a driver may take to answer what the bank asks; longer than at a start, for nothing stands and waits for it.
ANSWER_TIME = timedelta(minutes=10)


def ask(resources: Resources, connection: psycopg.Connection, wanted: Wanted) -> Call:
    """Write down a payment by the driver's card and the call that charges it, in the caller's transaction.

    Raises MethodUnavailable, NoCard, NothingOwed, PaymentUnderWay, AmountTooSmall, AmountTooLarge.
    """
    if resources.card_gateway is None:
        raise MethodUnavailable("card is not set up here")
    card = kept_cards.of(connection, wanted.client)
    if wanted.purpose != "topup":
        _take_turn(connection, wanted.client)
    amount = transfers.amount_of(connection, wanted)
    _check(amount, resources.settings.stripe_minimum)
    now = resources.clock.now()
    payment_id = payments.new_id(now)
    payments.create(
        connection,
        [
            New(payment_id, wanted.client, wanted.purpose, wanted.session_id, METHOD, amount, str(payment_id), now,
                now + ANSWER_TIME)
        ],
    )  # fmt: skip
    return calls.plan(connection, payment_id, "charge", amount, cards.real_now(), request=card._asdict(), lease=True)


# What was held for a session that runs is taken for that one, which owes nothing yet. A parked call moved no money, and
# waits for a person.
_UNDER_WAY = """
SELECT FROM payment p
 WHERE p.client = %s AND p.method = 'card' AND p.purpose <> 'topup' AND p.state = ANY (%s)
   AND NOT EXISTS (SELECT FROM active_session s WHERE s.id = p.session_id)
   AND NOT EXISTS (SELECT FROM gateway_call c WHERE c.payment_id = p.id AND c.state = 'parked')
 LIMIT 1"""


def is_under_way(connection: psycopg.Connection, client: str) -> bool:
    """Whether a card is being charged for what a client owes. It stays so while the caller holds the client's wallet:
    the next charge would take the same money."""
    return connection.execute(_UNDER_WAY, (client, list(payments.OPEN))).rowcount == 1


def _take_turn(connection: psycopg.Connection, client: str) -> None:
    """Raises PaymentUnderWay."""
    wallets.lock(connection, WALLET + client)
    if is_under_way(connection, client):
        raise PaymentUnderWay("what is owed is being paid by card: see what becomes of that payment first")


def _check(amount: int, least: int) -> None:
    if amount < least:
        raise AmountTooSmall(f"{amount} VND is less than a card can be charged ({least} VND)")
    if amount > CARD_MAXIMUM:
        raise AmountTooLarge(f"{amount} VND is more than a card can be charged at a time ({CARD_MAXIMUM} VND)")


def settle(resources: Resources, payment_id: UUID, new: Call | None) -> Shown:
    """Charge the card where the call is new; the payment as it stands then, also where its outcome is not known.

    Raises PaymentDeclined, PaymentRefused, AmountTooSmall, AmountTooLarge where it came to nothing, as often as asked.
    """
    if new is not None:
        cards.carry_out(resources, resources.inline_card_gateway, new)
    shown = cards.shown(resources, payment_id)
    _refuse(shown.payment)
    return shown


_SIZES = {"amount_too_small": AmountTooSmall, "amount_too_large": AmountTooLarge}


def _refuse(payment: Payment) -> None:
    failure = payment.failure or "declined"
    if payment.state == "failed" and failure in _SIZES:
        raise _SIZES[failure](f"{payment.amount} VND is an amount that the card's gateway does not take")
    if payment.state == "failed":
        raise PaymentDeclined(f"the card was declined: {failure}", failure)
    if payment.state == "void" and payment.failure:  # a mistake of ours, which is parked; without one: given up
        raise PaymentRefused(f"the card could not be charged: {failure}", failure)

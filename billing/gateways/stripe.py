"""Cards, by Stripe: PaymentIntents that hold, capture, release, charge and refund, in VND.

This module, and with it stripe-python, is loaded only where Stripe is configured: it takes tens of megabytes.

Everything sent is understood by real Stripe, stripe-mock and localstripe alike. So lists are not filtered by
`created`, which localstripe does not know: they are read from the newest back.

stripe-python repeats no call by itself (max_network_retries is 0). Its repetitions would hold up a driver for a minute,
and would be lost with the process; ours use a key that was stored before the first call, and outlive both.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Any, NoReturn, TypeVar

import stripe

from billing.errors import (
    AmountTooLarge,
    AmountTooSmall,
    GatewayUnavailable,
    HoldGone,
    KeyMisused,
    PaymentDeclined,
    PaymentRefused,
    UnknownPayment,
)
from billing.gateways import Card, Demand, Entry, Movement, Refund
from billing.gateways.stripe_shapes import entry, gave_back, movement, refund
from billing.money import CURRENCY

stripe.enable_telemetry = False  # there is no such setting of a client
logging.getLogger("stripe").setLevel(logging.WARNING)  # it says two lines a call

Answer = TypeVar("Answer")
CONNECT_SECONDS, READ_SECONDS = 3.0, 20.0
# US$0.50 is the least that Stripe takes; what that is in VND moves, so it is a setting. Eight digits are the most.
MINIMUM = 13_000
MAXIMUM = 99_999_999
PAGE = 100
_HOLD_GONE = ("payment_intent_unexpected_state", "charge_expired_for_capture", "charge_already_captured")
_MISSING = "resource_missing"
_SIZES = {"amount_too_small": AmountTooSmall, "amount_too_large": AmountTooLarge}


class Stripe:
    """See CardGateway."""

    def __init__(self, key: str, url: str | None = None, minimum: int = MINIMUM, timeout: float = READ_SECONDS) -> None:
        """`key` is the account's secret; `url` where it is not real Stripe; `minimum` the least charge in VND."""
        self.minimum = minimum
        # Untyped: every request of the tests is checked against Stripe's own schemas instead.
        self._stripe: Any = stripe.StripeClient(
            key,
            base_addresses={"api": url.rstrip("/")} if url else {},
            max_network_retries=0,
            http_client=stripe.RequestsClient(timeout=(CONNECT_SECONDS, timeout)),
        ).v1

    def keep_card(self, client: str, token: str, key: str) -> Card:
        """A customer with the card. Raises PaymentDeclined, PaymentRefused for a token that Stripe does not know."""
        whose = {"metadata": {"client": client}}
        customer = _ask(lambda: self._stripe.customers.create(whose, {"idempotency_key": f"{key}:customer"}))["id"]
        options = {"idempotency_key": f"{key}:attach"}
        kept = _ask(lambda: self._stripe.payment_methods.attach(token, {"customer": customer}, options))
        return Card(customer, kept["id"])

    def hold(self, demand: Demand, card: Card) -> Movement:
        """An intent that is confirmed at once and captured later."""
        return self._confirmed(demand, card, {"capture_method": "manual"})

    def charge(self, demand: Demand, card: Card, *, present: bool = True) -> Movement:
        """An intent that is confirmed and captured at once."""
        return self._confirmed(
            demand, card, {"capture_method": "automatic"} | ({} if present else {"off_session": True})
        )

    def _confirmed(self, demand: Demand, card: Card, more: Mapping[str, Any]) -> Movement:
        self._check(demand.amount)
        wanted = {
            "amount": demand.amount,
            "currency": CURRENCY.lower(),
            "customer": card.customer,
            "payment_method": card.payment_method,
            "payment_method_types": ["card"],  # else Stripe may offer others, and asks where to lead the driver back to
            "confirm": True,
            "metadata": {"payment": demand.reference, "description": demand.description},
        }
        options = {"idempotency_key": demand.key}
        answered = movement(_ask(lambda: self._stripe.payment_intents.create({**wanted, **more}, options)))
        if answered.state == "failed":
            code = answered.decline or "declined"
            raise PaymentDeclined(f"the card was declined: {code}", code, answered.gateway_reference)
        return answered

    def capture(self, gateway_reference: str, amount: int, key: str) -> Movement:
        """Take so much of a hold; Stripe releases the rest."""
        self._check(amount)
        wanted, options = {"amount_to_capture": amount}, {"idempotency_key": key}
        return movement(_ask(lambda: self._stripe.payment_intents.capture(gateway_reference, wanted, options)))

    def release(self, gateway_reference: str, key: str) -> Movement:
        """Cancel the intent."""
        options = {"idempotency_key": key}
        return movement(_ask(lambda: self._stripe.payment_intents.cancel(gateway_reference, {}, options)))

    def refund(self, gateway_reference: str, amount: int, key: str) -> Refund:
        """Give back so much; any amount is large enough."""
        wanted = {"payment_intent": gateway_reference, "amount": amount, "metadata": {"key": key}}
        options = {"idempotency_key": key}
        return refund(_ask(lambda: self._stripe.refunds.create(wanted, options)))

    def refunds(self, gateway_reference: str) -> list[Refund]:
        """Stripe names the newest first, and among them what it held and never took."""
        wanted: Mapping[str, Any] = {"payment_intent": gateway_reference}
        return [refund(one) for one in _pages(self._stripe.refunds.list, wanted) if gave_back(one)][::-1]

    def find(self, gateway_reference: str) -> Movement:
        """The intent as it is now."""
        wanted = {"expand": ["latest_charge"]}
        try:
            return movement(_ask(lambda: self._stripe.payment_intents.retrieve(gateway_reference, wanted)))
        except PaymentRefused as refused:
            if refused.code == _MISSING:
                raise UnknownPayment(str(refused)) from refused
            raise

    def find_ours(self, reference: str, since: datetime, until: datetime) -> Movement | None:
        """Read back from the newest intent; for what a key does not tell any more (Stripe forgets it after a day)."""
        for intent in _listed(self._stripe.payment_intents.list, {}, since, until):
            if (intent.get("metadata") or {}).get("payment") == reference:
                return self.find(intent["id"])
        return None

    def entries(self, since: datetime, until: datetime) -> Iterator[Entry]:
        """Balance transactions, each with the charge or refund behind it, newest first."""
        wanted = {"expand": ["data.source"]}
        return map(entry, _listed(self._stripe.balance_transactions.list, wanted, since, until))

    def _check(self, amount: int) -> None:
        if amount < self.minimum:
            raise AmountTooSmall(f"{amount} VND is less than a card can be charged ({self.minimum} VND)")
        if amount > MAXIMUM:
            raise AmountTooLarge(f"{amount} VND is more than a card can be charged ({MAXIMUM} VND)")


def _listed(
    ask: Callable[[Any], Any], wanted: Mapping[str, Any], since: datetime, until: datetime
) -> Iterator[Mapping[str, Any]]:
    """The objects of a list that were made in an interval, page by page, until a page lies before it."""
    begin, end = since.timestamp(), until.timestamp()
    for one in _pages(ask, wanted, lambda page: all(one["created"] < begin for one in page)):
        if begin <= one["created"] < end:
            yield one


def _pages(
    ask: Callable[[Any], Any],
    wanted: Mapping[str, Any],
    is_enough: Callable[[Sequence[Mapping[str, Any]]], bool] = lambda page: False,
) -> Iterator[Mapping[str, Any]]:
    """The objects of a list in its order, until a page is enough."""
    after: Mapping[str, str] = {}
    while True:
        page = _ask(partial(ask, {**wanted, **after, "limit": PAGE}))
        yield from page["data"]
        if not page.get("has_more") or is_enough(page["data"]):
            return
        after = {"starting_after": page["data"][-1]["id"]}


def _ask(call: Callable[[], Any]) -> Mapping[str, Any]:
    """Make one call; the answer as a plain dictionary, the errors as our own."""
    try:
        answer: Mapping[str, Any] = call().to_dict()
    except stripe.StripeError as error:
        _raise(error)
    return answer


def _raise(error: stripe.StripeError) -> NoReturn:
    """Only an error that Stripe is sure of may say that no money moved."""
    text = error.user_message or "Stripe gave no reason"
    code = error.code or (_MISSING if error.http_status == HTTPStatus.NOT_FOUND else "refused")
    if isinstance(error, stripe.CardError):
        raise _declined(error) from error
    if isinstance(error, stripe.APIConnectionError | stripe.RateLimitError | stripe.APIError):
        # A 409 is among them: the first request with this key is still running.
        replayed = (error.headers or {}).get("Idempotent-Replayed") == "true"
        raise GatewayUnavailable(f"Stripe gave no answer: {text}", replayed) from error
    if isinstance(error, stripe.IdempotencyError):
        raise KeyMisused(text, "idempotency_error") from error
    if code in _HOLD_GONE:
        raise HoldGone(text, code) from error
    if code in _SIZES:
        raise _SIZES[code](text) from error
    raise PaymentRefused(text, code) from error


def _declined(error: stripe.CardError) -> PaymentDeclined:
    body = error.json_body if isinstance(error.json_body, dict) else {}
    said = body.get("error", {})
    intent = said.get("payment_intent") or {}
    code = said.get("decline_code") or error.code or "declined"
    return PaymentDeclined(f"the card was declined: {code}", code, intent.get("id"))

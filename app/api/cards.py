"""Cards: the one that a driver pays with, and how a payment by it is shown."""

from typing import Any

from flask import Response, g
from marshmallow import Schema, fields, validate

from app import cards as use_cases
from app.api.blueprint import Blueprint
from app.api.fields import Instant, MoneySchema, PlainText, local, money
from app.cards import Shown
from app.errors import BadBody, MalformedBody
from app.resources import resources
from billing.errors import GatewayUnavailable, NoCard, PaymentDeclined, PaymentRefused
from billing.gateways import Action

cards = Blueprint("cards", __name__, url_prefix="/v1/cards", description="The card of the driver who asks")
STATES = ("created", "unknown", "requires_action", "authorized", "paid", "failed", "expired", "void")


class CardSchema(Schema):
    """What Stripe's own library on the phone gave for the card; its number never comes here."""

    token = PlainText(required=True, validate=validate.Regexp(r"^pm_\w{1,250}\Z"), metadata={"example": "pm_card_visa"})


class ActionSchema(Schema):
    """What the driver must still do: `content` is for Stripe's library where `kind` is client_secret. Null also where a
    payment `requires_action` and Stripe cannot be asked for it just now: look again."""

    kind = fields.String(required=True)
    content = fields.String(required=True)
    expires_at = Instant(required=True, allow_none=True)


class CardPaymentSchema(Schema):
    """A payment by card. `amount` is held, `paid` was taken; `failure` is the code of a decline, or amount_too_small
    where the fee is less than a card can be charged: then it draws on the wallet, or waits and is charged together.
    One that is void without it holds nothing; the fee is charged by another payment."""

    id = fields.UUID(required=True)
    state = fields.String(required=True, validate=validate.OneOf(STATES))
    amount = fields.Nested(MoneySchema, required=True)
    paid = fields.Nested(MoneySchema, required=True)
    failure = fields.String(required=True, allow_none=True)
    action = fields.Nested(ActionSchema, required=True, allow_none=True)


def payment_json(shown: Shown) -> dict[str, Any]:
    """A payment as CardPaymentSchema documents it."""
    payment, action = shown
    return {
        "id": str(payment.id),
        "state": payment.state,
        "amount": money(payment.amount),
        "paid": money(payment.paid or 0),
        "failure": payment.failure,
        "action": action_json(action),
    }


def action_json(action: Action | None) -> dict[str, Any] | None:
    """What the driver must still do, as ActionSchema documents it."""
    if action is None:
        return None
    return {"kind": action.kind, "content": action.content, "expires_at": local(action.expires_at)}


@cards.route("", methods=["POST"])
@cards.allow("driver")
@cards.arguments(CardSchema)
@cards.response(204)
@cards.refusals(MalformedBody, BadBody, PaymentDeclined, PaymentRefused, NoCard, GatewayUnavailable)
def keep(body: dict[str, Any]) -> Response:
    """Keep a card, in place of the one before. The token is of one card, so a repetition keeps the same."""
    use_cases.keep(resources(), g.identity.subject, body["token"])
    return Response(status=204)

"""Payments: top up the wallet, or pay what is owed, at a bank (VietQR), at VNPay or by card."""

from typing import Any
from uuid import UUID

import orjson
import psycopg
from flask import Response, g, request
from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from app import cards, charges
from app.api.blueprint import Blueprint, answer, answer_once, next_link, once, together
from app.api.cards import ActionSchema, action_json
from app.api.fields import Instant, MoneySchema, local, money
from app.errors import BadBody, BadParameter, MalformedBody
from app.resources import resources
from billing import transfers
from billing.calls import Call
from billing.errors import (
    AmountTooLarge,
    AmountTooSmall,
    MethodUnavailable,
    NoCard,
    NothingOwed,
    PaymentDeclined,
    PaymentOver,
    PaymentRefused,
    PaymentUnderWay,
    UnknownPayment,
)
from billing.gateways import METHODS, Action
from billing.payments import Payment
from billing.rails import Payer
from billing.transfers import PURPOSES, Wanted

payments = Blueprint(
    "payments",
    __name__,
    url_prefix="/v1/payments",
    description="Payments at a bank or a gateway, of the driver who asks",
)
PAGE = 50
LEAST_TOPUP, MOST_TOPUP = 10_000, 20_000_000
PAYABLE = (*transfers.METHODS, charges.METHOD)
BY_CARD = (NoCard, PaymentDeclined, PaymentRefused, AmountTooSmall, AmountTooLarge)
STATES = ("created", "requires_action", "authorized", "unknown", "paid", "failed", "expired", "void")
ID_PARAMETER = {"name": "payment_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}


class PaymentQuery(Schema):
    """`amount` is needed for a top-up; for arrears it is at most what is owed, which is the default.

    `card` charges the card that is kept, now; a card is charged IPARKING_STRIPE_MINIMUM (13,000 VND) at least.
    """

    purpose = fields.String(required=True, validate=validate.OneOf(PURPOSES))
    method = fields.String(required=True, validate=validate.OneOf(PAYABLE))
    session = fields.UUID(allow_none=True, load_default=None)
    amount = fields.Integer(
        strict=True,
        allow_none=True,
        load_default=None,
        validate=validate.Range(1, MOST_TOPUP),
        metadata={"example": 50000},
    )
    locale = fields.String(load_default="vn", validate=validate.OneOf(("vn", "en")))

    @validates_schema
    def check_purpose(self, data: dict[str, Any], **_: Any) -> None:
        """Each purpose says by itself what is to be paid, but for one thing."""
        purpose, amount = data["purpose"], data["amount"]
        if purpose == "topup" and (amount is None or amount < LEAST_TOPUP):
            raise ValidationError(f"a top-up is {LEAST_TOPUP} to {MOST_TOPUP} VND", "amount")
        if purpose == "session" and amount is not None:
            raise ValidationError("a session is paid as a whole", "amount")
        if (purpose == "session") != (data["session"] is not None):
            raise ValidationError("goes with the purpose session", "session")


class ListSchema(Schema):
    """Where the page begins."""

    cursor = fields.UUID()
    limit = fields.Integer(load_default=PAGE, validate=validate.Range(1, 200))


class PaymentSchema(Schema):
    """`paid` is what came: less than `amount`, and the rest stays owed; more, and it is in the wallet.

    A payment that waits has `qr` (what a VietQR image says; the paths of the image), `redirect_url` (VNPay's page), or
    `action` (by card, where the bank asks its driver something). By card, `unknown` and `created` mean that no answer
    came yet: it is asked for until there is one, and the card is charged once.
    """

    id = fields.UUID(required=True)
    purpose = fields.String(required=True, validate=validate.OneOf(PURPOSES))
    session = fields.UUID(required=True, allow_none=True)
    method = fields.String(required=True, validate=validate.OneOf(METHODS))
    amount = fields.Nested(MoneySchema, required=True)
    paid = fields.Nested(MoneySchema, required=True, allow_none=True)
    state = fields.String(required=True, validate=validate.OneOf(STATES))
    reference = fields.String(required=True, metadata={"example": "PARK7K2M9QXW4HT"})
    failure = fields.String(required=True, allow_none=True)
    created_at = Instant(required=True)
    expires_at = Instant(required=True, allow_none=True)
    settled_at = Instant(required=True, allow_none=True)
    qr = fields.String(required=True, allow_none=True)
    qr_svg = fields.String(required=True, allow_none=True)
    qr_png = fields.String(required=True, allow_none=True)
    redirect_url = fields.String(required=True, allow_none=True)
    action = fields.Nested(ActionSchema, required=True, allow_none=True)


class PaymentPageSchema(Schema):
    """Newest first; a `Link` header leads to the next page."""

    payments = fields.List(fields.Nested(PaymentSchema), required=True)


def read_id(text: str) -> UUID:
    """A payment's id from the path. Raises BadParameter."""
    try:
        return UUID(text)
    except ValueError:
        raise BadParameter([{"field": "payment_id", "rule": "must be a UUID"}]) from None


def payment_json(payment: Payment, locale: str = "vn", action: Action | None = None) -> dict[str, Any]:
    """A payment as PaymentSchema documents it, with where it is to be paid, or what its driver must still do."""
    rails, now = resources().settings.rails, resources().clock.now()
    qr = rails.qr(payment, now)
    return {
        "id": str(payment.id),
        "purpose": payment.purpose,
        "session": payment.session_id and str(payment.session_id),
        "method": payment.method,
        "amount": money(payment.amount),
        "paid": None if payment.paid is None else money(payment.paid),
        "state": transfers.state_at(payment, now),
        "reference": payment.reference,
        "failure": payment.failure,
        "created_at": local(payment.created_at),
        "expires_at": local(payment.expires_at),
        "settled_at": local(payment.settled_at),
        "qr": qr,
        "qr_svg": qr and f"/v1/payments/{payment.id}/qr.svg",
        "qr_png": qr and f"/v1/payments/{payment.id}/qr.png",
        "redirect_url": rails.redirect_url(payment, Payer(request.remote_addr, locale), now),
        "action": action_json(action),
    }


def open_payment(body: dict[str, Any], wanted: Wanted) -> Response:
    """The answer to a POST that asks where to pay, or to be charged. Raises MethodUnavailable, NothingOwed; by card
    also BadBody, PaymentUnderWay and BY_CARD."""
    if wanted.method == charges.METHOD:
        return _charge(body, wanted)
    held = resources()
    held.settings.rails.check(wanted.method)
    now = held.clock.now()
    return answer_once(
        body, lambda connection: payment_json(transfers.create(connection, wanted, now), body["locale"]), 201
    )


def _charge(body: dict[str, Any], wanted: Wanted) -> Response:
    """The key is the payment's: repeated, it charges nothing, and says how that payment stands."""
    held, new = resources(), list[Call]()
    least = held.settings.stripe_minimum
    if wanted.amount is not None and wanted.amount < least:
        raise BadBody([{"field": "amount", "rule": f"by card {least} VND at least"}])

    def ask(connection: psycopg.Connection) -> str:
        new.append(charges.ask(held, connection, wanted))
        return str(new[0].payment_id)

    payment_id = UUID(orjson.loads(once(body, together(ask))))
    shown = charges.settle(held, payment_id, new[0] if new else None)
    return answer(payment_json(shown.payment, action=shown.action), 201)


def _find(payment_id: str) -> Payment:
    return transfers.find(resources().connections.get(), read_id(payment_id), g.identity.subject)


@payments.route("", methods=["POST"])
@payments.allow("driver")
@payments.repeatable
@payments.arguments(PaymentQuery)
@payments.response(201, PaymentSchema)
@payments.refusals(MalformedBody, BadBody, NothingOwed, MethodUnavailable, PaymentUnderWay, *BY_CARD)
def create(body: dict[str, Any]) -> Response:
    """Ask where to pay, or have the card charged. The money is booked when it comes, once."""
    wanted = Wanted(g.identity.subject, body["purpose"], body["method"], body["amount"], body["session"])
    return open_payment(body, wanted)


@payments.route("", methods=["GET"])
@payments.allow("driver")
@payments.arguments(ListSchema, location="query", error_status_code=400)
@payments.response(200, PaymentPageSchema)
@payments.refusals(BadParameter)
def history(wanted: dict[str, Any]) -> Response:
    """The driver's payments of every method, newest first."""
    cursor, limit = wanted.get("cursor"), wanted["limit"]
    found = transfers.of_client(resources().connections.get(), g.identity.subject, cursor, limit + 1)
    page = {"payments": [payment_json(payment) for payment in found[:limit]]}
    return answer(page, headers=next_link(str(found[limit - 1].id)) if len(found) > limit else None)


@payments.route("/<payment_id>", methods=["GET"], parameters=[ID_PARAMETER])
@payments.allow("driver")
@payments.response(200, PaymentSchema)
@payments.refusals(BadParameter, UnknownPayment)
def find(payment_id: str) -> Response:
    """One payment as it is now."""
    payment = _find(payment_id)
    if payment.method != charges.METHOD:
        return answer(payment_json(payment))
    shown = cards.shown(resources(), payment.id)
    return answer(payment_json(shown.payment, action=shown.action))


def _image(payment_id: str, kind: str, mimetype: str) -> Response:
    payment, now = _find(payment_id), resources().clock.now()
    return Response(resources().settings.rails.image(payment, kind, now), mimetype=mimetype)


@payments.route("/<payment_id>/qr.svg", methods=["GET"], parameters=[ID_PARAMETER])
@payments.allow("driver")
@payments.response(200, {"type": "string"}, content_type="image/svg+xml")
@payments.refusals(BadParameter, UnknownPayment, PaymentOver)
def svg(payment_id: str) -> Response:
    """The QR image, scalable."""
    return _image(payment_id, "svg", "image/svg+xml")


@payments.route("/<payment_id>/qr.png", methods=["GET"], parameters=[ID_PARAMETER])
@payments.allow("driver")
@payments.response(200, {"type": "string", "format": "binary"}, content_type="image/png")
@payments.refusals(BadParameter, UnknownPayment, PaymentOver)
def png(payment_id: str) -> Response:
    """The QR image, in pixels."""
    return _image(payment_id, "png", "image/png")

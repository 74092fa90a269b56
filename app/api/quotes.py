"""Quotes: what a stay would cost."""

from typing import Any

from flask import Response
from marshmallow import Schema, fields, validate

from app import parking
from app.api.blueprint import Blueprint, answer_once
from app.api.fields import Instant, MoneySchema, local, money, plate, vehicle_class, zone_code
from app.errors import BadBody, MalformedBody
from app.parking import Quote
from app.paying import REASONS, payment_methods
from app.resources import resources
from billing.errors import NoRate
from billing.gateways import METHODS
from zones import errors

quotes = Blueprint("quotes", __name__, url_prefix="/v1/quotes", description="What a stay would cost")


class QuoteQuery(Schema):
    """Any instant for which a rate exists, past or future. With a `plate`, its rights are looked at."""

    zone = zone_code(required=True)
    vehicle_class = vehicle_class(required=True)
    start = Instant(required=True)
    minutes = fields.Integer(required=True, strict=True, validate=validate.Range(1, 1_000_000))
    plate = plate(allow_none=True)


class LineSchema(Schema):
    """`units` started units at `price` make `amount`."""

    from_ = Instant(required=True, data_key="from")
    to = Instant(required=True)
    unit = fields.String(required=True)
    units = fields.Integer(required=True)
    price = fields.Integer(required=True)
    amount = fields.Integer(required=True)


class TaxSchema(Schema):
    """Value-added tax, which is in the total; its rate in hundredths of a percent."""

    amount = fields.Nested(MoneySchema, required=True)
    basis_points = fields.Integer(required=True)


class HoldSchema(Schema):
    """What a wallet puts aside at the start: for this stay, and for one without an end."""

    fixed = fields.Nested(MoneySchema, required=True)
    open = fields.Nested(MoneySchema, required=True)


class MethodSchema(Schema):
    """Whether a method can pay this stay; `reason` says how, or why not.

    `put_aside`: in the wallet, at the start. `held_on_card`: at the start. `small_fee_from_wallet`: too little for a
    card; it draws on the wallet, or waits where that does not cover it. `charged_together`: too little for a card; it
    waits until it is enough for one charge. `above_card_maximum`: too much for a card. `owed_until_paid`: it is owed
    when the stay ends, and paid then. `not_set_up`: not here. `not_free`: something may be owed, and no right of the
    vehicle is known. `by_right`: the vehicle may stand there all that time without paying. `nothing_to_pay`.
    """

    method = fields.String(required=True, validate=validate.OneOf(METHODS))
    allowed = fields.Boolean(required=True)
    reason = fields.String(required=True, validate=validate.OneOf(REASONS))


class QuoteSchema(Schema):
    """The lines add up to the total, which is all that is to be paid: tax is in it, and no fee comes on top."""

    total = fields.Nested(MoneySchema, required=True)
    tax = fields.Nested(TaxSchema, required=True)
    wallet_hold = fields.Nested(HoldSchema, required=True)
    payment_methods = fields.List(fields.Nested(MethodSchema), required=True)
    lines = fields.List(fields.Nested(LineSchema), required=True)
    rate_version = fields.String(required=True)
    max_stay_minutes = fields.Integer(required=True)


def quote_json(quote: Quote) -> dict[str, Any]:
    """A quote as QuoteSchema documents it."""
    lines = [
        {
            "from": local(line.start),
            "to": local(line.end),
            "unit": line.unit,
            "units": line.units,
            "price": line.price,
            "amount": line.amount,
        }
        for line in quote.bill.lines
    ]
    return {
        "total": money(quote.bill.total),
        "tax": {"amount": money(quote.tax), "basis_points": quote.tax_basis_points},
        "wallet_hold": {"fixed": money(quote.bill.total), "open": money(quote.open_hold)},
        "payment_methods": [
            {"method": method, "allowed": allowed, "reason": reason}
            for method, (allowed, reason) in _methods(quote).items()
        ],
        "lines": lines,
        "rate_version": quote.rate_version,
        "max_stay_minutes": quote.max_stay_minutes,
    }


def _methods(quote: Quote) -> dict[str, tuple[bool, str]]:
    return payment_methods(resources().settings, quote.bill.total, quote.by_right)


@quotes.route("", methods=["POST"])
@quotes.allow("driver", "operator", "planner", "warden")
@quotes.repeatable
@quotes.arguments(QuoteQuery)
@quotes.response(200, QuoteSchema)
@quotes.refusals(MalformedBody, BadBody, NoRate, errors.InvalidPlate)
@quotes.refusals(errors.UnknownZone, errors.ClassNotServed, errors.MaxStayExceeded)
def quote(body: dict[str, Any]) -> Response:
    """Price a stay before it is bought."""
    return answer_once(body, lambda _: quote_json(parking.quote(resources(), **body)))

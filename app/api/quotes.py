"""Quotes: what a stay would cost."""

from typing import Any

from flask import Response
from marshmallow import Schema, fields, validate

from app import parking
from app.api.blueprint import Blueprint, answer_once
from app.api.fields import Instant, MoneySchema, local, money, vehicle_class, zone_code
from app.errors import BadBody, MalformedBody
from app.parking import Quote
from app.resources import resources
from billing.errors import NoRate
from zones import errors

quotes = Blueprint("quotes", __name__, url_prefix="/v1/quotes", description="What a stay would cost")


class QuoteQuery(Schema):
    """Any instant for which a rate exists, past or future."""

    zone = zone_code(required=True)
    vehicle_class = vehicle_class(required=True)
    start = Instant(required=True)
    minutes = fields.Integer(required=True, strict=True, validate=validate.Range(1, 1_000_000))


class LineSchema(Schema):
    """`units` started units at `price` make `amount`."""

    from_ = Instant(required=True, data_key="from")
    to = Instant(required=True)
    unit = fields.String(required=True)
    units = fields.Integer(required=True)
    price = fields.Integer(required=True)
    amount = fields.Integer(required=True)


class QuoteSchema(Schema):
    """The lines add up to the total."""

    total = fields.Nested(MoneySchema, required=True)
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
        "lines": lines,
        "rate_version": quote.rate_version,
        "max_stay_minutes": quote.max_stay_minutes,
    }


@quotes.route("", methods=["POST"])
@quotes.allow("driver", "operator", "planner", "warden")
@quotes.repeatable
@quotes.arguments(QuoteQuery)
@quotes.response(200, QuoteSchema)
@quotes.refusals(MalformedBody, BadBody, NoRate)
@quotes.refusals(errors.UnknownZone, errors.ClassNotServed, errors.MaxStayExceeded)
def quote(body: dict[str, Any]) -> Response:
    """Price a stay before it is bought."""
    return answer_once(body, lambda _: quote_json(parking.quote(resources(), **body)))

"""Webhooks: what payment services tell us. Answered at once; what they mean is worked out by a job."""

from typing import Any

from flask import Response, request
from marshmallow import Schema, fields

from app import webhooks as received
from app.api.blueprint import Blueprint, answer
from app.errors import UnknownResource
from app.resources import resources
from billing.errors import BadSignature, UnreadableEvent

webhooks = Blueprint("webhooks", __name__, url_prefix="/v1/webhooks", description="What payment services tell us")
SIGNATURE = {
    "name": "Stripe-Signature",
    "in": "header",
    "required": True,
    "description": "`t=<seconds>,v1=<hex>`: HMAC-SHA256 of `<seconds>.<body>` with the endpoint's secret.",
    "schema": {"type": "string"},
}
EVENT: dict[str, Any] = {
    "required": True,
    "content": {"application/json": {"schema": {"type": "object", "required": ["id", "type"]}}},
}


class EventReceivedSchema(Schema):
    """Stored; `repeated` where it was stored before."""

    received = fields.Boolean(required=True)
    repeated = fields.Boolean(required=True)


@webhooks.route("/stripe", methods=["POST"])
@webhooks.doc(parameters=[SIGNATURE], requestBody=EVENT)
@webhooks.response(200, EventReceivedSchema)
@webhooks.refusals(BadSignature, UnreadableEvent, UnknownResource)
def stripe() -> Response:
    """Take an event of Stripe's."""
    held = resources()
    if not held.settings.stripe_webhook_secrets:
        raise UnknownResource("Stripe is not set up here")
    is_new = received.receive_stripe(held, request.get_data(), request.headers.get("Stripe-Signature"))
    return answer({"received": True, "repeated": not is_new})

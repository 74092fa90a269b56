"""What VNPay and the bank tell us: `/v1/webhooks/vnpay` and `/v1/webhooks/bank`."""

from typing import Any

from flask import Response, request
from marshmallow import Schema, fields

from app import notices as received
from app.api.blueprint import Blueprint, answer
from app.errors import UnknownResource
from app.resources import resources
from billing.errors import BadSignature, UnreadableEvent

notices = Blueprint("notices", __name__, url_prefix="/v1/webhooks", description="What VNPay and the bank tell us")
IPN: list[dict[str, Any]] = [
    {
        "name": "vnp_SecureHash",
        "in": "query",
        "required": False,
        "description": "HMAC-SHA512 of all other `vnp_` parameters, as they are sent, in the order of their names.",
        "schema": {"type": "string"},
    }
]
HEADERS: list[dict[str, Any]] = [
    {
        "name": "X-Timestamp",
        "in": "header",
        "required": True,
        "description": "Seconds since 1970, at most five minutes off.",
        "schema": {"type": "string"},
    },
    {
        "name": "X-Signature",
        "in": "header",
        "required": True,
        "description": "`sha256=<hex>`: HMAC-SHA256 of `<X-Timestamp>.<body>` with the secret that we share.",
        "schema": {"type": "string"},
    },
]
PUSH: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["transaction_id", "account", "amount", "at", "description"],
                "properties": {
                    "transaction_id": {"type": "string", "description": "As the bank's statement prints it."},
                    "account": {"type": "string"},
                    "amount": {"type": "integer", "description": "VND"},
                    "at": {"type": "string", "format": "date-time"},
                    "description": {"type": "string", "description": "The text of the transfer."},
                },
            }
        }
    },
}


class IpnAnswerSchema(Schema):
    """VNPay's codes: 00 confirmed, 01 unknown order, 02 known, 04 wrong amount, 97 bad signature, 99 other."""

    RspCode = fields.String(required=True)
    Message = fields.String(required=True)


class NoticeTakenSchema(Schema):
    """Stored; `repeated` where it was stored before."""

    received = fields.Boolean(required=True)
    repeated = fields.Boolean(required=True)


@notices.route("/vnpay", methods=["GET"])
@notices.doc(parameters=IPN)
@notices.response(200, IpnAnswerSchema)
def vnpay() -> Response:
    """Take VNPay's word for an order (IPN)."""
    code, message = received.take_ipn(resources(), request.query_string.decode("ascii", "replace"))
    return answer({"RspCode": code, "Message": message})


@notices.route("/bank", methods=["POST"])
@notices.doc(parameters=HEADERS, requestBody=PUSH)
@notices.response(200, NoticeTakenSchema)
@notices.refusals(BadSignature, UnreadableEvent, UnknownResource)
def bank() -> Response:
    """Take a credit that the bank pushes."""
    held = resources()
    if not held.settings.rails.bank_secret:
        raise UnknownResource("no bank pushes here")
    timestamp, signature = (request.headers.get(name, "") for name in ("X-Timestamp", "X-Signature"))
    is_new = received.take_push(held, timestamp, signature, request.get_data())
    return answer({"received": True, "repeated": not is_new})

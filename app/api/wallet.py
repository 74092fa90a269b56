"""The driver's wallet: what is in it, what is put aside, what is owed."""

from flask import Response, g
from marshmallow import Schema, fields

from app.api.blueprint import Blueprint, answer
from app.api.fields import MoneySchema, money
from app.resources import resources
from billing import ledger

wallet = Blueprint("wallet", __name__, url_prefix="/v1/wallet", description="The wallet of the driver who asks")


class WalletSchema(Schema):
    """`balance` is the driver's; `held` of it is put aside for running sessions; `owed` is unpaid from earlier ones."""

    balance = fields.Nested(MoneySchema, required=True)
    held = fields.Nested(MoneySchema, required=True)
    available = fields.Nested(MoneySchema, required=True)
    owed = fields.Nested(MoneySchema, required=True)


@wallet.route("", methods=["GET"])
@wallet.allow("driver")
@wallet.response(200, WalletSchema)
def find() -> Response:
    """What the driver has and owes now."""
    has = ledger.wallet(resources().connections.get(), g.identity.subject)
    shown = {"balance": has.balance, "held": has.held, "available": has.available, "owed": has.owed}
    return answer({name: money(amount) for name, amount in shown.items()})

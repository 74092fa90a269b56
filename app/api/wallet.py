"""The driver's wallet: what is in it, the lines that explain it, what is put aside, what is owed and for what."""

from typing import Any

import psycopg
from flask import Response, g
from marshmallow import Schema, fields, validate

from app.api.blueprint import Blueprint, answer, answer_together, next_link
from app.api.fields import Instant, MoneySchema, local, money
from app.api.payments import BY_CARD, LEAST_TOPUP, MOST_TOPUP, PAYABLE, PaymentSchema, open_payment
from app.errors import BadBody, BadParameter, MalformedBody
from app.resources import resources
from billing import ledger, wallets
from billing.errors import InsufficientFunds, MethodUnavailable, NothingOwed
from billing.transfers import Wanted
from billing.wallets import Debt, Line

wallet = Blueprint("wallet", __name__, url_prefix="/v1/wallet", description="The wallet of the driver who asks")
PAGE = 50


class DebtSchema(Schema):
    """What is still owed for one session, or (null) for something else."""

    session = fields.UUID(required=True, allow_none=True)
    amount = fields.Nested(MoneySchema, required=True)
    since = Instant(required=True, allow_none=True)


class WalletSchema(Schema):
    """`balance` is the driver's; `held` of it is put aside for running sessions; `owed` is unpaid from earlier ones."""

    balance = fields.Nested(MoneySchema, required=True)
    held = fields.Nested(MoneySchema, required=True)
    available = fields.Nested(MoneySchema, required=True)
    owed = fields.Nested(MoneySchema, required=True)
    owed_sessions = fields.List(fields.Nested(DebtSchema), required=True)


class NothingSchema(Schema):
    """No fields."""


class TopUpSchema(Schema):
    """How much is to come, and by which rail."""

    amount = fields.Integer(
        required=True, strict=True, validate=validate.Range(LEAST_TOPUP, MOST_TOPUP), metadata={"example": 50000}
    )
    method = fields.String(required=True, validate=validate.OneOf(PAYABLE))
    locale = fields.String(load_default="vn", validate=validate.OneOf(("vn", "en")))


class PaidOwedSchema(Schema):
    """What was paid now, and the wallet behind that."""

    paid = fields.Nested(MoneySchema, required=True)
    wallet = fields.Nested(WalletSchema, required=True)


class CursorSchema(Schema):
    """Where a page begins, and how long it is."""

    cursor = fields.UUID()
    limit = fields.Integer(load_default=PAGE, validate=validate.Range(1, 200))


class EntrySchema(Schema):
    """One booking. `amount` came in, or went out where it is below 0; `balance` is what was then in the wallet."""

    id = fields.UUID(required=True)
    at = Instant(required=True)
    kind = fields.String(required=True)
    amount = fields.Nested(MoneySchema, required=True)
    balance = fields.Nested(MoneySchema, required=True)
    reference = fields.String(required=True)
    session = fields.UUID(required=True, allow_none=True)
    reverses = fields.UUID(required=True, allow_none=True)
    reversed_by = fields.UUID(required=True, allow_none=True)


class EntryPageSchema(Schema):
    """Newest first; a `Link` header leads to the next page. All amounts of all pages add up to the balance."""

    entries = fields.List(fields.Nested(EntrySchema), required=True)


def wallet_json(connection: psycopg.Connection, owner: str) -> dict[str, Any]:
    """A wallet as WalletSchema documents it."""
    has = ledger.wallet(connection, owner)
    shown = {"balance": has.balance, "held": has.held, "available": has.available, "owed": has.owed}
    debts = wallets.debts(connection, owner, has.owed)
    return {name: money(amount) for name, amount in shown.items()} | {
        "owed_sessions": [debt_json(one) for one in debts]
    }


def debt_json(debt: Debt) -> dict[str, Any]:
    """A debt as DebtSchema documents it."""
    session = None if debt.session_id is None else str(debt.session_id)
    return {"session": session, "amount": money(debt.amount), "since": local(debt.since)}


def line_json(line: Line) -> dict[str, Any]:
    """A booking as EntrySchema documents it."""
    return {
        "id": str(line.id),
        "at": local(line.at),
        "kind": line.kind,
        "amount": money(line.amount),
        "balance": money(line.balance),
        "reference": line.reference,
        "session": line.session_id,
        "reverses": line.reverses,
        "reversed_by": line.reversed_by,
    }


@wallet.route("", methods=["GET"])
@wallet.allow("driver")
@wallet.response(200, WalletSchema)
def find() -> Response:
    """What the driver has and owes now, and for which sessions."""
    return answer(wallet_json(resources().connections.get(), g.identity.subject))


@wallet.route("/entries", methods=["GET"])
@wallet.allow("driver")
@wallet.arguments(CursorSchema, location="query", error_status_code=400)
@wallet.response(200, EntryPageSchema)
@wallet.refusals(BadParameter)
def find_entries(wanted: dict[str, Any]) -> Response:
    """Every line that explains the balance, newest first."""
    limit = wanted["limit"]
    connection = resources().connections.get()
    found = wallets.lines(connection, g.identity.subject, wanted.get("cursor"), limit + 1)
    page = {"entries": [line_json(line) for line in found[:limit]]}
    return answer(page, headers=next_link(str(found[limit - 1].id)) if len(found) > limit else None)


@wallet.route("/topups", methods=["POST"])
@wallet.allow("driver")
@wallet.repeatable
@wallet.arguments(TopUpSchema)
@wallet.response(201, PaymentSchema)
@wallet.refusals(MalformedBody, BadBody, MethodUnavailable, *BY_CARD)
def top_up(body: dict[str, Any]) -> Response:
    """Ask where to pay for a top-up, or have the card charged: a payment as `POST /v1/payments` makes it. The money is
    booked when it comes."""
    return open_payment(body, Wanted(g.identity.subject, "topup", body["method"], body["amount"]))


@wallet.route("/pay-owed", methods=["POST"])
@wallet.allow("driver")
@wallet.repeatable
@wallet.arguments(NothingSchema)
@wallet.response(200, PaidOwedSchema)
@wallet.refusals(MalformedBody, BadBody, NothingOwed, InsufficientFunds)
def pay_owed(body: dict[str, Any]) -> Response:
    """Pay what is owed out of what is free in the wallet: as much as there is, oldest first."""
    return answer_together(body, _pay_owed)


def _pay_owed(connection: psycopg.Connection) -> dict[str, Any]:
    owner = g.identity.subject
    paid = wallets.settle_owed(connection, owner, resources().clock.now())
    if not paid and ledger.wallet(connection, owner).owed <= 0:
        raise NothingOwed("nothing is owed")
    if not paid:
        raise InsufficientFunds("nothing is free in the wallet: top it up")
    return {"paid": money(paid), "wallet": wallet_json(connection, owner)}

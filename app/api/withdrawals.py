"""Withdrawals: a driver takes wallet money out, an operator says when the bank has sent it."""

from typing import Any

import psycopg
from flask import Response, g
from marshmallow import Schema, fields, validate

from app.api.blueprint import Blueprint, answer, answer_together, next_link, read_uuid, uuid_parameter
from app.api.fields import Instant, MoneySchema, PlainText, amount, local, money, reason, words
from app.api.wallet import CursorSchema
from app.errors import BadBody, BadParameter, MalformedBody
from app.resources import resources
from billing import audit
from billing import withdrawals as booked
from billing.audit import Act
from billing.errors import AlreadyDecided, InsufficientFunds, UnknownWithdrawal
from billing.withdrawals import STATES, BankAccount, Withdrawal

withdrawals = Blueprint(
    "withdrawals", __name__, url_prefix="/v1/wallet/withdrawals", description="Money from a wallet to a bank account"
)
decisions = Blueprint(
    "withdrawal_decisions", __name__, url_prefix="/v1/admin/withdrawals", description="Withdrawals, for operators"
)
ID = uuid_parameter("withdrawal_id")


class BankAccountSchema(Schema):
    """`bin` is the bank's number at NAPAS."""

    bin = PlainText(required=True, validate=validate.Regexp("^[0-9]{6}$"), metadata={"example": "970436"})
    number = PlainText(
        required=True, validate=validate.Regexp("^[0-9A-Za-z]{4,19}$"), metadata={"example": "0011001234567"}
    )
    holder = words(100, "NGUYỄN VĂN A", required=True)


class WithdrawalRequestSchema(Schema):
    """How much, and where to."""

    amount = amount(required=True)
    bank_account = fields.Nested(BankAccountSchema, required=True)


class WithdrawalSchema(Schema):
    """`requested` has left the wallet; `paid` was sent by the bank; `rejected` is back in the wallet."""

    id = fields.UUID(required=True)
    amount = fields.Nested(MoneySchema, required=True)
    bank_account = fields.Nested(BankAccountSchema, required=True)
    state = fields.String(required=True, validate=validate.OneOf(STATES))
    bank_reference = fields.String(required=True, allow_none=True)
    requested_at = Instant(required=True)
    decided_at = Instant(required=True, allow_none=True)


class ClientWithdrawalSchema(WithdrawalSchema):
    """A withdrawal and whose it is."""

    client = fields.String(required=True)


class WithdrawalPageSchema(Schema):
    """Newest first; a `Link` header leads to the next page."""

    withdrawals = fields.List(fields.Nested(WithdrawalSchema), required=True)


class ClientWithdrawalPageSchema(Schema):
    """Newest first; a `Link` header leads to the next page."""

    withdrawals = fields.List(fields.Nested(ClientWithdrawalSchema), required=True)


class SearchSchema(CursorSchema):
    """Which withdrawals, and where the page begins."""

    state = fields.String(validate=validate.OneOf(STATES))


class PaidSchema(Schema):
    """The bank's reference of the transfer, and a note."""

    bank_reference = PlainText(required=True, validate=validate.And(validate.Length(1, 100), validate.Regexp(r".*\S")))
    reason = reason(load_default="paid")


class RejectedSchema(Schema):
    """Why the money goes back."""

    reason = reason(required=True)


def withdrawal_json(made: Withdrawal) -> dict[str, Any]:
    """A withdrawal as WithdrawalSchema documents it."""
    account = {"bin": made.bank_bin, "number": made.account_number, "holder": made.account_holder}
    return {
        "id": str(made.id),
        "amount": money(made.amount),
        "bank_account": account,
        "state": made.state,
        "bank_reference": made.bank_reference,
        "requested_at": local(made.requested_at),
        "decided_at": local(made.decided_at),
    }


@withdrawals.route("", methods=["POST"])
@withdrawals.allow("driver")
@withdrawals.repeatable
@withdrawals.arguments(WithdrawalRequestSchema)
@withdrawals.response(201, WithdrawalSchema)
@withdrawals.refusals(MalformedBody, BadBody, InsufficientFunds)
def request_withdrawal(body: dict[str, Any]) -> Response:
    """Take money out of the wallet. What is owed is paid first; what is put aside stays."""
    account = body["bank_account"]
    to = BankAccount(account["bin"], account["number"], account["holder"])
    client, now = g.identity.subject, resources().clock.now()

    def do(connection: psycopg.Connection) -> dict[str, Any]:
        return withdrawal_json(booked.request(connection, client, body["amount"], to, now))

    return answer_together(body, do, 201)


@withdrawals.route("", methods=["GET"])
@withdrawals.allow("driver")
@withdrawals.arguments(SearchSchema, location="query", error_status_code=400)
@withdrawals.response(200, WithdrawalPageSchema)
@withdrawals.refusals(BadParameter)
def find_own(wanted: dict[str, Any]) -> Response:
    """The driver's withdrawals, newest first."""
    return _page(wanted, g.identity.subject, withdrawal_json)


@decisions.route("", methods=["GET"])
@decisions.allow("operator")
@decisions.arguments(SearchSchema, location="query", error_status_code=400)
@decisions.response(200, ClientWithdrawalPageSchema)
@decisions.refusals(BadParameter)
def find_all(wanted: dict[str, Any]) -> Response:
    """Everybody's withdrawals, newest first."""
    return _page(wanted, None, _with_client)


def _with_client(made: Withdrawal) -> dict[str, Any]:
    return withdrawal_json(made) | {"client": made.client}


def _page(wanted: dict[str, Any], client: str | None, shown: Any) -> Response:
    limit, connection = wanted["limit"], resources().connections.get()
    found = booked.find_all(connection, client, wanted.get("state"), wanted.get("cursor"), limit + 1)
    page = {"withdrawals": [shown(one) for one in found[:limit]]}
    return answer(page, headers=next_link(str(found[limit - 1].id)) if len(found) > limit else None)


@decisions.route("/<withdrawal_id>/pay", methods=["POST"], parameters=[ID])
@decisions.allow("operator")
@decisions.repeatable
@decisions.arguments(PaidSchema)
@decisions.response(200, ClientWithdrawalSchema)
@decisions.refusals(MalformedBody, BadBody, UnknownWithdrawal, AlreadyDecided)
def pay(body: dict[str, Any], withdrawal_id: str) -> Response:
    """Note that the bank has sent the money."""
    wanted, act = (
        read_uuid(withdrawal_id, "withdrawal_id"),
        Act(g.identity.subject, resources().clock.now(), body["reason"]),
    )

    def do(connection: psycopg.Connection) -> dict[str, Any]:
        paid = booked.pay(connection, wanted, body["bank_reference"], act.at)
        audit.note(connection, act, "withdrawal.pay", str(wanted), {"bank_reference": paid.bank_reference})
        return _with_client(paid)

    return answer_together(body, do)


@decisions.route("/<withdrawal_id>/reject", methods=["POST"], parameters=[ID])
@decisions.allow("operator")
@decisions.repeatable
@decisions.arguments(RejectedSchema)
@decisions.response(200, ClientWithdrawalSchema)
@decisions.refusals(MalformedBody, BadBody, UnknownWithdrawal, AlreadyDecided)
def reject(body: dict[str, Any], withdrawal_id: str) -> Response:
    """Put the money back into the wallet."""
    wanted, act = (
        read_uuid(withdrawal_id, "withdrawal_id"),
        Act(g.identity.subject, resources().clock.now(), body["reason"]),
    )

    def do(connection: psycopg.Connection) -> dict[str, Any]:
        rejected = booked.reject(connection, wanted, act.at)
        audit.note(connection, act, "withdrawal.reject", str(wanted))
        return _with_client(rejected)

    return answer_together(body, do)

"""Refunds: a driver asks, an operator decides; and an operator takes mistakes back."""

from typing import Any

import psycopg
from flask import Response, g
from marshmallow import Schema, fields, validate

from app import refunds as use_cases
from app.api.blueprint import Blueprint, answer, answer_together, next_link, read_uuid, uuid_parameter
from app.api.fields import Instant, MoneySchema, amount, local, money, reason
from app.api.wallet import CursorSchema
from app.errors import BadBody, BadParameter, MalformedBody
from app.refunds import Voided
from app.resources import resources
from billing import audit
from billing import refunds as booked
from billing.audit import Act
from billing.errors import (
    AlreadyDecided,
    AlreadyRequested,
    NoOpenShift,
    NothingCharged,
    RefundExceedsCharge,
    UnknownRefund,
)
from billing.refunds import KINDS, STATES, Refund
from zones.errors import UnknownSession

refunds = Blueprint("refunds", __name__, url_prefix="/v1/refunds", description="Refunds that the driver asked for")
decisions = Blueprint("refund_decisions", __name__, url_prefix="/v1/admin", description="Refunds, for operators")
ID = uuid_parameter("refund_id")
SESSION_ID = uuid_parameter("session_id")


class RefundRequestSchema(Schema):
    """Of which session, and why."""

    session = fields.UUID(required=True)
    reason = reason(required=True)


class RefundSchema(Schema):
    """`amount` is what was given back (null while nothing was): off what was owed, to the card, to the wallet.

    `pending_gateway`: the card's bank is still to give its part back.
    """

    id = fields.UUID(required=True)
    kind = fields.String(required=True, validate=validate.OneOf(KINDS))
    session = fields.UUID(required=True)
    reason = fields.String(required=True)
    state = fields.String(required=True, validate=validate.OneOf(STATES))
    charged = fields.Nested(MoneySchema, required=True)
    amount = fields.Nested(MoneySchema, required=True, allow_none=True)
    to_debt = fields.Nested(MoneySchema, required=True)
    to_card = fields.Nested(MoneySchema, required=True)
    to_wallet = fields.Nested(MoneySchema, required=True)
    requested_at = Instant(required=True)
    decided_at = Instant(required=True, allow_none=True)
    decision = fields.String(required=True, allow_none=True)


class ClientRefundSchema(RefundSchema):
    """A refund, whose it is, and who decided it."""

    client = fields.String(required=True)
    decided_by = fields.String(required=True, allow_none=True)


class RefundPageSchema(Schema):
    """Newest first; a `Link` header leads to the next page."""

    refunds = fields.List(fields.Nested(RefundSchema), required=True)


class ClientRefundPageSchema(Schema):
    """Newest first; a `Link` header leads to the next page."""

    refunds = fields.List(fields.Nested(ClientRefundSchema), required=True)


class RefundSearchSchema(CursorSchema):
    """Which refunds, and where the page begins."""

    state = fields.String(validate=validate.OneOf(STATES))


class ApprovalSchema(Schema):
    """How much is given back (all that is left, where nothing is said), and why."""

    amount = amount(load_default=None, allow_none=True)
    reason = reason(load_default="approved")


class ReasonSchema(Schema):
    """Why."""

    reason = reason(required=True)


class VoidedSchema(Schema):
    """What became of the session: its charge was given back, or (null) it was running and cost nothing."""

    session = fields.UUID(required=True)
    refund = fields.Nested(ClientRefundSchema, required=True, allow_none=True)


def refund_json(made: Refund) -> dict[str, Any]:
    """A refund as RefundSchema documents it."""
    return {
        "id": str(made.id),
        "kind": made.kind,
        "session": str(made.session_id),
        "reason": made.reason,
        "state": made.state,
        "charged": money(made.charged),
        "amount": None if made.amount is None else money(made.amount),
        "to_debt": money(made.to_debt),
        "to_card": money(made.to_gateway),
        "to_wallet": money(made.to_purse),
        "requested_at": local(made.requested_at),
        "decided_at": local(made.decided_at),
        "decision": made.decision,
    }


def client_refund_json(made: Refund) -> dict[str, Any]:
    """A refund as ClientRefundSchema documents it."""
    return refund_json(made) | {"client": made.client, "decided_by": made.decided_by}


@refunds.route("", methods=["POST"])
@refunds.allow("driver")
@refunds.repeatable
@refunds.arguments(RefundRequestSchema)
@refunds.response(201, RefundSchema)
@refunds.refusals(MalformedBody, BadBody, UnknownSession, NothingCharged, AlreadyRequested, RefundExceedsCharge)
def request_refund(body: dict[str, Any]) -> Response:
    """Ask for money back for a session that is over; an operator decides."""
    wanted = (g.identity.subject, body["session"], body["reason"])
    return answer_together(
        body, lambda connection: refund_json(use_cases.request(resources(), connection, *wanted)), 201
    )


@refunds.route("", methods=["GET"])
@refunds.allow("driver")
@refunds.arguments(RefundSearchSchema, location="query", error_status_code=400)
@refunds.response(200, RefundPageSchema)
@refunds.refusals(BadParameter)
def find_own(wanted: dict[str, Any]) -> Response:
    """The driver's refunds, newest first."""
    return _page(wanted, g.identity.subject, refund_json)


@decisions.route("/refunds", methods=["GET"])
@decisions.allow("operator")
@decisions.arguments(RefundSearchSchema, location="query", error_status_code=400)
@decisions.response(200, ClientRefundPageSchema)
@decisions.refusals(BadParameter)
def find_all(wanted: dict[str, Any]) -> Response:
    """Everybody's refunds, newest first."""
    return _page(wanted, None, client_refund_json)


def _page(wanted: dict[str, Any], client: str | None, shown: Any) -> Response:
    limit, connection = wanted["limit"], resources().connections.get()
    found = booked.find_all(connection, client, wanted.get("state"), wanted.get("cursor"), limit + 1)
    page = {"refunds": [shown(one) for one in found[:limit]]}
    return answer(page, headers=next_link(str(found[limit - 1].id)) if len(found) > limit else None)


@decisions.route("/refunds/<refund_id>/approve", methods=["POST"], parameters=[ID])
@decisions.allow("operator")
@decisions.repeatable
@decisions.arguments(ApprovalSchema)
@decisions.response(200, ClientRefundSchema)
@decisions.refusals(MalformedBody, BadBody, UnknownRefund, AlreadyDecided, RefundExceedsCharge)
def approve(body: dict[str, Any], refund_id: str) -> Response:
    """Give money back, all that is left of the charge or a part of it; never more in all than was charged."""
    wanted, act = read_uuid(refund_id, "refund_id"), _act(body)

    def do(connection: psycopg.Connection) -> dict[str, Any]:
        given = booked.approve(connection, wanted, body["amount"], act)
        audit.note(connection, act, "refund.approve", str(wanted), {"amount": given.amount})
        return client_refund_json(given)

    return answer_together(body, do)


@decisions.route("/refunds/<refund_id>/reject", methods=["POST"], parameters=[ID])
@decisions.allow("operator")
@decisions.repeatable
@decisions.arguments(ReasonSchema)
@decisions.response(200, ClientRefundSchema)
@decisions.refusals(MalformedBody, BadBody, UnknownRefund, AlreadyDecided)
def reject(body: dict[str, Any], refund_id: str) -> Response:
    """Give nothing back."""
    wanted, act = read_uuid(refund_id, "refund_id"), _act(body)

    def do(connection: psycopg.Connection) -> dict[str, Any]:
        rejected = booked.reject(connection, wanted, act)
        audit.note(connection, act, "refund.reject", str(wanted))
        return client_refund_json(rejected)

    return answer_together(body, do)


def _act(body: dict[str, Any]) -> Act:
    return Act(g.identity.subject, resources().clock.now(), body["reason"])


@decisions.route("/sessions/<session_id>/void", methods=["POST"], parameters=[SESSION_ID])
@decisions.allow("operator")
@decisions.repeatable
@decisions.arguments(ReasonSchema)
@decisions.response(200, VoidedSchema)
@decisions.refusals(MalformedBody, BadBody, UnknownSession, NothingCharged, RefundExceedsCharge, NoOpenShift)
def void(body: dict[str, Any], session_id: str) -> Response:
    """Take a mistake back: a running session ends now for nothing; of one that is over the whole charge goes back."""
    wanted, act, held = read_uuid(session_id, "session_id"), _act(body), resources()
    counts = []

    def do(connection: psycopg.Connection) -> dict[str, Any]:
        voided: Voided = use_cases.void(held, connection, wanted, act)
        counts.append(voided.count)
        refund = voided.refund and client_refund_json(voided.refund)
        return {"session": str(wanted), "refund": refund}

    response = answer_together(body, do)
    held.push(*counts)
    return response

"""Cash through attendants: sessions on behalf, debts, shifts; and their floats, for operators."""

from typing import Any

import psycopg
from flask import Response, g
from marshmallow import Schema, fields, validate

from app import attendants as use_cases
from app.api.blueprint import Blueprint, answer, answer_together, idempotency_key, read_uuid, uuid_parameter
from app.api.fields import (
    MAX_AMOUNT,
    Instant,
    MoneySchema,
    amount,
    local,
    money,
    plate,
    reason,
    vehicle_class,
    zone_code,
)
from app.api.sessions import SessionSchema, session_json
from app.api.wallet import NothingSchema
from app.attendants import Attended, OnBehalf
from app.errors import BadBody, BadParameter, MalformedBody
from app.resources import resources
from billing import shifts
from billing.audit import Act
from billing.errors import (
    InsufficientFloat,
    NoOpenShift,
    NoRate,
    NothingOwed,
    ShiftClosed,
    ShiftOpen,
    UnknownAttendant,
    UnknownShift,
)
from billing.ledger import Wallet
from billing.shifts import MOVEMENTS, CashPayment, Shift
from zones import errors

attendants = Blueprint("attendants", __name__, url_prefix="/v1/attendant", description="Cash, taken by attendants")
floats = Blueprint("floats", __name__, url_prefix="/v1/admin/floats", description="Attendants' floats, for operators")
SESSION_ID, SHIFT_ID = uuid_parameter("session_id"), uuid_parameter("shift_id")
ATTENDANT = {"name": "attendant", "in": "path", "required": True, "schema": {"type": "string"}}


class OnBehalfSchema(Schema):
    """The whole time is paid in cash when it starts."""

    zone = zone_code(required=True)
    plate = plate(required=True)
    vehicle_class = vehicle_class(required=True)
    minutes = fields.Integer(required=True, strict=True, validate=validate.Range(1, 1_000_000))


class AttendedSchema(Schema):
    """`cash` is what the attendant takes, or hands back where it is below 0; `code` is for the driver's slip."""

    session = fields.Nested(SessionSchema, required=True)
    code = fields.String(required=True, metadata={"example": "7ZK3M0QA"})
    cash = fields.Nested(MoneySchema, required=True)


class DebtPaymentSchema(Schema):
    """Whose debt is paid: the session's."""

    session = fields.UUID(required=True)


class CashPaymentSchema(Schema):
    """Cash that was taken for what a session still owed."""

    id = fields.UUID(required=True)
    session = fields.UUID(required=True)
    amount = fields.Nested(MoneySchema, required=True)
    at = Instant(required=True)


class CountedSchema(Schema):
    """The cash in the attendant's hand, counted: whole đồng."""

    counted = fields.Integer(required=True, strict=True, validate=validate.Range(0, MAX_AMOUNT))


class MovementSchema(Schema):
    """Cash that came in, or went out where it is below 0; `in_hand` is what should then be there."""

    kind = fields.String(required=True, validate=validate.OneOf(MOVEMENTS))
    session = fields.UUID(required=True)
    amount = fields.Nested(MoneySchema, required=True)
    at = Instant(required=True)
    in_hand = fields.Nested(MoneySchema, required=True)


class ShiftSchema(Schema):
    """`opening` and all movements add up to `expected`; `difference` is what was counted above (below 0: short of) it.

    While it is open, `expected` is so far, and nothing was counted.
    """

    id = fields.UUID(required=True)
    attendant = fields.String(required=True)
    opened_at = Instant(required=True)
    opening = fields.Nested(MoneySchema, required=True)
    movements = fields.List(fields.Nested(MovementSchema), required=True)
    expected = fields.Nested(MoneySchema, required=True)
    closed_at = Instant(required=True, allow_none=True)
    counted = fields.Nested(MoneySchema, required=True, allow_none=True)
    difference = fields.Nested(MoneySchema, required=True, allow_none=True)


class FloatSchema(Schema):
    """What an attendant has prepaid; `held` of it is for sessions that run."""

    attendant = fields.String(required=True)
    balance = fields.Nested(MoneySchema, required=True)
    held = fields.Nested(MoneySchema, required=True)
    available = fields.Nested(MoneySchema, required=True)


class FloatTopUpSchema(Schema):
    """What the attendant has paid in."""

    amount = amount(required=True)
    reason = reason(required=True)


def attended_json(attended: Attended) -> dict[str, Any]:
    """A session on behalf as AttendedSchema documents it."""
    session = session_json(attended.session)
    return {"session": session, "code": use_cases.code_of(attended.session.id), "cash": money(attended.cash)}


def shift_json(connection: psycopg.Connection, shift: Shift) -> dict[str, Any]:
    """A shift as ShiftSchema documents it."""
    lines = shifts.movements(connection, shift)
    expected = shift.opening + sum(line.amount for line in lines)
    return {
        "id": str(shift.id),
        "attendant": shift.attendant,
        "opened_at": local(shift.opened_at),
        "opening": money(shift.opening),
        "movements": [
            {
                "kind": line.kind,
                "session": str(line.session_id),
                "amount": money(line.amount),
                "at": local(line.at),
                "in_hand": money(line.in_hand),
            }
            for line in lines
        ],
        "expected": money(expected),
        "closed_at": local(shift.closed_at),
        "counted": None if shift.counted is None else money(shift.counted),
        "difference": None if shift.counted is None else money(shift.counted - expected),
    }


def float_json(attendant: str, has: Wallet) -> dict[str, Any]:
    """A float as FloatSchema documents it."""
    amounts = {"balance": has.balance, "held": has.held, "available": has.available}
    return {"attendant": attendant} | {name: money(value) for name, value in amounts.items()}


def payment_json(made: CashPayment) -> dict[str, Any]:
    """A payment as CashPaymentSchema documents it."""
    return {
        "id": str(made.id), "session": str(made.session_id), "amount": money(made.amount), "at": local(made.at),
    }  # fmt: skip


@attendants.route("/sessions", methods=["POST"])
@attendants.allow("attendant")
@attendants.repeatable
@attendants.arguments(OnBehalfSchema)
@attendants.response(201, AttendedSchema)
@attendants.refusals(MalformedBody, BadBody, NoRate, errors.InvalidPlate, errors.ClassNotServed)
@attendants.refusals(errors.UnknownZone, errors.AlreadyParked, errors.ZoneFull, errors.MaxStayExceeded)
@attendants.refusals(InsufficientFloat, NoOpenShift)
def start(body: dict[str, Any]) -> Response:
    """Start a session for who pays in cash; its price leaves the float at once."""
    return answer(
        attended_json(use_cases.start(resources(), g.identity.subject, idempotency_key(), OnBehalf(**body))), 201
    )


@attendants.route("/sessions/<session_id>/stop", methods=["POST"], parameters=[SESSION_ID])
@attendants.allow("attendant")
@attendants.repeatable
@attendants.arguments(NothingSchema)
@attendants.response(200, AttendedSchema)
@attendants.refusals(MalformedBody, BadBody, NoOpenShift)
@attendants.refusals(errors.UnknownSession, errors.SessionEnded, errors.SessionExpired)
def stop(body: dict[str, Any], session_id: str) -> Response:
    """Stop one of the attendant's sessions early; he hands back the cash for what was not used."""
    wanted = read_uuid(session_id, "session_id")
    return answer(attended_json(use_cases.stop(resources(), g.identity.subject, idempotency_key(), wanted)))


@attendants.route("/payments", methods=["POST"])
@attendants.allow("attendant")
@attendants.repeatable
@attendants.arguments(DebtPaymentSchema)
@attendants.response(201, CashPaymentSchema)
@attendants.refusals(MalformedBody, BadBody, errors.UnknownSession, NothingOwed, InsufficientFloat, NoOpenShift)
def take_payment(body: dict[str, Any]) -> Response:
    """Take in cash all that a session left owing."""
    attendant = g.identity.subject
    return answer_together(
        body,
        lambda connection: payment_json(use_cases.take_debt(resources(), connection, attendant, body["session"])),
        201,
    )


@attendants.route("/shifts", methods=["POST"])
@attendants.allow("attendant")
@attendants.repeatable
@attendants.arguments(CountedSchema)
@attendants.response(201, ShiftSchema)
@attendants.refusals(MalformedBody, BadBody, ShiftOpen)
def open_shift(body: dict[str, Any]) -> Response:
    """Open a shift with the cash that is counted."""
    attendant, now = g.identity.subject, resources().clock.now()
    return answer_together(
        body,
        lambda connection: shift_json(connection, shifts.open_shift(connection, attendant, body["counted"], now)),
        201,
    )


@attendants.route("/shifts/<shift_id>/close", methods=["POST"], parameters=[SHIFT_ID])
@attendants.allow("attendant")
@attendants.repeatable
@attendants.arguments(CountedSchema)
@attendants.response(200, ShiftSchema)
@attendants.refusals(MalformedBody, BadBody, UnknownShift, ShiftClosed)
def close_shift(body: dict[str, Any], shift_id: str) -> Response:
    """Close a shift with the cash that is counted; what it differs by is booked."""
    wanted, attendant, now = read_uuid(shift_id, "shift_id"), g.identity.subject, resources().clock.now()

    def do(connection: psycopg.Connection) -> dict[str, Any]:
        return shift_json(connection, shifts.close_shift(connection, wanted, attendant, body["counted"], now))

    return answer_together(body, do)


@attendants.route("/shifts/<shift_id>", methods=["GET"], parameters=[SHIFT_ID])
@attendants.allow("attendant", "operator")
@attendants.response(200, ShiftSchema)
@attendants.refusals(BadParameter, UnknownShift)
def find_shift(shift_id: str) -> Response:
    """A shift line by line: an attendant's own, or any for an operator."""
    connection = resources().connections.get()
    owner = None if g.identity.role == "operator" else g.identity.subject
    return answer(shift_json(connection, shifts.find(connection, read_uuid(shift_id, "shift_id"), owner)))


@attendants.route("/float", methods=["GET"])
@attendants.allow("attendant")
@attendants.response(200, FloatSchema)
def find_own_float() -> Response:
    """What the attendant has prepaid."""
    attendant = g.identity.subject
    return answer(float_json(attendant, shifts.float_of(resources().connections.get(), attendant)))


@floats.route("/<attendant>", methods=["GET"], parameters=[ATTENDANT])
@floats.allow("operator")
@floats.response(200, FloatSchema)
@floats.refusals(UnknownAttendant)
def find_float(attendant: str) -> Response:
    """What an attendant has prepaid."""
    use_cases.check_attendant(resources(), attendant)
    return answer(float_json(attendant, shifts.float_of(resources().connections.get(), attendant)))


@floats.route("/<attendant>/topups", methods=["POST"], parameters=[ATTENDANT])
@floats.allow("operator")
@floats.repeatable
@floats.arguments(FloatTopUpSchema)
@floats.response(200, FloatSchema)
@floats.refusals(MalformedBody, BadBody, UnknownAttendant)
def top_up(body: dict[str, Any], attendant: str) -> Response:
    """Book what an attendant has paid in at the bank."""
    act = Act(g.identity.subject, resources().clock.now(), body["reason"])

    def do(connection: psycopg.Connection) -> dict[str, Any]:
        return float_json(attendant, use_cases.top_up(resources(), connection, attendant, body["amount"], act))

    return answer_together(body, do)

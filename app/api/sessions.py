"""Sessions: start, extend, stop, look at."""

from typing import Any
from uuid import UUID

from flask import Response, g
from marshmallow import Schema, fields, validate

from app import parking, paying
from app.api.blueprint import Blueprint, answer, answer_once, idempotency_key, next_link
from app.api.cards import STATES as CARD_STATES
from app.api.cards import CardPaymentSchema, payment_json
from app.api.fields import Instant, MoneySchema, local, money, plate, vehicle_class, zone_code
from app.errors import BadBody, BadParameter, MalformedBody
from app.parking import StartRequest
from app.paying import Standing
from app.resources import Resources, resources
from billing.errors import InsufficientFunds, MethodUnavailable, NoCard, NoRate, NotFree, OwesTooMuch, PaymentDeclined
from billing.gateways import METHODS
from zones import errors
from zones.sessions import STATES, Session, StopCall

sessions = Blueprint(
    "sessions", __name__, url_prefix="/v1/sessions", description="Parking sessions of the driver who asks"
)
PAGE = 50
ID_PARAMETER = {"name": "session_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}


class StartSchema(Schema):
    """Without `minutes` the session runs until it is stopped, up to the zone's maximum stay."""

    zone = zone_code(required=True)
    plate = plate(required=True)
    vehicle_class = vehicle_class(required=True)
    minutes = fields.Integer(strict=True, allow_none=True, load_default=None, validate=validate.Range(1, 1_000_000))
    payment_method = fields.String(required=True, validate=validate.OneOf(METHODS))


class ExtendSchema(Schema):
    """How many minutes to add."""

    minutes = fields.Integer(required=True, strict=True, validate=validate.Range(1, 1_000_000))


class StopSchema(Schema):
    """`stopped_at` is for a phone that was offline; at most 15 minutes back."""

    stopped_at = Instant(allow_none=True, load_default=None)


class HistorySchema(Schema):
    """Which sessions, and where the page begins."""

    state = fields.String(validate=validate.OneOf(STATES))
    cursor = fields.UUID()
    limit = fields.Integer(load_default=PAGE, validate=validate.Range(1, 200))


class SessionSchema(Schema):
    """One session. `fee` is what is owed so far, final once ended."""

    id = fields.UUID(required=True)
    state = fields.String(required=True, validate=validate.OneOf(STATES))
    zone = zone_code(required=True)
    plate = plate(required=True)
    vehicle_class = vehicle_class(required=True)
    started_at = Instant(required=True)
    ends_at = Instant(required=True, allow_none=True)
    ended_at = Instant(required=True, allow_none=True)
    payment_method = fields.String(required=True, validate=validate.OneOf(METHODS))
    fee = fields.Nested(MoneySchema, required=True)
    rate_version = fields.String(required=True)


class StartedSchema(SessionSchema):
    """A session that has just begun; `payment` where money on a card is held for it."""

    payment = fields.Nested(CardPaymentSchema)


class SessionPaymentSchema(CardPaymentSchema):
    """How a session is paid. `held` is put aside for it, in the wallet or on the card; `captured` was paid for it and
    `owed` is left to pay, once it was charged; `refunded` went back of it.

    `status`: `open`: it goes on, and nothing is put aside. `held`: something is. `owed`, `paid`: it is over, and was
    charged. `refunded`: all of the charge went back. `free`: it is over and cost nothing.

    The fields of a payment by card are null where there is none: another method, or nothing was to be held.
    """

    method = fields.String(required=True, validate=validate.OneOf(METHODS))
    status = fields.String(required=True, validate=validate.OneOf(paying.STATUSES))
    fee = fields.Nested(MoneySchema, required=True)
    held = fields.Nested(MoneySchema, required=True)
    captured = fields.Nested(MoneySchema, required=True)
    owed = fields.Nested(MoneySchema, required=True)
    refunded = fields.Nested(MoneySchema, required=True)
    id = fields.UUID(required=True, allow_none=True)
    state = fields.String(required=True, allow_none=True, validate=validate.OneOf(CARD_STATES))
    amount = fields.Nested(MoneySchema, required=True, allow_none=True)
    paid = fields.Nested(MoneySchema, required=True, allow_none=True)


class SessionPageSchema(Schema):
    """Newest first; a `Link` header leads to the next page."""

    sessions = fields.List(fields.Nested(SessionSchema), required=True)


def read_id(text: str) -> UUID:
    """A session's id from the path. Raises BadParameter."""
    try:
        return UUID(text)
    except ValueError:
        raise BadParameter([{"field": "session_id", "rule": "must be a UUID"}]) from None


def session_json(session: Session) -> dict[str, Any]:
    """A session as SessionSchema documents it."""
    return {
        "id": str(session.id),
        "state": session.state,
        "zone": session.zone_code,
        "plate": session.plate,
        "vehicle_class": session.vehicle_class,
        "started_at": local(session.started_at),
        "ends_at": local(session.ends_at),
        "ended_at": local(session.ended_at),
        "payment_method": session.payment_method,
        "fee": money(session.fee or 0),
        "rate_version": session.rate_version,
    }


def started_json(held: Resources, session: Session) -> dict[str, Any]:
    """A session as StartedSchema documents it."""
    card = paying.card_of(held, session)
    return session_json(session) | ({"payment": payment_json(card)} if card else {})


def session_payment_json(session: Session, standing: Standing) -> dict[str, Any]:
    """How a session is paid, as SessionPaymentSchema documents it."""
    card = payment_json(standing.card) if standing.card else dict.fromkeys(CardPaymentSchema().fields)
    amounts = {name: money(getattr(standing, name)) for name in ("held", "captured", "owed", "refunded")}
    return {
        "method": session.payment_method, "status": standing.status, "fee": money(session.fee or 0), **amounts, **card,
    }  # fmt: skip


@sessions.route("", methods=["POST"])
@sessions.allow("driver")
@sessions.repeatable
@sessions.arguments(StartSchema)
@sessions.response(201, StartedSchema)
@sessions.refusals(MalformedBody, BadBody, NoRate, errors.InvalidPlate, errors.ClassNotServed)
@sessions.refusals(errors.UnknownZone, errors.AlreadyParked, errors.ZoneFull, errors.MaxStayExceeded)
@sessions.refusals(InsufficientFunds, OwesTooMuch, NotFree, MethodUnavailable, NoCard, PaymentDeclined)
def start(body: dict[str, Any]) -> Response:
    """Start a session now.

    `free` is for what costs nothing, by its rate or by a right of the vehicle. By right and without `minutes` the
    session is over when the right is.

    Where the plate's last session is over but not ended, it ends with this start, if this one is admitted.
    """
    session = parking.start(resources(), g.identity.subject, idempotency_key(), StartRequest(**body))
    return answer(started_json(resources(), session), 201)


@sessions.route("/<session_id>/extend", methods=["POST"], parameters=[ID_PARAMETER])
@sessions.allow("driver")
@sessions.repeatable
@sessions.arguments(ExtendSchema)
@sessions.response(200, SessionSchema)
@sessions.refusals(MalformedBody, BadBody)
@sessions.refusals(
    errors.UnknownSession, errors.SessionEnded, errors.SessionExpired, errors.NotPrepaid, errors.MaxStayExceeded
)
@sessions.refusals(InsufficientFunds, OwesTooMuch, NotFree, MethodUnavailable)
def extend(body: dict[str, Any], session_id: str) -> Response:
    """Add prepaid minutes to a running session.

    `session_expired` once its time is over, or its place was given back while this request waited.
    """
    wanted = (read_id(session_id), g.identity.subject, body["minutes"])
    return answer_once(body, lambda connection: session_json(parking.extend(resources(), connection, *wanted)))


@sessions.route("/<session_id>/stop", methods=["POST"], parameters=[ID_PARAMETER])
@sessions.allow("driver")
@sessions.repeatable
@sessions.arguments(StopSchema)
@sessions.response(200, SessionSchema)
@sessions.refusals(MalformedBody, BadBody)
@sessions.refusals(errors.UnknownSession, errors.SessionEnded, errors.SessionExpired, errors.StoppedInFuture)
@sessions.refusals(errors.StoppedBeforeStart, errors.StoppedTooLate)
def stop(body: dict[str, Any], session_id: str) -> Response:
    """Stop a session now, or as of `stopped_at`."""
    now = resources().clock.now()
    call = StopCall(read_id(session_id), g.identity.subject, body["stopped_at"], now, idempotency_key())
    return answer(session_json(parking.stop(resources(), call)))


@sessions.route("/<session_id>/payment", methods=["GET"], parameters=[ID_PARAMETER])
@sessions.allow("driver")
@sessions.response(200, SessionPaymentSchema)
@sessions.refusals(BadParameter, errors.UnknownSession)
def find_payment(session_id: str) -> Response:
    """How a session is paid, by whatever method: what is put aside for it, what was taken, and what is still owed."""
    session = parking.find(resources(), read_id(session_id), g.identity.subject)
    return answer(session_payment_json(session, paying.standing(resources(), session)))


@sessions.route("/<session_id>", methods=["GET"], parameters=[ID_PARAMETER])
@sessions.allow("driver")
@sessions.response(200, SessionSchema)
@sessions.refusals(BadParameter, errors.UnknownSession)
def find(session_id: str) -> Response:
    """One session as it is now."""
    return answer(session_json(parking.find(resources(), read_id(session_id), g.identity.subject)))


@sessions.route("", methods=["GET"])
@sessions.allow("driver")
@sessions.arguments(HistorySchema, location="query", error_status_code=400)
@sessions.response(200, SessionPageSchema)
@sessions.refusals(BadParameter)
def history(wanted: dict[str, Any]) -> Response:
    """The driver's sessions, newest first."""
    state, cursor, limit = wanted.get("state"), wanted.get("cursor"), wanted["limit"]
    found = parking.history(resources(), g.identity.subject, state, cursor, limit + 1)
    page = {"sessions": [session_json(session) for session in found[:limit]]}
    return answer(page, headers=next_link(str(found[limit - 1].id)) if len(found) > limit else None)

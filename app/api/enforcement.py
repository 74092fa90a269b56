"""Enforcement: plate checks by wardens."""

from typing import Any

from flask import Response, g
from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from app import idempotency, parking
from app.api.blueprint import Blueprint, answer, idempotency_key
from app.api.fields import Instant, local, plate, vehicle_class, zone_code
from app.errors import BadBody, MalformedBody
from app.resources import resources
from zones import errors
from zones.enforcement import VERDICTS, Check, Position, Sighting

enforcement = Blueprint(
    "enforcement", __name__, url_prefix="/v1/enforcement", description="Plate checks, for wardens in the street"
)
# A fix worse than this says nothing about which street it is: the warden names the zone instead.
WORST_ACCURACY_METRES = 1_000


class Number(fields.Float):
    """A JSON number, not a text that looks like one."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValidationError("must be a number")
        return super()._deserialize(value, attr, data, **kwargs)


class PositionSchema(Schema):
    """WGS 84 degrees; `accuracy` is the radius of the error in metres, as the phone states it."""

    lat = Number(required=True, validate=validate.Range(-90, 90), metadata={"example": 21.0245})
    lng = Number(required=True, validate=validate.Range(-180, 180), metadata={"example": 105.8412})
    accuracy = Number(required=True, validate=validate.Range(0, WORST_ACCURACY_METRES), metadata={"example": 8})


class SightingSchema(Schema):
    """`zone` or `position`; a stated zone goes before the position."""

    plate = plate(required=True)
    vehicle_class = vehicle_class(
        allow_none=True, load_default=None, metadata={"description": "Both are looked at where it is not known"}
    )
    zone = zone_code(allow_none=True, load_default=None)
    position = fields.Nested(PositionSchema, allow_none=True, load_default=None)
    captured_at = Instant(required=True)

    @validates_schema
    def check_place(self, data: dict[str, Any], **kwargs: Any) -> None:
        """Refuse a sighting that was nowhere."""
        if data.get("zone") is None and data.get("position") is None:
            rule = "either a zone or a position is needed"
            raise ValidationError({"zone": [rule], "position": [rule]})


class PlateCheckSchema(Schema):
    """`expired_for_seconds` is given with `grace` and `expired`; `near_plates` is empty for now."""

    id = fields.UUID(required=True)
    plate = plate(required=True)
    verdict = fields.String(required=True, validate=validate.OneOf(VERDICTS))
    reasons = fields.List(fields.String(), required=True)
    zone = zone_code(required=True, allow_none=True)
    session = fields.UUID(required=True, allow_none=True)
    expired_for_seconds = fields.Integer(required=True, allow_none=True)
    near_plates = fields.List(fields.String(), required=True)
    captured_at = Instant(required=True)


def check_json(made: Check) -> dict[str, Any]:
    """A check as PlateCheckSchema documents it."""
    return {
        "id": str(made.id),
        "plate": made.plate,
        "verdict": made.verdict,
        "reasons": made.reasons,
        "zone": made.zone,
        "session": str(made.session) if made.session else None,
        "expired_for_seconds": made.expired_for_seconds,
        "near_plates": made.near_plates,
        "captured_at": local(made.captured_at),
    }


def request_hash(key: str | None, sighting: Sighting) -> bytes:
    """What tells two sightings of one key apart; nothing where there is no key."""
    return b"" if key is None else idempotency.digest(sighting._asdict())


@enforcement.route("/checks", methods=["POST"])
@enforcement.allow("warden")
@enforcement.repeatable
@enforcement.arguments(SightingSchema)
@enforcement.response(201, PlateCheckSchema)
@enforcement.refusals(MalformedBody, BadBody, errors.InvalidPlate, errors.ClassNotServed, errors.UnknownZone)
@enforcement.refusals(errors.CapturedInFuture, errors.CapturedTooLate)
def make_check(body: dict[str, Any]) -> Response:
    """Check whether a vehicle may stand where it was seen; the check is stored.

    `paid`: a session ran at `captured_at` in the stated zone, or in one that the position's circle touches. `permit`:
    the vehicle had a right to stand there then. `grace`: a session there ended less than 5 minutes before.
    `wrong_zone`: one in another zone ran. `expired`: one there ended less than 24 hours before, or is an overstay.
    `unpaid`: none of these. `outside_zones`: the position touches no zone.

    `captured_at` may be 10 seconds ahead of the service's clock, and must be less than 24 hours back.
    """
    sighting = Sighting(**body | {"position": body["position"] and Position(**body["position"])})
    key = idempotency_key()
    made = parking.check(resources(), g.identity.subject, key, request_hash(key, sighting), sighting)
    return answer(check_json(made), 201)

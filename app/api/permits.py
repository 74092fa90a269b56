"""Permits: operators say which vehicles may park without paying, where and for how long."""

from typing import Any

import psycopg
from flask import Response, g
from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from app.api.blueprint import Blueprint, answer, answer_together, next_link, read_uuid, uuid_parameter
from app.api.fields import Instant, PlainText, local, plate, reason, vehicle_class, words, zone_code
from app.api.refunds import ReasonSchema
from app.api.wallet import CursorSchema
from app.errors import BadBody, BadParameter, MalformedBody
from app.resources import resources
from billing import audit
from billing.audit import Act
from zones import enforcement, errors, rights
from zones.rights import KINDS, STATES, Right, Wanted

permits = Blueprint(
    "permits", __name__, url_prefix="/v1/admin/permits", description="Who may park without paying, for operators"
)
ID = uuid_parameter("permit_id")


def district_code(**kwargs: Any) -> PlainText:
    """A district's code."""
    return PlainText(validate=validate.Length(1, 40), metadata={"example": "002"}, **kwargs)


class PermitRequestSchema(Schema):
    """For which vehicle, where (a zone, a district, or neither: the whole city) and when.

    It holds from `valid_from` (inclusive) until `valid_until` (exclusive).
    """

    kind = fields.String(required=True, validate=validate.OneOf(KINDS))
    plate = plate(required=True)
    vehicle_class = vehicle_class(required=True)
    zone = zone_code(allow_none=True, load_default=None)
    district = district_code(allow_none=True, load_default=None)
    valid_from = Instant(required=True)
    valid_until = Instant(required=True)
    reference = words(100, "GP-2026/0117", allow_none=True, load_default=None)
    reason = reason(required=True)

    @validates_schema
    def check_place_and_time(self, data: dict[str, Any], **kwargs: Any) -> None:
        """Refuse two places at once, and a time that ends before it begins."""
        if data.get("zone") is not None and data.get("district") is not None:
            raise ValidationError({"district": ["either a zone or a district"]})
        if data["valid_until"] <= data["valid_from"]:
            raise ValidationError({"valid_until": ["must lie after valid_from"]})


class PermitSchema(Schema):
    """A permit as it stands. Revoked, it held until `revoked_at`; `revocation` says why."""

    id = fields.UUID(required=True)
    kind = fields.String(required=True, validate=validate.OneOf(KINDS))
    plate = plate(required=True)
    vehicle_class = vehicle_class(required=True)
    zone = zone_code(required=True, allow_none=True)
    district = district_code(required=True, allow_none=True)
    valid_from = Instant(required=True)
    valid_until = Instant(required=True)
    state = fields.String(required=True, validate=validate.OneOf(STATES))
    reference = fields.String(required=True, allow_none=True)
    reason = fields.String(required=True)
    granted_at = Instant(required=True)
    granted_by = fields.String(required=True)
    revoked_at = Instant(required=True, allow_none=True)
    revoked_by = fields.String(required=True, allow_none=True)
    revocation = fields.String(required=True, allow_none=True)


class PermitPageSchema(Schema):
    """The last granted first; a `Link` header leads to the next page."""

    permits = fields.List(fields.Nested(PermitSchema), required=True)


class PermitSearchSchema(CursorSchema):
    """Which permits, and where the page begins. `zone` and `district` are those that a permit was granted for."""

    plate = plate()
    zone = zone_code()
    district = district_code()
    state = fields.String(validate=validate.OneOf(STATES))


def permit_json(right: Right) -> dict[str, Any]:
    """A right as PermitSchema documents it."""
    return {
        "id": str(right.id),
        "kind": right.kind,
        "plate": right.plate,
        "vehicle_class": right.vehicle_class,
        "zone": right.zone_code,
        "district": right.district_code,
        "valid_from": local(right.valid_from),
        "valid_until": local(right.valid_until),
        "state": right.state,
        "reference": right.reference,
        "reason": right.reason,
        "granted_at": local(right.granted_at),
        "granted_by": right.granted_by,
        "revoked_at": local(right.revoked_at),
        "revoked_by": right.revoked_by,
        "revocation": right.revocation,
    }


@permits.route("", methods=["POST"])
@permits.allow("operator")
@permits.repeatable
@permits.arguments(PermitRequestSchema)
@permits.response(201, PermitSchema)
@permits.refusals(MalformedBody, BadBody, errors.InvalidPlate, errors.ClassNotServed)
@permits.refusals(errors.UnknownZone, errors.UnknownDistrict, errors.AlreadyGranted)
def grant(body: dict[str, Any]) -> Response:
    """Let a vehicle park without paying."""
    act, places = _act(body), resources().catalogue.places
    wanted = Wanted(**{name: body[name] for name in Wanted._fields})

    def do(connection: psycopg.Connection) -> dict[str, Any]:
        granted = rights.grant(connection, places, wanted, act.actor, act.at, act.reason)
        audit.note(connection, act, "permit.grant", str(granted.id), {"kind": granted.kind, "plate": granted.plate})
        return permit_json(granted)

    return answer_together(body, do, 201)


def _act(body: dict[str, Any]) -> Act:
    return Act(g.identity.subject, resources().clock.now(), body["reason"])


@permits.route("", methods=["GET"])
@permits.allow("operator")
@permits.arguments(PermitSearchSchema, location="query", error_status_code=400)
@permits.response(200, PermitPageSchema)
@permits.refusals(BadParameter)
def find_all(wanted: dict[str, Any]) -> Response:
    """Permits, the last granted first."""
    limit, held, before = wanted.pop("limit"), resources(), wanted.pop("cursor", None)
    if "plate" in wanted:
        wanted["texts"] = _texts(wanted.pop("plate"))
    found = rights.find_all(held.connections.get(), held.clock.now(), limit + 1, before=before, **wanted)
    page = {"permits": [permit_json(right) for right in found[:limit]]}
    return answer(page, headers=next_link(str(found[limit - 1].id)) if len(found) > limit else None)


def _texts(plate: str) -> list[str]:
    """The canonical plates that a text can mean. Raises BadParameter."""
    try:
        return [text for text, _ in enforcement.read_plate(plate, None)]
    except errors.InvalidPlate as error:
        raise BadParameter([{"field": "plate", "rule": str(error)}]) from None


@permits.route("/<permit_id>", methods=["GET"], parameters=[ID])
@permits.allow("operator")
@permits.response(200, PermitSchema)
@permits.refusals(BadParameter, errors.UnknownRight)
def find(permit_id: str) -> Response:
    """One permit."""
    held, wanted = resources(), read_uuid(permit_id, "permit_id")
    return answer(permit_json(rights.find(held.connections.get(), wanted, held.clock.now())))


@permits.route("/<permit_id>", methods=["DELETE"], parameters=[ID])
@permits.allow("operator")
@permits.arguments(ReasonSchema)
@permits.response(200, PermitSchema)
@permits.refusals(MalformedBody, BadBody, BadParameter, errors.UnknownRight, errors.RightOver)
def revoke(body: dict[str, Any], permit_id: str) -> Response:
    """End a permit now. Repeated, it gives the same answer: the first revocation stands.

    A session that began by it stays free, as it was agreed.
    """
    wanted, act, connection = read_uuid(permit_id, "permit_id"), _act(body), resources().connections.get()
    with connection.transaction():
        revoked, is_new = rights.revoke(connection, wanted, act.actor, act.at, act.reason)
        if is_new:
            audit.note(connection, act, "permit.revoke", str(wanted), {"kind": revoked.kind, "plate": revoked.plate})
    return answer(permit_json(revoked))

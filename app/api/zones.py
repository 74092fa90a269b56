"""Districts and zones as GeoJSON, with what is free."""

import math
from typing import Any

import orjson
from flask import Response, current_app, request
from marshmallow import Schema, ValidationError, fields, validate

from app import availability
from app.api.blueprint import Blueprint, answer, next_link
from app.api.fields import Instant, PlainText
from app.errors import BadParameter, UnknownResource
from app.resources import resources
from zones.places import Place, Places
from zones.terms import ADMISSIONS, KINDS, VEHICLE_CLASSES

zones = Blueprint("zones", __name__, url_prefix="/v1", description="Districts and zones (RFC 7946), open to all")
GEOJSON = "application/geo+json"
CACHE_CONTROL = "no-cache"
# How many zones a page holds where the request does not say.
PAGE = 500
FARTHEST_METRES = 50_000


class Numbers(fields.Field[list[float]]):
    """Finite numbers with commas between, as many as `bounds` has, each inside its bounds."""

    def __init__(self, names: str, bounds: list[tuple[float, float]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.names, self.bounds = names, bounds

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[float]:
        try:
            numbers = [float(part) for part in str(value).split(",")]
        except ValueError:
            raise ValidationError(f"must be {self.names}") from None
        if len(numbers) != len(self.bounds) or not all(map(math.isfinite, numbers)):
            raise ValidationError(f"must be {self.names}")
        for number, (low, high) in zip(numbers, self.bounds, strict=True):
            if not low <= number <= high:
                raise ValidationError(f"{number:g} lies outside {low:g} to {high:g}")
        return numbers


class Box(Numbers):
    """An upright box. One over the antimeridian (west > east) is no box of a city."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[float]:
        west, south, east, north = numbers = super()._deserialize(value, attr, data, **kwargs)
        if west > east or south > north:
            raise ValidationError("west must not pass east, nor south north")
        return numbers


LNG, LAT = (-180.0, 180.0), (-90.0, 90.0)


class ZonesQuery(Schema):
    """All parameters narrow the answer; `near` also sorts it, nearest first."""

    bbox = Box(
        "west,south,east,north in degrees", [LNG, LAT, LNG, LAT], metadata={"example": "105.80,21.00,105.86,21.04"}
    )
    near = Numbers("lat,lng in degrees", [LAT, LNG], metadata={"example": "21.0245,105.8412"})
    radius = fields.Float(
        load_default=500.0,
        validate=validate.Range(0, FARTHEST_METRES),
        metadata={"description": "Metres around `near`"},
    )
    district = PlainText(validate=validate.Length(1, 40), metadata={"example": "002"})
    vehicle_class = fields.String(validate=validate.OneOf(VEHICLE_CLASSES))
    q = PlainText(validate=validate.Length(1, 200), metadata={"example": "tran hung dao"})
    cursor = fields.Integer(load_default=0, validate=validate.Range(0, 10_000_000))
    limit = fields.Integer(load_default=PAGE, validate=validate.Range(1, 1000))


class AvailabilitySchema(Schema):
    """One vehicle class. What is not known is null."""

    occupied = fields.Integer(required=True, allow_none=True)
    capacity = fields.Integer(required=True)
    available = fields.Integer(required=True, allow_none=True)
    overflow = fields.Integer(required=True, allow_none=True)
    source = fields.String(required=True, allow_none=True, validate=validate.OneOf(["paid", "observed", "estimated"]))
    as_of = Instant(required=True)
    version = fields.Integer(required=True, allow_none=True)


class ZoneAvailabilitySchema(Schema):
    """By vehicle class; a class that the zone does not serve is absent."""

    car = fields.Nested(AvailabilitySchema)
    motorbike = fields.Nested(AvailabilitySchema)


class ZoneProperties(Schema):
    """One zone in force."""

    code = fields.String(required=True)
    name = fields.String(required=True)
    street = fields.String(required=True)
    district = fields.String(required=True)
    rate_area = fields.String(required=True)
    kind = fields.String(required=True, validate=validate.OneOf(KINDS))
    admission = fields.String(required=True, validate=validate.OneOf(ADMISSIONS))
    max_stay_minutes = fields.Integer(required=True)
    capacity = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    capacity_source = fields.String(required=True)
    availability = fields.Nested(ZoneAvailabilitySchema, required=True)


class GeometrySchema(Schema):
    """RFC 7946: WGS 84, longitude first."""

    type = fields.String(required=True)
    coordinates = fields.List(fields.Raw(), required=True)


class ZoneSchema(Schema):
    """A GeoJSON Feature."""

    type = fields.String(required=True, validate=validate.Equal("Feature"))
    id = fields.String(required=True)
    geometry = fields.Nested(GeometrySchema, required=True)
    properties = fields.Nested(ZoneProperties, required=True)


class ZonesSchema(Schema):
    """A GeoJSON FeatureCollection; a `Link` header leads to the next page."""

    type = fields.String(required=True, validate=validate.Equal("FeatureCollection"))
    features = fields.List(fields.Nested(ZoneSchema), required=True)


class DistrictProperties(Schema):
    """One service district; `zones` counts its zones."""

    code = fields.String(required=True)
    name = fields.String(required=True)
    joined = fields.Date(required=True, allow_none=True)
    zones = fields.Integer(required=True)


class DistrictSchema(Schema):
    """A GeoJSON Feature."""

    type = fields.String(required=True, validate=validate.Equal("Feature"))
    id = fields.String(required=True)
    geometry = fields.Nested(GeometrySchema, required=True)
    properties = fields.Nested(DistrictProperties, required=True)


class DistrictsSchema(Schema):
    """A GeoJSON FeatureCollection."""

    type = fields.String(required=True, validate=validate.Equal("FeatureCollection"))
    features = fields.List(fields.Nested(DistrictSchema), required=True)


def geojson(body: bytes, etag: str, headers: dict[str, str] | None = None) -> Response:
    """A GeoJSON answer, or 304 where the client holds the same already."""
    response = Response(body, 200, headers, mimetype=GEOJSON)
    response.headers["ETag"] = etag
    response.headers["Cache-Control"] = CACHE_CONTROL
    # Looking for conditions costs more than making the answer; most requests have none.
    if "If-None-Match" in request.headers:
        response.make_conditional(request)
    return response


def select(places: Places, wanted: dict[str, Any]) -> list[Place]:
    """The zones that a query asks for, in the order of the answer."""
    if "near" in wanted:
        lat, lng = wanted["near"]
        found = [place for place, _ in places.near(lat, lng, wanted["radius"])]
    else:
        found = places.in_box(*wanted["bbox"]) if "bbox" in wanted else places.all
    if "near" in wanted and "bbox" in wanted:
        boxed = {place.code for place in places.in_box(*wanted["bbox"])}
        found = [place for place in found if place.code in boxed]
    if "q" in wanted:
        named = {place.code for place in places.matching(wanted["q"])}
        found = [place for place in found if place.code in named]
    if "district" in wanted:
        found = [place for place in found if place.district == wanted["district"]]
    if "vehicle_class" in wanted:
        found = [place for place in found if wanted["vehicle_class"] in place.capacity]
    return found


def place_of(code: str) -> Place:
    """The zone of this code. Raises UnknownResource."""
    place = resources().catalogue.places.by_code.get(code)
    if place is None:
        raise UnknownResource(f"no zone {code}")
    return place


@zones.route("/districts")
@zones.response(200, DistrictsSchema, content_type=GEOJSON)
def districts() -> Response:
    """The service districts."""
    areas = resources().catalogue.places.districts
    features = [
        {
            "type": "Feature",
            "id": area.code,
            "geometry": orjson.Fragment(area.geometry_json),
            "properties": {"code": area.code, "name": area.name, "joined": area.joined, "zones": area.zones},
        }
        for area in areas
    ]
    body = orjson.dumps({"type": "FeatureCollection", "features": features})
    return geojson(body, f'"{resources().catalogue.places.revision}"')


@zones.route("/zones")
@zones.arguments(ZonesQuery, location="query", error_status_code=400)
@zones.response(200, ZonesSchema, content_type=GEOJSON)
@zones.refusals(BadParameter)
def listing(wanted: dict[str, Any]) -> Response:
    """Zones with availability, at most a second old; where Redis is away, as of what a replica knows (`as_of`)."""
    view = current_app.extensions["iparking_map"].view()
    found = select(view.places, wanted)
    first, last = wanted["cursor"], wanted["cursor"] + wanted["limit"]
    body, etag = view.of(found[first:last])
    return geojson(body, etag, next_link(str(last)) if len(found) > last else None)


@zones.route("/zones/<code>")
@zones.response(200, ZoneSchema, content_type=GEOJSON)
@zones.refusals(UnknownResource)
def find(code: str) -> Response:
    """One zone with its availability now."""
    place, now = place_of(code), resources().clock.now()
    made = availability.feature(place, availability.live(resources(), [place.code], now), now)
    return geojson(made.json, availability.collection([made.json], [made.tag])[1])


@zones.route("/zones/<code>/availability")
@zones.response(200, ZoneAvailabilitySchema)
@zones.refusals(UnknownResource)
def free(code: str) -> Response:
    """What one zone has free now."""
    place, now = place_of(code), resources().clock.now()
    return answer(availability.describe(place, availability.live(resources(), [place.code], now), now))

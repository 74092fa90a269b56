"""Raw records to districts, wards and zones; all that is wrong is collected, and refused together."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import shapely
from shapely import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from zones.imports import shapes
from zones.imports.fields import LARGEST, BadField, Fields, integer
from zones.imports.files import Kind, Raw, raw_records
from zones.imports.report import Problems, shown
from zones.terms import ADMISSIONS, KINDS, KNOWN_CLASSES, VEHICLE_CLASSES

LONGEST_STAY = 44_640  # minutes: a month of 31 days


@dataclass(frozen=True, slots=True)
class DistrictRecord:
    code: str
    name: str
    joined: date | None
    geometry: MultiPolygon


@dataclass(frozen=True, slots=True)
class WardRecord:
    code: str
    name: str
    district_code: str | None
    geometry: MultiPolygon


@dataclass(frozen=True, slots=True)
class ZoneRecord:
    """`capacity` is by vehicle class; a class that is not in it is not served."""

    code: str
    name: str
    street: str
    district_code: str
    rate_area: str
    kind: str
    admission: str
    max_stay_minutes: int
    capacity: dict[str, int]
    capacity_source: str
    geometry: Polygon


Record = DistrictRecord | WardRecord | ZoneRecord


class Areas:
    """The districts of the city, to find the one that a zone lies in."""

    def __init__(self, districts: Mapping[str, BaseGeometry]) -> None:
        self.codes = list(districts)
        self.outlines = list(districts.values())
        self.tree = shapely.STRtree(self.outlines)
        shapely.prepare(self.outlines)

    def shares(self, shape: BaseGeometry) -> dict[str, float]:
        """Which part (0 to 1) of the shape lies in each district that it touches."""
        return {self.codes[i]: self.share(self.outlines[i], shape) for i in self.tree.query(shape, "intersects")}

    def share(self, outline: BaseGeometry, shape: BaseGeometry) -> float:
        # Nearly all zones lie wholly inside, which is quick to see on a prepared outline.
        return 1.0 if outline.contains(shape) else outline.intersection(shape).area / shape.area


def read(
    kind: Kind,
    path: Path,
    *,
    rate_areas: Collection[str] = (),
    districts: Mapping[str, BaseGeometry] | None = None,
) -> list[Record]:
    """The checked records of a GeoJSON or CSV file.

    For zones: `rate_areas` are those for which there may be rates, `districts` the current outlines by code (see
    `current_districts`). Raises ImportRefused with every bad record.
    """
    problems = Problems()
    if kind == "zones" and not districts:
        problems.add("file", "no_districts", "zones lie in districts: import the districts first")
        problems.refuse_if_any()
    zone = zone_reader(rate_areas, districts or {})
    readers: dict[Kind, Callable[[Fields], Record]] = {"districts": district, "wards": ward, "zones": zone}
    records = checked_records(raw_records(path, problems), readers[kind], problems)
    problems.refuse_if_any()
    return records


def checked_records(raws: Iterable[Raw], reader: Callable[[Fields], Record], problems: Problems) -> list[Record]:
    """Read each record and see that no code comes twice."""
    records: list[Record] = []
    first: dict[str, str] = {}
    for raw in raws:
        fields = Fields(raw, problems)
        record = reader(fields)
        if record.code and first.setdefault(record.code, raw.where) != raw.where:
            fields.bad("code", "duplicate_code", f"the same as {first[record.code]}")
        if fields.good:
            records.append(record)
    return records


def district(fields: Fields) -> DistrictRecord:
    return DistrictRecord(fields.code("code"), fields.text("name"), fields.day("joined"), area(fields))


def ward(fields: Fields) -> WardRecord:
    of_district = fields.code("district", "district_code", "old_district_code", optional=True)
    return WardRecord(fields.code("code", "ward_code"), fields.text("name"), of_district or None, area(fields))


def zone_reader(rate_areas: Collection[str], districts: Mapping[str, BaseGeometry]) -> Callable[[Fields], Record]:
    """A reader of zones for a city with these rate areas and districts."""
    areas = Areas(districts)

    def zone(fields: Fields) -> ZoneRecord:
        name = fields.text("name")
        capacity = capacities(fields)
        geometry = zone_shape(fields, capacity.get("car", 0))
        return ZoneRecord(
            code=fields.code("code"),
            name=name,
            street=name if fields.value("street") is None else fields.text("street"),
            district_code=district_of(fields, geometry, areas),
            rate_area=fields.choice("rate_area", rate_areas, "unknown_rate_area"),
            kind=fields.choice("kind", KINDS, "unknown_kind"),
            admission=fields.choice("admission", ADMISSIONS, "unknown_admission"),
            max_stay_minutes=fields.integer("max_stay_minutes", 1, LONGEST_STAY),
            capacity=capacity,
            capacity_source=fields.text("capacity_source", default="imported"),
            geometry=geometry,
        )

    return zone


def capacities(fields: Fields) -> dict[str, int]:
    """Spaces by vehicle class. Empty if bad."""
    value = fields.value("capacity")
    if value is None:
        fields.bad("capacity", "missing_field", "is needed")
        return {}
    if not isinstance(value, dict) or not value:
        fields.bad("capacity", "not_an_object", f"{shown(value)} does not give spaces by vehicle class")
        return {}
    return {name: capacity(fields, name, spaces) for name, spaces in value.items() if is_served(fields, name)}


def is_served(fields: Fields, vehicle_class: str) -> bool:
    if vehicle_class in VEHICLE_CLASSES:
        return True
    rule = "class_not_served" if vehicle_class in KNOWN_CLASSES else "unknown_class"
    fields.bad(f"capacity.{shown(vehicle_class)}", rule, f"served are {', '.join(VEHICLE_CLASSES)}")
    return False


def capacity(fields: Fields, vehicle_class: str, spaces: Any) -> int:
    with fields.noting(f"capacity.{vehicle_class}"):
        return integer(spaces, 0, LARGEST, fields.raw.is_text)
    return 0


def outline(fields: Fields) -> shapes.Outline:
    """The record's outline; empty if bad."""
    geometry = fields.raw.geometry
    try:
        is_wkt = fields.raw.is_text and geometry is not None
        return shapes.from_wkt(geometry) if is_wkt else shapes.from_geojson(geometry)
    except shapes.BadShape as error:
        fields.bad("geometry", error.rule, str(error))
        return Polygon()


def area(fields: Fields) -> MultiPolygon:
    shape = outline(fields)
    return shape if isinstance(shape, MultiPolygon) else MultiPolygon([shape] if shape else [])


def zone_shape(fields: Fields, car_bays: int) -> Polygon:
    """A zone is one piece of ground; a CSV row without an outline may give a point. Empty if bad."""
    if fields.raw.is_text and fields.raw.geometry is None and fields.value("lon", "lat"):
        return square(fields, car_bays)
    shape = outline(fields)
    pieces = list(shapely.get_parts(shape))
    if len(pieces) > 1:
        fields.bad("geometry", "not_a_polygon", f"a zone is one polygon, not {len(pieces)}")
    return pieces[0] if len(pieces) == 1 else Polygon()


def square(fields: Fields, car_bays: int) -> Polygon:
    try:
        return shapes.square(degrees(fields, "lon"), degrees(fields, "lat"), car_bays)
    except BadField as error:
        fields.bad("geometry", error.rule, str(error))
    except shapes.BadShape as error:
        fields.bad("geometry", error.rule, str(error))
    return Polygon()


def degrees(fields: Fields, name: str) -> float:
    try:
        return float(fields.value(name) or "")
    except ValueError as error:
        raise BadField("not_a_number", f"{name} {shown(fields.value(name))} is not a number") from error


def district_of(fields: Fields, shape: Polygon, areas: Areas) -> str:
    """The district that the record names and the zone lies in, or else the one with the largest part of it."""
    named = fields.code("district", "district_code", optional=True)
    if not shape:
        return named
    shares = areas.shares(shape)
    if sum(shares.values()) < 0.5:
        lies_elsewhere(fields, shape, areas)
    elif named and named not in areas.codes:
        fields.bad("district", "unknown_district", f"there is no district {named}")
    elif named and shares.get(named, 0.0) < 0.5:
        fields.bad("district", "wrong_district", f"it lies in {', '.join(sorted(shares))}, less than half in {named}")
    return named or max(shares, key=lambda code: shares[code], default="")


def lies_elsewhere(fields: Fields, shape: Polygon, areas: Areas) -> None:
    """Outside every district; perhaps only because latitude came first."""
    if areas.shares(shapes.swapped(shape)):
        fields.bad("geometry", "swapped_axes", "latitude and longitude are swapped: longitude comes first")
    else:
        fields.bad("geometry", "outside_every_district", "it does not lie in any district of the city")

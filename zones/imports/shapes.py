"""Outlines from files: parsed, checked, and written one way so that equal shapes are equal."""

import re
from typing import Any, TypeAlias

import numpy
import shapely
from shapely import MultiPolygon, Polygon
from shapely.errors import GEOSException
from shapely.validation import explain_validity

from zones.geometry import LocalPlane
from zones.imports.report import shown

Outline: TypeAlias = Polygon | MultiPolygon

AREA_PER_BAY = 25.0  # m² of a bay with its share of the aisle
EWKT = re.compile(r"\s*SRID=(\d+);", re.IGNORECASE)


class BadShape(Exception):
    """An outline that cannot be taken; `rule` names what it breaks."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule


def from_geojson(geometry: Any) -> Outline:
    """A checked outline from a GeoJSON Polygon or MultiPolygon. Raises BadShape."""
    if geometry is None:
        raise BadShape("missing_field", "an outline is needed")
    name = geometry.get("type") if isinstance(geometry, dict) else geometry
    if name not in ("Polygon", "MultiPolygon"):
        raise BadShape("not_a_polygon", f"{shown(name)} is no Polygon or MultiPolygon")
    parts = geometry.get("coordinates")
    parts = [parts] if name == "Polygon" else parts
    if not isinstance(parts, list) or not all(isinstance(rings, list) for rings in parts):
        raise BadShape("invalid_polygon", "its coordinates are no list of rings")
    polygons = [polygon(rings) for rings in parts]
    return checked(polygons[0] if name == "Polygon" else MultiPolygon(polygons))


def polygon(rings: list[Any]) -> Polygon:
    """A polygon from GeoJSON rings, the outer one first."""
    closed = [ring(each) for each in rings]
    return Polygon(closed[0], closed[1:]) if closed and closed[0] else Polygon()


def ring(positions: Any) -> list[tuple[float, float]]:
    """The positions of one ring, heights left out. RFC 7946: four or more, the last equal to the first."""
    if not isinstance(positions, list):
        raise BadShape("invalid_polygon", "a ring is a list of positions")
    points = [position(each) for each in positions]
    if points and len(points) < 4:
        raise BadShape("invalid_polygon", "a ring has four or more positions")
    if points and points[0] != points[-1]:
        raise BadShape("invalid_polygon", "a ring is not closed: its last position differs from its first")
    return points


def position(value: Any) -> tuple[float, float]:
    is_numbers = isinstance(value, list) and len(value) >= 2 and all(type(n) in (int, float) for n in value)
    if not is_numbers:
        raise BadShape("invalid_polygon", f"{shown(value)} is no position of longitude and latitude")
    return value[0], value[1]


def from_wkt(text: str) -> Outline:
    """A checked outline from WKT, or EWKT with SRID 4326. Raises BadShape."""
    srid = EWKT.match(text)
    if srid and srid[1] != "4326":
        raise BadShape("wrong_crs", f"SRID {shown(srid[1])} is not WGS 84 (4326)")
    if "\0" in text:
        raise BadShape("control_character", "WKT has a NUL character")
    try:
        with numpy.errstate(invalid="ignore"):  # a NaN in the text is found below, with the rule that it breaks
            shape = shapely.from_wkt(text[srid.end() :] if srid else text)
    except GEOSException as error:
        raise BadShape("invalid_polygon", f"not WKT: {shown(str(error))}") from error
    if not isinstance(shape, Polygon | MultiPolygon):
        raise BadShape("not_a_polygon", f"{shape.geom_type} is no Polygon or MultiPolygon")
    return checked(shape)


def square(longitude: float, latitude: float, bays: int) -> Outline:
    """A square around a point with room for so many car bays (at least one). Raises BadShape."""
    check_axes((longitude, latitude, longitude, latitude))
    half = (AREA_PER_BAY * max(bays, 1)) ** 0.5 / 2
    plane = LocalPlane(longitude, latitude)
    return checked(shapely.set_precision(plane.to_degrees(shapely.box(-half, -half, half, half)), 1e-7))


def checked(shape: Outline) -> Outline:
    """The shape in canonical form if it is a polygon on the earth. Raises BadShape."""
    if shape.is_empty:
        raise BadShape("empty_polygon", "the outline has no area")
    if not numpy.isfinite(shapely.get_coordinates(shape)).all():
        raise BadShape("out_of_range", "a coordinate is not a finite number")
    check_axes(shape.bounds)
    if not shape.is_valid:
        raise BadShape("invalid_polygon", explain_validity(shape))
    return canonical(shape)


def check_axes(bounds: tuple[float, float, float, float]) -> None:
    """Longitude within ±180, latitude within ±90, in that order."""
    longitude = max(abs(bounds[0]), abs(bounds[2]))
    latitude = max(abs(bounds[1]), abs(bounds[3]))
    if longitude <= 180 and latitude <= 90:
        return
    if longitude <= 90 and latitude <= 180:
        raise BadShape("swapped_axes", "latitude and longitude are swapped: longitude comes first")
    raise BadShape("out_of_range", f"({bounds[0]:g}, {bounds[1]:g}) is not in degrees of longitude and latitude")


def canonical(shape: Outline) -> Outline:
    """The same shape without heights, its rings wound as RFC 7946 asks and begun at one agreed point.

    Two files that draw one outline from different corners give the same shape.
    """
    return shapely.orient_polygons(shapely.normalize(shapely.force_2d(shape)))


def swapped(shape: Outline) -> Outline:
    """The shape with its axes exchanged."""
    return shapely.transform(shape, lambda points: points[:, ::-1])

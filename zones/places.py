"""The zones in force, held in process memory: found by code, by words, by a map's box or around a point."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime

import psycopg
import shapely
from shapely.geometry.base import BaseGeometry

from zones.geometry import LocalPlane

D_WITH_STROKE = str.maketrans({"đ": "d", "Đ": "d", "ð": "d", "Ð": "d"})


@dataclass(frozen=True, slots=True)
class Place:
    """One zone as its version in force has it. `capacity` is by vehicle class."""

    id: str
    code: str
    name: str
    street: str
    district: str
    rate_area: str
    kind: str
    admission: str
    max_stay_minutes: int
    capacity: dict[str, int]
    capacity_source: str
    updated_at: datetime
    geometry: BaseGeometry
    geometry_json: str
    words: str


@dataclass(frozen=True, slots=True)
class Area:
    """A service district as it is now; `zones` counts its zones."""

    code: str
    name: str
    joined: date | None
    zones: int
    geometry_json: str


def fold_words(text: str) -> str:
    """Lower case without accents, Đ as d: what people type when they search."""
    decomposed = unicodedata.normalize("NFKD", text.translate(D_WITH_STROKE))
    return " ".join("".join(c for c in decomposed if not unicodedata.combining(c)).casefold().split())


_ORIGIN = shapely.Point(0, 0)


class Places:
    """All zones and districts of one revision. Never changes: a new revision makes a new object.

    Many threads ask at once, without Python's lock while GEOS works. So what GEOS makes only when it is first needed is
    made here (the tree), or must not be used: a shape that was prepared, as shapely.intersects_xy does, crashes.
    """

    def __init__(self, revision: int, places: Iterable[Place], districts: Iterable[Area]) -> None:
        self.revision = revision
        self.all = sorted(places, key=lambda place: place.code)
        self.districts = sorted(districts, key=lambda area: area.code)
        self.by_code = {place.code: place for place in self.all}
        self._tree = shapely.STRtree([place.geometry for place in self.all])
        self._tree.query(_ORIGIN)  # builds it
        self._bounds = shapely.bounds(self._tree.geometries).T.copy()

    def in_box(self, west: float, south: float, east: float, north: float) -> list[Place]:
        """Zones that touch a box of degrees, by code."""
        return [self.all[position] for position in self.positions_in_box(west, south, east, north)]

    def positions_in_box(self, west: float, south: float, east: float, north: float) -> list[int]:
        """Where in `all` the zones stand that touch a box of degrees, in rising order."""
        box = shapely.box(west, south, east, north)
        found = self._tree.query(box)  # whose bounds touch it
        wests, souths, easts, norths = self._bounds[:, found]
        touching = (wests >= west) & (souths >= south) & (easts <= east) & (norths <= north)
        # Most of a map's zones lie inside it, which their bounds prove; the others' shapes have to be looked at.
        doubtful = ~touching
        touching[doubtful] = shapely.intersects(self._tree.geometries[found[doubtful]], box)
        positions = found[touching]
        positions.sort()
        return list(positions.tolist())

    def near(self, lat: float, lng: float, metres: float) -> list[tuple[Place, float]]:
        """Zones within `metres` of a point, nearest first, with their distance in metres."""
        plane = LocalPlane(lng, lat)
        east, north = metres / plane.metres_per_degree[0], metres / plane.metres_per_degree[1]
        found = self._tree.query(shapely.box(lng - east, lat - north, lng + east, lat + north))
        if len(found) == 1 and shapely.intersects(self._tree.geometries[found], shapely.Point(lng, lat))[0]:
            return [(self.all[found[0]], 0.0)]  # the usual case needs no plane
        distances = shapely.distance(plane.to_metres(self._tree.geometries[found]), _ORIGIN)
        measured = zip([self.all[n] for n in found.tolist()], distances.tolist(), strict=True)
        return sorted(((p, d) for p, d in measured if d <= metres), key=lambda pair: (pair[1], pair[0].code))

    def matching(self, query: str) -> list[Place]:
        """Zones whose name, street, code or district has every word of the query, accents or not."""
        wanted = fold_words(query).split()
        return [place for place in self.all if all(word in place.words for word in wanted)]


_ZONES = """
SELECT z.id::text, z.code, z.name, z.street, z.district_code, z.rate_area, z.kind, z.admission, z.max_stay_minutes,
       (SELECT json_object_agg(o.vehicle_class, o.capacity ORDER BY o.vehicle_class) FROM zone_occupancy o
         WHERE o.zone_code = z.code),
       z.capacity_source, z.updated_at, ST_AsBinary(z.geometry), ST_AsGeoJSON(z.geometry, 6), d.name
  FROM zone z LEFT JOIN district d ON d.code = z.district_code AND d.valid_to IS NULL
 WHERE z.valid_to IS NULL
"""
_DISTRICTS = """
SELECT d.code, d.name, d.joined, (SELECT count(*) FROM zone z WHERE z.district_code = d.code AND z.valid_to IS NULL),
       ST_AsGeoJSON(d.geometry, 6)
  FROM district d WHERE d.valid_to IS NULL
"""


def load(connection: psycopg.Connection) -> Places:
    """Read what is in force. One snapshot, so the revision is that of the rows."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        revision = read_revision(connection)
        zones = [_place(*row) for row in connection.execute(_ZONES).fetchall()]
        districts = [Area(*row) for row in connection.execute(_DISTRICTS).fetchall()]
    return Places(revision, zones, districts)


def read_revision(connection: psycopg.Connection) -> int:
    """The number that rises whenever a zone, a district or a capacity changes."""
    row = connection.execute("SELECT value FROM revision WHERE name = 'zones'").fetchone()
    return row[0] if row else 0


def _place(*row: object) -> Place:
    *facts, capacity, source, updated_at, wkb, geometry_json, district_name = row
    _, code, name, street, *_ = facts
    words = fold_words(f"{code} {name} {street} {district_name or ''}")
    return Place(*facts, capacity or {}, source, updated_at, shapely.from_wkb(bytes(wkb)), geometry_json, words)  # type: ignore

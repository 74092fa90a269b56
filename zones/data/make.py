"""Make districts.geojson and zones.geojson: `IPARKING_SHARED=… python -m zones.data.make`.

    side street          side street
         |                    |          what a zone is, seen from above
    -----+--------------------+------    centre line of the street, as in OpenStreetMap
         |    +-----------+   |          <- kerb: half of the carriageway's width away
         |    |   zone    |   |          <- a strip as deep as a bay, as long as its bays need
         |    +-----------+   |          side streets stay free

Which streets have zones, how many and how large is ours to invent (plan.csv), because the city's list is not public.
Where they lie is real: beside the street, in the district, clear of every other road. No randomness: the same input
gives the same bytes.
"""

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy
import shapely
from shapely import LineString, MultiLineString, Polygon
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry
from shapely.ops import substring

from zones.geometry import LocalPlane

HERE = Path(__file__).parent
HANOI = LocalPlane(105.82, 21.02)

# District: prefix of its zones' codes, rate area outside the restricted streets, date of joining (2018-03-20 is the
# date of the report that names the last five).
DISTRICTS = {
    "001": ("BD", "core", date(2018, 1, 1)),
    "002": ("HK", "core", date(2018, 1, 1)),
    "003": ("TH", "inside_ring_3", date(2018, 3, 20)),
    "004": ("LB", "beyond_ring_3", date(2018, 3, 20)),
    "005": ("CG", "inside_ring_3", date(2018, 3, 20)),
    "006": ("DD", "core", date(2018, 1, 1)),
    "007": ("HBT", "core", date(2018, 1, 1)),
    "009": ("TX", "inside_ring_3", date(2018, 3, 20)),
    "019": ("NTL", "beyond_ring_3", date(2018, 3, 20)),
}
# Decision 44/2017/QĐ-UBND.
RESTRICTED_STREETS = {
    "Phố Nguyễn Xí", "Phố Đinh Lễ", "Phố Lý Thái Tổ", "Phố Trần Hưng Đạo", "Phố Lý Thường Kiệt", "Phố Hai Bà Trưng",
    "Phố Hàng Đường", "Phố Hàng Đào", "Phố Hàng Ngang", "Phố Hàng Giấy", "Phố Phủ Doãn", "Phố Quán Sứ",
}  # fmt: skip
LICENCE = {
    "attribution": "© OpenStreetMap contributors",
    "license": "ODbL-1.0",
    "license_url": "https://opendatacommons.org/licenses/odbl/1-0/",
}

OUTLINE_TOLERANCE = 40.0  # metres
DECIMALS = 6  # of a degree: 0.1 m
LANE = 3.25  # metres
HALF_WIDTH = {"trunk": 9.0, "primary": 7.0, "secondary": 6.0, "tertiary": 4.5}  # metres, where lanes are not mapped
NARROW = 3.5  # metres, half the width of all other streets
SIDE_STREET = 8.0  # metres kept free from the centre line of a side street
NEAR_STREET = 28.0  # metres within which all of a zone lies (30 promised)
MOTORBIKES_PER_CAR = 2.5


@dataclass(frozen=True, slots=True)
class Layout:
    """How a kind of zone lies beside its street; lengths in metres."""

    setback: float  # from the edge of the carriageway
    depth: float
    length_per_bay: float
    fewest: float  # least share of the planned bays that is still worth a zone
    rules: dict[str, Any]


# The city's 4,500 bays took 84,000 m²: 18.7 m² each, 3.75 m of a strip 5 m deep.
KERB = Layout(0.0, 5.0, 3.75, 0.6, {"kind": "kerb", "admission": "advisory", "max_stay_minutes": 720})
# Off the street a bay takes 25 m² with its share of the aisle.
OFF_STREET_RULES = {"kind": "off_street", "admission": "strict", "max_stay_minutes": 1440}
SMALL_YARD = Layout(6.0, 10.0, 2.5, 1.0, OFF_STREET_RULES)
LARGE_YARD = Layout(6.0, 14.0, 25 / 14, 1.0, OFF_STREET_RULES)


@dataclass(frozen=True, slots=True)
class Place:
    """A strip beside a street that would hold so many bays."""

    polygon: Polygon  # metres
    bays: int


class Roads:
    """The centre lines of one file, in metres."""

    def __init__(self, path: Path) -> None:
        features = json.loads(path.read_text(encoding="utf-8"))["features"]
        self.lines = [HANOI.to_metres(shape(feature["geometry"])) for feature in features]
        self.properties = [feature["properties"] for feature in features]
        self.names = numpy.array([each.get("name", "") for each in self.properties])
        self.tree = shapely.STRtree(self.lines)

    def on_ground(self, name: str) -> list[int]:
        """Indexes of the street's lines, bridges and tunnels left out."""
        return [
            i
            for i in numpy.flatnonzero(self.names == name).tolist()
            if not {"bridge", "tunnel"} & self.properties[i].keys()
        ]

    def half_width(self, index: int) -> float:
        """Metres from the centre line to the kerb."""
        lanes, highway = (self.properties[index].get("lanes"), self.properties[index].get("highway"))
        return max(int(lanes) * LANE / 2, NARROW) if lanes else HALF_WIDTH.get(highway, NARROW)

    def directed(self, index: int) -> BaseGeometry:
        """The line in the direction of traffic, so that its right-hand side is the kerb's."""
        reverse = self.properties[index].get("oneway") == "-1"
        return shapely.reverse(self.lines[index]) if reverse else self.lines[index]

    def near(self, geometry: BaseGeometry, metres: float, name: str | None = None) -> BaseGeometry:
        """All lines within so many metres, except those of the street `name`."""
        found = self.tree.query(geometry, predicate="dwithin", distance=metres)
        return shapely.union_all([self.lines[i] for i in found if name is None or self.names[i] != name])


@dataclass(frozen=True, slots=True)
class Street:
    """A street with the file that knows it."""

    roads: Roads
    name: str  # as in that file
    centre: BaseGeometry

    @classmethod
    def find(cls, name: str, files: Iterable[Roads]) -> "Street":
        """The street in the first file that has it, in full or (2017) without Phố and Đường."""
        for roads in files:
            for spelling in (name, bare_name(name)):
                if numpy.any(roads.names == spelling):
                    lines = [roads.lines[i] for i in numpy.flatnonzero(roads.names == spelling)]
                    return cls(roads, spelling, shapely.union_all(lines))
        raise LookupError(f"no street {name}")

    def kerbs(self, layout: Layout) -> Iterator[LineString]:
        """The middle lines of all strips that `layout` allows on the right-hand side, side streets kept free."""
        indexes = self.roads.on_ground(self.name)
        half_width = max(map(self.roads.half_width, indexes))
        merged = shapely.line_merge(MultiLineString([self.roads.directed(i) for i in indexes]), directed=True)
        clear = max(SIDE_STREET, layout.depth / 2 + 2)
        for line in shapely.get_parts(merged):
            kerb = shapely.offset_curve(line, -(half_width + layout.setback + layout.depth / 2))
            others = self.roads.near(kerb, clear, self.name)
            yield from shapely.get_parts(shapely.line_merge(kerb.difference(others.buffer(clear))))

    def places(self, layout: Layout, cars: int) -> Iterator[Place]:
        """All places for zones of at most `cars` bays, in the order of the file."""
        for kerb in self.kerbs(layout):
            fits = int(kerb.length / layout.length_per_bay)
            count = max(1, fits // cars)
            bays = min(cars, fits)
            if bays < cars * layout.fewest:
                continue
            for i in range(count):
                middle = kerb.length * (2 * i + 1) / (2 * count)
                half = bays * layout.length_per_bay / 2
                piece = substring(kerb, middle - half, middle + half).simplify(0.3)
                strip = piece.buffer(layout.depth / 2, cap_style="flat", join_style="bevel")
                yield Place(strip, bays)

    def is_beside(self, polygon: Polygon) -> bool:
        """All of it near this street, and on no road at all."""
        far = max(self.centre.distance(shapely.points(corner)) for corner in polygon.exterior.coords)
        return far <= NEAR_STREET and self.roads.near(polygon, 0.5).is_empty


def bare_name(street: str) -> str:
    """`Phố Huế` is `Huế` to everybody."""
    return street.removeprefix("Phố ").removeprefix("Đường ")


def rounded(geometry: BaseGeometry) -> BaseGeometry:
    """Metres to degrees as they are written down."""
    return shapely.transform(HANOI.to_degrees(geometry), lambda points: points.round(DECIMALS))


def simplified(outlines: list[BaseGeometry]) -> list[BaseGeometry]:
    """The outlines with fewer points; a border between two is simplified once, so it stays one line."""
    return [HANOI.to_metres(rounded(each)) for each in shapely.coverage_simplify(outlines, OUTLINE_TOLERANCE)]


def spread(places: list[Place], count: int) -> list[Place]:
    """At most `count` places, the largest first and then each as far as possible from those taken."""
    taken: list[Place] = []
    while places and len(taken) < count:
        distances = [min((each.polygon.distance(other.polygon) for other in taken), default=0.0) for each in places]
        best = max(range(len(places)), key=lambda i: (distances[i] if taken else places[i].bays, -i))
        taken.append(places.pop(best))
    return in_order(taken)


def in_order(places: list[Place]) -> list[Place]:
    """From west to east, or from north to south where the street runs that way."""
    centres = [each.polygon.centroid for each in places]
    wide = max(c.x for c in centres) - min(c.x for c in centres) if places else 0.0
    high = max(c.y for c in centres) - min(c.y for c in centres) if places else 0.0
    key = (lambda place: place.polygon.centroid.x) if wide >= high else (lambda place: -place.polygon.centroid.y)
    return sorted(places, key=key)


class City:
    """The districts and the zones laid out so far."""

    def __init__(self, shared: Path) -> None:
        hanoi = shared / "data" / "hanoi"
        features = json.loads((hanoi / "districts.geojson").read_text(encoding="utf-8"))["features"]
        self.names = {f["properties"]["code"]: f["properties"]["short_name"] for f in features}
        true = {f["properties"]["code"]: HANOI.to_metres(shape(f["geometry"])) for f in features}
        self.outlines = dict(zip(DISTRICTS, simplified([true[code] for code in DISTRICTS]), strict=True))
        self.inside = {code: true[code].intersection(self.outlines[code]).buffer(-2) for code in DISTRICTS}
        self.files = [Roads(hanoi / "streets_core_2025.geojson"), Roads(hanoi / "roads_2017.geojson")]
        self.taken: list[Polygon] = []
        self.codes: Counter[str] = Counter()
        self.zones: list[dict[str, Any]] = []

    def lay_out(self, district: str, street_name: str, kind: str, count: int, cars: int) -> None:
        """Add the zones of one line of the plan."""
        street = Street.find(street_name, self.files)
        layout = KERB if kind == "kerb" else SMALL_YARD if cars <= 10 else LARGE_YARD
        free = [
            place
            for place in street.places(layout, cars)
            if self.inside[district].contains(place.polygon)
            and street.is_beside(place.polygon)
            and not any(place.polygon.dwithin(other, 1.0) for other in self.taken)
        ]
        chosen = spread(free, count)
        if len(chosen) < count:
            print(f"{district} {street_name}: {len(chosen)} of {count}")
        for number, place in enumerate(chosen, 1):
            self.taken.append(place.polygon)
            name = bare_name(street_name)
            title = f"{name} {number}" if kind == "kerb" else f"Bãi đỗ xe {name}"
            self.add(district, street_name, title, place, layout)

    def add(self, district: str, street: str, name: str, place: Place, layout: Layout) -> None:
        prefix, rate_area, _ = DISTRICTS[district]
        self.codes[district] += 1
        properties = {
            "code": f"{prefix}-{self.codes[district]:03}",
            "name": name,
            "street": street,
            "district": district,
            "rate_area": "restricted" if district == "002" and street in RESTRICTED_STREETS else rate_area,
            **layout.rules,
            "capacity": {"car": place.bays, "motorbike": round(place.bays * MOTORBIKES_PER_CAR / 5) * 5},
            "capacity_source": "illustrative",
        }
        self.zones.append(feature(properties, place.polygon))

    def districts(self) -> list[dict[str, Any]]:
        return [
            feature({"code": code, "name": self.names[code], "joined": joined.isoformat()}, self.outlines[code])
            for code, (_, _, joined) in DISTRICTS.items()
        ]


def feature(properties: dict[str, Any], geometry: BaseGeometry) -> dict[str, Any]:
    """A GeoJSON Feature of a shape in metres, wound as RFC 7946 asks."""
    degrees = shapely.orient_polygons(rounded(geometry))
    return {"type": "Feature", "properties": properties, "geometry": mapping(degrees)}


def write(path: Path, features: list[dict[str, Any]]) -> None:
    """One feature a line, so that a change shows as the zone that it changes."""
    head = json.dumps({"type": "FeatureCollection", "name": path.stem, **LICENCE}, ensure_ascii=False)
    lines = ",\n".join(json.dumps(each, ensure_ascii=False) for each in features)
    path.write_text(f'{head[:-1]}, "features": [\n{lines}\n]}}\n', encoding="utf-8")


def main() -> None:
    """Read the shared street files and the plan, write both files beside this one."""
    city = City(Path(os.environ["IPARKING_SHARED"]))
    with (HERE / "plan.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            city.lay_out(row["district"], row["street"], row["kind"], int(row["zones"]), int(row["cars"]))
    write(HERE / "districts.geojson", city.districts())
    write(HERE / "zones.geojson", sorted(city.zones, key=lambda zone: zone["properties"]["code"]))
    bays = sum(zone["properties"]["capacity"]["car"] for zone in city.zones)
    print(f"{len(city.zones)} zones, {bays} car bays")


if __name__ == "__main__":
    main()

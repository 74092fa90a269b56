"""The city as the simulator knows it: zones and districts, read over HTTP or from a GeoJSON file of the same form."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Self
from urllib.error import URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import Request, urlopen

from simulator.trace import VehicleClass

CLASSES: tuple[VehicleClass, ...] = ("car", "motorbike")
ADMISSIONS = ("advisory", "strict")
MAX_PAGES = 1_000
LINK = re.compile(r"<([^>]*)>([^,]*)")

Point = tuple[float, float]
Document = Mapping[str, Any]


class CityError(Exception):
    """The city cannot be read; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Zone:
    """One zone: places by vehicle class, its admission rule, the longest stay in minutes, and its centre (lng, lat)."""

    code: str
    name: str
    district: str
    rate_area: str
    kind: str
    admission: str
    max_stay_minutes: int
    capacity: Mapping[str, int]
    centroid: Point

    @property
    def strict(self) -> bool:
        return self.admission == "strict"

    def serves(self, vehicle_class: str) -> bool:
        return self.capacity.get(vehicle_class, 0) > 0


@dataclass(frozen=True, slots=True)
class District:
    code: str
    name: str


@dataclass(frozen=True)
class City:
    """Zones and districts in order of their code; `by_code` finds a zone."""

    zones: tuple[Zone, ...]
    districts: tuple[District, ...]
    by_code: Mapping[str, Zone] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "zones", tuple(sorted(self.zones, key=lambda zone: zone.code)))
        object.__setattr__(self, "districts", tuple(sorted(self.districts, key=lambda district: district.code)))
        object.__setattr__(self, "by_code", {zone.code: zone for zone in self.zones})
        if len(self.by_code) != len(self.zones):
            raise CityError("two zones have the same code")

    @classmethod
    def from_api(cls, base_url: str, timeout: float = 10.0) -> Self:
        """The city that the service at `base_url` serves now. Raises CityError where it answers otherwise."""
        districts = _features(_pages(f"{base_url.rstrip('/')}/v1/districts", timeout))
        zones = _features(_pages(f"{base_url.rstrip('/')}/v1/zones", timeout))
        return cls(tuple(map(_zone, zones)), tuple(map(_district, districts)))

    @classmethod
    def from_geojson(cls, path: str | Path) -> Self:
        """The city of a file in the form of `GET /v1/zones`; districts get their code for a name. Raises CityError."""
        try:
            document = json.loads(Path(path).read_bytes())
        except (OSError, ValueError) as error:
            raise CityError(f"{path}: {error}") from None
        zones = tuple(map(_zone, _features([document])))
        return cls(zones, tuple(District(code, code) for code in sorted({zone.district for zone in zones})))

    def places(self, vehicle_class: str) -> int:
        return sum(zone.capacity.get(vehicle_class, 0) for zone in self.zones)

    def digest(self) -> str:
        """A short hash of all that the demand depends on; equal for equal cities."""
        facts = [
            (zone.code, zone.district, zone.admission, zone.max_stay_minutes, sorted(zone.capacity.items()))
            for zone in self.zones
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _pages(url: str, timeout: float) -> Iterable[Document]:
    """All pages of a collection, by the links that the service gives (`Link: <...>; rel="next"`)."""
    next_url: str | None = url
    for _ in range(MAX_PAGES):
        if next_url is None:
            return
        page, link = _get(next_url, timeout)
        yield page
        next_url = _next(next_url, link)
    raise CityError(f"{url}: more than {MAX_PAGES} pages")


def _get(url: str, timeout: float) -> tuple[Document, str]:
    if urlsplit(url).scheme not in ("http", "https"):
        raise CityError(f"{url}: not an http address")
    request = Request(url, headers={"Accept": "application/geo+json, application/json"})
    try:
        with urlopen(request, timeout=timeout) as answer:
            return json.loads(answer.read()), ", ".join(answer.headers.get_all("Link") or [])
    except (URLError, OSError, ValueError) as error:
        raise CityError(f"{url}: {error}") from None


def _next(url: str, link: str) -> str | None:
    for target, parameters in LINK.findall(link):
        if 'rel="next"' in parameters.replace(" ", ""):
            return urljoin(url, target)
    return None


def _features(documents: Iterable[Document]) -> list[Document]:
    features: list[Document] = []
    for document in documents:
        found = document.get("features") if isinstance(document, dict) else None
        if not isinstance(found, list):
            raise CityError("a GeoJSON FeatureCollection is expected")
        features += found
    return features


def _district(feature: Document) -> District:
    try:
        return District(str(feature["properties"]["code"]), str(feature["properties"]["name"]))
    except (KeyError, TypeError) as error:
        raise CityError(f"a district without {error}") from None


def _zone(feature: Document) -> Zone:
    try:
        facts = feature["properties"]
        zone = Zone(
            code=str(facts["code"]),
            name=str(facts.get("name") or facts["code"]),
            district=str(facts["district"]),
            rate_area=str(facts.get("rate_area") or ""),
            kind=str(facts.get("kind") or "kerb"),
            admission=str(facts["admission"]),
            max_stay_minutes=int(facts["max_stay_minutes"]),
            capacity={name: int(places) for name, places in facts["capacity"].items() if name in CLASSES},
            centroid=centroid(feature["geometry"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CityError(f"zone {_code_of(feature)}: {type(error).__name__} {error}") from None
    _check(zone)
    return zone


def _check(zone: Zone) -> None:
    if zone.admission not in ADMISSIONS:
        raise CityError(f"zone {zone.code}: admission {zone.admission!r} is none of {', '.join(ADMISSIONS)}")
    if zone.max_stay_minutes <= 0:
        raise CityError(f"zone {zone.code}: max_stay_minutes must be above 0")
    if any(places < 0 for places in zone.capacity.values()):
        raise CityError(f"zone {zone.code}: a capacity is below 0")


def _code_of(feature: Document) -> str:
    facts = feature.get("properties") if isinstance(feature, dict) else None
    return str(facts.get("code", "?")) if isinstance(facts, dict) else "?"


def centroid(geometry: Document) -> Point:
    """The centre (lng, lat) of a Point, Polygon or MultiPolygon: area-weighted over the outer rings.

    Degrees are taken as a plane, which is exact enough for figures of the size of a street.
    """
    if geometry["type"] == "Point":
        return float(geometry["coordinates"][0]), float(geometry["coordinates"][1])
    polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    parts = [_ring(polygon[0]) for polygon in polygons]
    area = sum(part[0] for part in parts)
    return sum(part[0] * part[1] for part in parts) / area, sum(part[0] * part[2] for part in parts) / area


def _ring(ring: list[list[float]]) -> tuple[float, float, float]:
    """Area and centre (lng, lat) of one ring, by the shoelace formula about its first point (keeps the digits)."""
    x0, y0 = ring[0][:2]
    area = x = y = 0.0
    for (ax, ay, *_), (bx, by, *_) in pairwise(ring):
        cross = (ax - x0) * (by - y0) - (bx - x0) * (ay - y0)
        area += cross / 2
        x += (ax + bx - 2 * x0) * cross / 6
        y += (ay + by - 2 * y0) * cross / 6
    if area == 0:
        raise ValueError("a polygon without an area")
    return abs(area), x0 + x / area, y0 + y / area

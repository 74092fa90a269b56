"""What each zone has free: live for one zone, at most a second old for a map, and how much of it is known."""

import threading
import time
import zlib
from datetime import datetime
from typing import Any, NamedTuple

import orjson
import psycopg

from app.api.fields import local
from app.resources import Resources
from zones import occupancy
from zones.occupancy import CopiesAway, Key
from zones.places import Place
from zones.sessions import Count

# How old a map may be (real seconds).
MAP_AGE_SECONDS = 1.0


class Feature(NamedTuple):
    """One zone ready for a map: its GeoJSON and a tag that changes when what is known of it changes."""

    json: bytes
    tag: bytes


def live(resources: Resources, codes: list[str], now: datetime) -> dict[Key, Count]:
    """Counts of these zones as of `now`: from Redis, from PostgreSQL where copies are missing or past their next_over.

    A count that neither knows is left out.
    """
    places = resources.catalogue.places.by_code
    keys = [(code, vehicle_class) for code in codes for vehicle_class in places[code].capacity]
    try:
        copied = resources.copies.read(keys)
    except CopiesAway:
        copied = {}
    known = {key: count for key, count in copied.items() if count.next_over is None or count.next_over > now}
    missing = sorted({code for code, vehicle_class in keys if (code, vehicle_class) not in known})
    return known | _from_database(resources, missing, now)


def _from_database(resources: Resources, codes: list[str], now: datetime) -> dict[Key, Count]:
    if not codes:
        return {}
    try:
        return occupancy.counts(resources.connections.get(), now, codes)
    except psycopg.OperationalError:
        return {}  # unknown: the answer says null, which is true


def describe(place: Place, counts: dict[Key, Count], now: datetime) -> dict[str, Any]:
    """A zone's availability by class. What is not known is null."""
    return {
        vehicle_class: _describe(capacity, counts.get((place.code, vehicle_class)), now)
        for vehicle_class, capacity in place.capacity.items()
    }


def _describe(capacity: int, count: Count | None, now: datetime) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "occupied": None,
        "capacity": capacity,
        "available": None,
        "overflow": None,
        "source": None,
    }
    version = None
    if count is not None:
        version = count.version
        facts = {
            "occupied": count.occupied,
            "capacity": count.capacity,
            "available": max(0, count.capacity - count.occupied),
            "overflow": max(0, count.occupied - count.capacity),
            "source": "paid",
        }
    return facts | {"as_of": local(now), "version": version}


def feature(place: Place, counts: dict[Key, Count], now: datetime) -> Feature:
    """A zone as a GeoJSON Feature."""
    properties = {
        "code": place.code,
        "name": place.name,
        "street": place.street,
        "district": place.district,
        "rate_area": place.rate_area,
        "kind": place.kind,
        "admission": place.admission,
        "max_stay_minutes": place.max_stay_minutes,
        "capacity": place.capacity,
        "capacity_source": place.capacity_source,
        "availability": describe(place, counts, now),
    }
    geometry = orjson.Fragment(place.geometry_json)
    body = {"type": "Feature", "id": place.code, "geometry": geometry, "properties": properties}
    known = [counts.get((place.code, vehicle_class)) for vehicle_class in place.capacity]
    return Feature(orjson.dumps(body), f"{place.id}{[count and count[2:5] for count in known]}".encode())


class Map:
    """All zones ready for maps, made anew after a second: by one thread, while the others use the last."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._lock = threading.Lock()
        self._made = float("-inf")
        self._revision = -1
        self._features: dict[str, Feature] = {}

    def features(self) -> dict[str, Feature]:
        """Every zone by code. Raises Unavailable where no zones could be read yet."""
        if not self._is_fresh() and self._lock.acquire(blocking=not self._features):
            try:
                self._make()
            finally:
                self._lock.release()
        return self._features

    def _is_fresh(self) -> bool:
        is_young = time.monotonic() - self._made <= MAP_AGE_SECONDS
        return is_young and self._revision == self._resources.catalogue.places.revision

    def _make(self) -> None:
        if self._is_fresh():
            return  # another thread made it while this one waited
        places = self._resources.catalogue.places
        made, now = time.monotonic(), self._resources.clock.now()
        counts = live(self._resources, list(places.by_code), now)
        self._features = {place.code: feature(place, counts, now) for place in places.all}
        self._made, self._revision = made, places.revision


def collection(features: list[Feature]) -> tuple[bytes, str]:
    """A GeoJSON FeatureCollection of these, and its ETag (weak: as_of moves on while nothing else changes)."""
    tag = zlib.crc32(b"".join(feature.tag for feature in features))
    body = b'{"type":"FeatureCollection","features":[' + b",".join(feature.json for feature in features) + b"]}"
    return body, f'W/"{len(features)}-{tag:08x}"'

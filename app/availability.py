"""What each zone has free: live for one zone, at most a second old for a map, and how much of it is known."""

import threading
import time
import zlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson
import psycopg

from app.api.fields import local
from app.resources import Resources
from zones import occupancy
from zones.occupancy import CopiesAway, Key
from zones.places import Place, Places
from zones.sessions import Count

# How old a map may be when it is asked for (real seconds), and from which age on one thread makes the next.
MAP_AGE_SECONDS = 1.0
RENEW_SECONDS = 0.85


class Feature(NamedTuple):
    """One zone ready for a map: its GeoJSON, what is known of it, and a number that changes with that."""

    json: bytes
    known: tuple[Any, ...]
    tag: int


class View(NamedTuple):
    """All zones of one revision, ready for maps, as of an instant (which stands in their JSON so).

    `made` is the monotonic second at which their counts began to be read.
    """

    places: Places
    features: dict[str, Feature]  # in the order of places.all
    jsons: list[bytes]
    tags: list[int]
    as_of: bytes
    made: float

    def of(self, places: Sequence[Place]) -> tuple[bytes, str]:
        """Some of its zones, in their order, as `collection` gives them."""
        features = [self.features[place.code] for place in places]
        return collection([feature.json for feature in features], [feature.tag for feature in features])

    def at(self, positions: Sequence[int]) -> tuple[bytes, str]:
        """The zones at some positions of places.all, as `collection` gives them."""
        return collection([self.jsons[n] for n in positions], [self.tags[n] for n in positions])


def live(resources: Resources, codes: list[str], now: datetime) -> dict[Key, Count]:
    """Counts of these zones as of `now`: from Redis, from PostgreSQL where copies are missing or past their next_over.

    A count that neither knows is left out.
    """
    known, missing = _copied(resources, codes, now)
    return known | _from_database(resources, missing, now)


def _recent(resources: Resources, codes: list[str], now: datetime) -> tuple[dict[Key, Count], datetime]:
    """The same for a map, which a replica may answer for PostgreSQL; and the instant as of which all of it is known."""
    known, missing = _copied(resources, codes, now)
    if not missing:
        return known, now
    try:
        found, as_of = resources.read(lambda connection, at: (occupancy.counts(connection, at, missing), at))
    except psycopg.OperationalError:
        return known, now
    return known | found, as_of


def _copied(resources: Resources, codes: list[str], now: datetime) -> tuple[dict[Key, Count], list[str]]:
    """The counts that Redis knows as of `now`, and the zones of which it does not know all."""
    places = resources.catalogue.places.by_code
    keys = [(code, vehicle_class) for code in codes for vehicle_class in places[code].capacity]
    try:
        copied = resources.copies.read(keys)
    except CopiesAway:
        copied = {}
    known = {key: count for key, count in copied.items() if count.next_over is None or count.next_over > now}
    return known, sorted({code for code, vehicle_class in keys if (code, vehicle_class) not in known})


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
    known = known_of(place, counts)
    return Feature(orjson.dumps(body), known, zlib.crc32(repr(known).encode()))


def known_of(place: Place, counts: dict[Key, Count]) -> tuple[Any, ...]:
    """All that a zone's answer depends on, but for the time: its version, and each class's count."""
    known = [counts.get((place.code, vehicle_class)) for vehicle_class in place.capacity]
    return (place.id, place.updated_at, *(count and count[2:5] for count in known))


class Map:
    """All zones ready for maps, one for all threads.

    One thread makes the next before the last is too old, and the others use the last meanwhile. Where there was nobody
    to do so in time, all wait for the new one: nobody is answered an old map, however long making takes. A count that
    cannot be read is null in it, and never one from before.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._lock = threading.Lock()
        self._view: View | None = None

    def view(self) -> View:
        """The zones as they were at most a second before this call, or as a replica knows them (as_of says so).

        Raises Unavailable where no zones could be read yet.
        """
        asked = time.monotonic()
        if not self._has(asked - RENEW_SECONDS):
            self._renew(asked)
        assert self._view is not None
        return self._view

    def _has(self, since: float) -> bool:
        """Whether there is a map of the zones in force whose counts were read since this monotonic second."""
        view = self._view
        return view is not None and view.made >= since and view.places is self._resources.catalogue.places

    def _renew(self, asked: float) -> None:
        if not self._lock.acquire(blocking=not self._has(asked - MAP_AGE_SECONDS)):
            return
        try:
            # Another thread may have made it while this one waited. What counts is when it was asked for: a map that
            # took long to make would else be too old at once, and all who waited would make theirs in turn.
            if not self._has(asked - RENEW_SECONDS):
                self._view = self._make()
        finally:
            self._lock.release()

    def _make(self) -> View:
        places = self._resources.catalogue.places
        made, now = time.monotonic(), self._resources.clock.now()
        counts, now = _recent(self._resources, list(places.by_code), now)
        as_of = str(local(now)).encode()
        features = [self._feature(place, counts, now, as_of) for place in places.all]
        by_code = {place.code: one for place, one in zip(places.all, features, strict=True)}
        return View(places, by_code, [one.json for one in features], [one.tag for one in features], as_of, made)

    def _feature(self, place: Place, counts: dict[Key, Count], now: datetime, as_of: bytes) -> Feature:
        """The last feature with the time of now where nothing else changed: most zones are quiet for a second."""
        last = self._view and self._view.features.get(place.code)
        if self._view and last and last.known == known_of(place, counts):
            return last._replace(json=last.json.replace(self._view.as_of, as_of))
        return feature(place, counts, now)


def collection(jsons: list[bytes], tags: Sequence[int]) -> tuple[bytes, str]:
    """A GeoJSON FeatureCollection of these features (a list of the caller's own, which is changed), and its ETag.

    The ETag is weak: as_of moves on while nothing else changes.
    """
    # The frame goes into the first and the last part, so that half a megabyte is copied once.
    jsons = jsons or [b""]
    jsons[0] = b'{"type":"FeatureCollection","features":[' + jsons[0]
    jsons[-1] += b"]}"
    return b",".join(jsons), f'W/"{hash(tuple(tags)):x}"'

"""Plate checks: has this vehicle a right to stand here at the instant at which it was seen?

    verdict        when                                                                      zone
    paid           a session in a candidate zone runs at captured_at                         the session's
    grace          one there ended, or its time was over, less than 5 minutes before         the session's
    wrong_zone     none of these; a session in another zone runs                             the nearest candidate
    expired        one there ended less than 24 hours before, or is a strict zone's overstay the session's
    unpaid         none of these                                                             the nearest candidate
    outside_zones  the position touches no zone                                              none

Candidates are the stated zone or, without one, every zone that the circle of the position's accuracy touches. Grace
goes before wrong_zone: who started the next session before driving off loses nothing by it. A session runs from its
start (inclusive) until its driver stopped it or its time was over (exclusive), judged by all that is known when the
check arrives: a phone may hand in a stop up to 15 minutes late.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import psycopg

from zones import errors, plates, sessions
from zones.errors import ZoneError
from zones.places import Place, Places
from zones.terms import VEHICLE_CLASSES

VERDICTS = ("paid", "grace", "expired", "unpaid", "wrong_zone", "outside_zones")
# How long a driver may take to drive off or to pay again. No decree states one: a default of the product.
GRACE = timedelta(minutes=5)
# How far back an ended session still tells something, and the latest that a photo may be handed in.
REACH = timedelta(hours=24)
# How long an idempotency key is remembered.
KEY_MEMORY = timedelta(hours=24)
# How far a warden's clock may be ahead of ours.
CLOCK_SKEW = timedelta(seconds=10)


class Position(NamedTuple):
    """Where the warden's phone believes to be: WGS 84 degrees, and the radius of its error in metres."""

    lat: float
    lng: float
    accuracy: float


class Sighting(NamedTuple):
    """What a warden saw. Without a class both are looked at; a stated zone goes before the position."""

    plate: str
    vehicle_class: str | None
    zone: str | None
    position: Position | None
    captured_at: datetime


class Stay(NamedTuple):
    """A session as a check sees it: paid until `paid_until`; `gone_at` is None while the vehicle is taken to stand."""

    id: UUID
    zone: str
    plate: str
    vehicle_class: str
    started_at: datetime
    paid_until: datetime
    gone_at: datetime | None

    def covers(self, at: datetime) -> bool:
        """Whether it ran at this instant."""
        return self.started_at <= at < self.paid_until

    def over_for(self, at: datetime) -> timedelta:
        """How long before `at` it ended; while an overstay goes on, how long before `at` its time was over."""
        is_gone = self.gone_at is not None and self.gone_at <= at
        return at - (self.gone_at if is_gone and self.gone_at is not None else self.paid_until)

    def is_known(self, at: datetime) -> bool:
        """Whether it stands on, or ended less than 24 hours before."""
        return self.gone_at is None or self.gone_at > at or self.over_for(at) < REACH


class Finding(NamedTuple):
    """A verdict and what it rests on."""

    verdict: str
    reason: str
    zone: str | None
    stay: Stay | None = None
    expired_for: timedelta | None = None


class Look(NamedTuple):
    """A sighting ready to be judged: the vehicles that it can mean, and the zones it can be in, nearest first.

    `key` is the request's idempotency key with the hash of its body.
    """

    client: str
    sighting: Sighting
    received_at: datetime
    readings: list[tuple[str, str]]
    candidates: list[str]
    key: tuple[str, bytes] | None


class Check(NamedTuple):
    """A stored check. `expired_for_seconds` is whole seconds, for grace and expired."""

    id: UUID
    plate: str
    vehicle_class: str | None
    verdict: str
    reasons: list[str]
    zone: str | None
    session: UUID | None
    expired_for_seconds: int | None
    near_plates: list[str]
    captured_at: datetime


def look(
    places: Places, client: str, sighting: Sighting, received_at: datetime, key: tuple[str, bytes] | None = None
) -> Look:
    """What a sighting asks, before anything is read. `key` is the request's idempotency key and the body's hash.

    Raises InvalidPlate, ClassNotServed, UnknownZone, CapturedInFuture, CapturedTooLate.
    """
    readings = read_plate(sighting.plate, sighting.vehicle_class)
    check_instant(sighting.captured_at, received_at)
    candidates = [place.code for place in _candidates(places, sighting)]
    return Look(client, sighting, received_at, readings, candidates, key)


def check(connection: psycopg.Connection, looks: Sequence[Look]) -> list[Check | ZoneError]:
    """Judge sightings and store the checks: one statement reads for all, one writes.

    A repeated key has its first answer. The refusals: KeyConflict; Overtaken where the key was free again only now.
    """
    stays = _stays(connection, looks)
    made = [_judged(one, stays.get(member, [])) for member, one in enumerate(looks)]
    stored = _store(connection, looks, made)
    return [one if one.id in stored else _repeated(connection, look) for look, one in zip(looks, made, strict=True)]


def first_answer(
    connection: psycopg.Connection, client: str, key: tuple[str, bytes], received_at: datetime
) -> Check | None:
    """The check that an idempotency key made within the last 24 hours. Raises KeyConflict."""
    row = connection.execute(_FIRST, (client, key[0], received_at - KEY_MEMORY)).fetchone()
    if row is None:
        return None
    request_hash, *columns = row
    if bytes(request_hash) != key[1]:
        raise errors.KeyConflict("the idempotency key was used with another request")
    return Check(*columns)


def read_plate(text: str, vehicle_class: str | None) -> list[tuple[str, str]]:
    """The vehicles, as canonical plate and class, that a text can mean. Raises InvalidPlate, ClassNotServed.

    Without a class and without separators 29E11234 is a car (29E-112.34) or an old motorbike (29-E1 1234).
    """
    if vehicle_class is not None:
        if vehicle_class not in VEHICLE_CLASSES:
            raise errors.ClassNotServed(f"{vehicle_class} is not served; served are {', '.join(VEHICLE_CLASSES)}")
        return [(plates.parse(text, vehicle_class).text, vehicle_class)]
    plates.parse(text)
    return [reading for each in VEHICLE_CLASSES if (reading := _read_as(text, each)) is not None]


def _read_as(text: str, vehicle_class: str) -> tuple[str, str] | None:
    try:
        return plates.parse(text, vehicle_class).text, vehicle_class
    except errors.InvalidPlate:
        return None


def check_instant(captured_at: datetime, received_at: datetime) -> None:
    """Raises CapturedInFuture past the clocks' skew, CapturedTooLate at 24 hours and more."""
    if captured_at > received_at + CLOCK_SKEW:
        raise errors.CapturedInFuture(f"captured_at lies more than {CLOCK_SKEW.seconds} seconds in the future")
    if captured_at <= received_at - REACH:
        raise errors.CapturedTooLate(f"captured_at lies {REACH // timedelta(hours=1)} hours back or more")


def _candidates(places: Places, sighting: Sighting) -> list[Place]:
    """The zones in which the vehicle may stand, nearest first."""
    if sighting.zone is not None:
        if sighting.zone not in places.by_code:
            raise errors.UnknownZone(f"no zone {sighting.zone}")
        return [places.by_code[sighting.zone]]
    assert sighting.position is not None, "a sighting has a zone or a position"
    return [place for place, _ in places.near(*sighting.position)]


def judge(candidates: Sequence[str], stays: Sequence[Stay], at: datetime) -> Finding:
    """The verdict on a vehicle seen at `at` in one of the candidate zones (nearest first)."""
    if not candidates:
        return Finding("outside_zones", "no_zone_here", None)
    here = sorted((stay for stay in stays if stay.zone in candidates), key=lambda stay: candidates.index(stay.zone))
    for stay in here:
        if stay.covers(at):
            return Finding("paid", "session", stay.zone, stay)
    ended = min((stay for stay in here if stay.is_known(at)), key=lambda stay: stay.over_for(at), default=None)
    if ended is not None and ended.over_for(at) < GRACE:
        return Finding("grace", "grace", ended.zone, ended, ended.over_for(at))
    for stay in stays:
        if stay.covers(at):
            return Finding("wrong_zone", "other_zone", candidates[0], stay)
    if ended is not None:
        return Finding("expired", "expired", ended.zone, ended, ended.over_for(at))
    return Finding("unpaid", "no_session", candidates[0])


def _stays(connection: psycopg.Connection, looks: Sequence[Look]) -> dict[int, list[Stay]]:
    """By position: the sessions of each look's vehicles that say something about its instant."""
    seen = [
        {"member": member, "plate": plate, "vehicle_class": vehicle_class, "at": one.sighting.captured_at}
        for member, one in enumerate(looks) if one.candidates
        for plate, vehicle_class in one.readings
    ]  # fmt: skip
    found: dict[int, list[Stay]] = {}
    if seen:
        for member, *columns in connection.execute(_STAYS, (orjson.dumps(seen).decode(), REACH)):
            found.setdefault(member, []).append(Stay(*columns))
    return found


_STAYS = """SELECT member, id, zone_code, plate, vehicle_class, started_at, LEAST(over_at, gone_at), gone_at
    FROM sessions_about(%s, %s)"""


def _judged(look: Look, stays: list[Stay]) -> Check:
    found = judge(look.candidates, stays, look.sighting.captured_at)
    plate, vehicle_class = (found.stay.plate, found.stay.vehicle_class) if found.stay else look.readings[0]
    is_class_known = look.sighting.vehicle_class is not None or found.stay is not None or len(look.readings) == 1
    return Check(
        id=sessions.new_id(look.received_at),
        plate=plate,
        vehicle_class=vehicle_class if is_class_known else None,
        verdict=found.verdict,
        reasons=[found.reason],
        zone=found.zone,
        session=found.stay.id if found.stay else None,
        expired_for_seconds=None if found.expired_for is None else found.expired_for // timedelta(seconds=1),
        near_plates=[],
        captured_at=look.sighting.captured_at,
    )


# In the order of the keys: two groups wait for each other's, but never in a circle.
_STORE = """
INSERT INTO parking_check (id, client, plate, vehicle_class, zone_code, verdict, reasons, session_id,
                           expired_for_seconds, near_plates, position, accuracy, captured_at, received_at,
                           idempotency_key, request_hash)
SELECT id, client, plate, vehicle_class, zone, verdict, reasons, session, expired_for_seconds, near_plates,
       ST_SetSRID(ST_MakePoint(lng, lat), 4326), accuracy, captured_at, received_at, key, decode(hash, 'hex')
  FROM json_to_recordset(%s) AS c(
       id uuid, client text, plate text, vehicle_class text, zone text, verdict text, reasons text[], session uuid,
       expired_for_seconds integer, near_plates text[], lng double precision, lat double precision,
       accuracy double precision, captured_at timestamptz, received_at timestamptz, key text, hash text)
 ORDER BY client, key
ON CONFLICT (client, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING id
"""
_FIRST = """
SELECT request_hash, id, plate, vehicle_class, verdict, reasons, zone_code, session_id, expired_for_seconds,
       near_plates, captured_at
  FROM parking_check WHERE client = %s AND idempotency_key = %s AND received_at > %s
"""
_FREE = (
    "UPDATE parking_check SET idempotency_key = NULL WHERE client = %s AND idempotency_key = %s AND received_at <= %s"
)


def _store(connection: psycopg.Connection, looks: Sequence[Look], made: Sequence[Check]) -> set[UUID]:
    """Store the checks; the ids of those whose key was free."""
    rows = [_row(look, one) for look, one in zip(looks, made, strict=True)]
    return {row[0] for row in connection.execute(_STORE, (orjson.dumps(rows).decode(),))}


def _row(look: Look, made: Check) -> dict[str, Any]:
    lat, lng, accuracy = look.sighting.position or (None, None, None)
    key, request_hash = look.key or (None, b"")
    where = {"lat": lat, "lng": lng, "accuracy": accuracy}
    asked = {"client": look.client, "received_at": look.received_at, "key": key, "hash": request_hash.hex()}
    return made._asdict() | where | asked


def _repeated(connection: psycopg.Connection, look: Look) -> Check | ZoneError:
    """The answer where the key was taken; a key of yesterday is freed, for the next try."""
    assert look.key is not None
    try:
        first = first_answer(connection, look.client, look.key, look.received_at)
    except errors.KeyConflict as conflict:
        return conflict
    if first is None:
        connection.execute(_FREE, (look.client, look.key[0], look.received_at - KEY_MEMORY))
        return errors.Overtaken("the idempotency key was free again only now")
    return first

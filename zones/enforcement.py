"""Plate checks: has this vehicle a right to stand here at the instant at which it was seen?

    verdict        when                                                                      zone
    paid           a session in a candidate zone runs at captured_at                         the session's
    permit         a right holds there then (zones/rights.py)                                the nearest such candidate
    grace          one there ended, or its time was over, less than 5 minutes before         the session's
    wrong_zone     none of these; a session in another zone runs                             the nearest candidate
    expired        one there ended less than 24 hours before, or is a strict zone's overstay the session's
    unpaid         none of these                                                             the nearest candidate
    outside_zones  the position touches no zone                                              none

Candidates are the stated zone or, without one, every zone that the circle of the position's accuracy touches. Grace
goes before wrong_zone: who started the next session before driving off loses nothing by it. A session runs from its
start (inclusive) until its driver stopped it or its time was over (exclusive), judged by all that is known when the
check arrives: a phone may hand in a stop up to 15 minutes late, and a right may be granted afterwards, for a time that
has begun. A right gives no grace when it ends. sql/functions/check_vehicles.sql judges.
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

VERDICTS = ("paid", "permit", "grace", "expired", "unpaid", "wrong_zone", "outside_zones")
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


class Look(NamedTuple):
    """A sighting ready to be judged: the vehicles that it can mean, and the zones it can be in, nearest first.

    `id` is its check's, if one is made; `key` is the request's idempotency key with the hash of its body.
    """

    id: UUID
    client: str
    sighting: Sighting
    received_at: datetime
    readings: list[tuple[str, str]]
    candidates: list[str]
    key: tuple[str, bytes] | None

    def columns(self) -> dict[str, Any]:
        """As the SQL function check_vehicles takes it."""
        columns = {
            "id": self.id,
            "client": self.client,
            "plates": [plate for plate, _ in self.readings],
            "vehicle_classes": [vehicle_class for _, vehicle_class in self.readings],
            "candidates": self.candidates,
            "captured_at": self.sighting.captured_at,
            "received_at": self.received_at,
        }
        if self.sighting.position is not None:
            columns |= self.sighting.position._asdict()
        if self.key is not None:
            columns |= {"key": self.key[0], "hash": self.key[1].hex()}
        return columns


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
    return Look(sessions.new_id(received_at), client, sighting, received_at, readings, candidates, key)


_CHECK = """
SELECT look, outcome, id, plate, vehicle_class, verdict, reasons, zone_code, session_id, expired_for_seconds,
       near_plates, captured_at
  FROM check_vehicles(%s, %s, %s, %s, %s, %s)
"""
_FIRST = """
SELECT outcome, id, plate, vehicle_class, verdict, reasons, zone_code, session_id, expired_for_seconds,
       near_plates, captured_at
  FROM check_with_key(%s, %s, %s, %s)
"""


def check(connection: psycopg.Connection, looks: Sequence[Look]) -> list[Check | ZoneError]:
    """Judge sightings and store the checks, in one statement.

    A repeated key has its first answer. The refusals: KeyConflict; Overtaken where the key was free again only now.
    """
    asked = orjson.dumps([one.columns() for one in looks]).decode()
    instants = [one.sighting.captured_at for one in looks]
    rows = connection.execute(_CHECK, (asked, min(instants), max(instants), GRACE, REACH, KEY_MEMORY))
    answers = {look_id: _answer(*row) for look_id, *row in rows}
    return [answers[one.id] for one in looks]


def first_answer(
    connection: psycopg.Connection, client: str, key: tuple[str, bytes], received_at: datetime
) -> Check | None:
    """The check that an idempotency key made within the last 24 hours. Raises KeyConflict."""
    row = connection.execute(_FIRST, (client, *key, received_at - KEY_MEMORY)).fetchone()
    if row is None:
        return None
    answer = _answer(*row)
    if isinstance(answer, ZoneError):
        raise answer
    return answer


def _answer(outcome: str, *columns: Any) -> Check | ZoneError:
    if outcome == "conflict":
        return errors.KeyConflict("the idempotency key was used with another request")
    if outcome == "again":
        return errors.Overtaken("the idempotency key was free again only now")
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

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
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import psycopg

from zones import errors, plates, sessions
from zones.models import VEHICLE_CLASSES
from zones.places import Place, Places

VERDICTS = ("paid", "grace", "expired", "unpaid", "wrong_zone", "outside_zones")
# How long a driver may take to drive off or to pay again. No decree states one: a default of the product.
GRACE = timedelta(minutes=5)
# How far back an ended session still tells something, and the latest that a photo may be handed in.
REACH = timedelta(hours=24)
# How far a warden's clock may be ahead of ours.
CLOCK_SKEW = timedelta(seconds=10)


class Position(NamedTuple):
    """Where the warden's phone believes to be: WGS 84 degrees, and the radius of its error in metres."""

    lat: float
    lng: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Sighting:
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


@dataclass(frozen=True, slots=True)
class Check:
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


def check(
    connection: psycopg.Connection, places: Places, client: str, sighting: Sighting, received_at: datetime
) -> Check:
    """Judge a sighting and store the check: one statement reads, one writes.

    Raises InvalidPlate, ClassNotServed, UnknownZone, CapturedInFuture, CapturedTooLate.
    """
    readings = read_plate(sighting.plate, sighting.vehicle_class)
    check_instant(sighting.captured_at, received_at)
    candidates = [place.code for place in _candidates(places, sighting)]
    stays = _stays(connection, readings, sighting.captured_at) if candidates else []
    made = _check(sighting, readings, judge(candidates, stays, sighting.captured_at), received_at)
    _store(connection, client, sighting, made, received_at)
    return made


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


def _stays(connection: psycopg.Connection, readings: list[tuple[str, str]], at: datetime) -> list[Stay]:
    """The sessions of these vehicles that say something about `at`."""
    texts, classes = [text for text, _ in readings], [vehicle_class for _, vehicle_class in readings]
    query = """SELECT id, zone_code, plate, vehicle_class, started_at, LEAST(over_at, gone_at), gone_at
        FROM sessions_about(%s::text[], %s::text[], %s::timestamptz, %s::interval)"""
    return [Stay(*row) for row in connection.execute(query, (texts, classes, at, REACH)).fetchall()]


def _check(sighting: Sighting, readings: list[tuple[str, str]], found: Finding, received_at: datetime) -> Check:
    plate, vehicle_class = (found.stay.plate, found.stay.vehicle_class) if found.stay else readings[0]
    is_class_known = sighting.vehicle_class is not None or found.stay is not None or len(readings) == 1
    return Check(
        id=sessions.new_id(received_at),
        plate=plate,
        vehicle_class=vehicle_class if is_class_known else None,
        verdict=found.verdict,
        reasons=[found.reason],
        zone=found.zone,
        session=found.stay.id if found.stay else None,
        expired_for_seconds=None if found.expired_for is None else found.expired_for // timedelta(seconds=1),
        near_plates=[],
        captured_at=sighting.captured_at,
    )


_STORE = """
INSERT INTO parking_check (id, client, plate, vehicle_class, zone_code, verdict, reasons, session_id,
                           expired_for_seconds, near_plates, position, accuracy, captured_at, received_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s,
        ST_SetSRID(ST_MakePoint(%s::double precision, %s::double precision), 4326), %s, %s, %s)
"""


def _store(connection: psycopg.Connection, client: str, sighting: Sighting, made: Check, received_at: datetime) -> None:
    lat, lng, accuracy = sighting.position or (None, None, None)
    connection.execute(
        _STORE,
        (
            made.id, client, made.plate, made.vehicle_class, made.zone, made.verdict, made.reasons, made.session,
            made.expired_for_seconds, made.near_plates, lng, lat, accuracy, made.captured_at, received_at,
        ),
    )  # fmt: skip

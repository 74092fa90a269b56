"""The use cases that need both libraries: `zones` says who stands where, `billing` what it costs; here they are joined.

A start and a stop are one SQL statement each, which is one transaction. No Flask here.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

import psycopg

from app.resources import Resources
from billing import rates
from billing.rates import Bill, Rate
from zones import errors, plates, sessions
from zones.models import VEHICLE_CLASSES
from zones.places import Place
from zones.sessions import AgreedPrice, Count, Ended, Session, StopCall

T = TypeVar("T")
# A session that must be closed first, and then once more where a third request came between.
ATTEMPTS = 3
# How far ahead a strict overstay is priced at a time.
OVERSTAY_HORIZON = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What a driver asks for: a place for a vehicle, for some minutes or (None) until it is stopped."""

    zone: str
    plate: str
    vehicle_class: str
    minutes: int | None
    payment_method: str


@dataclass(frozen=True, slots=True)
class Quote:
    """What a stay would cost, and the longest one allowed there."""

    bill: Bill
    rate_version: str
    max_stay_minutes: int


def _place(resources: Resources, zone: str, vehicle_class: str) -> Place:
    """The zone, if it serves the class. Raises UnknownZone, ClassNotServed."""
    if vehicle_class not in VEHICLE_CLASSES:
        raise errors.ClassNotServed(f"{vehicle_class} is not served; served are {', '.join(VEHICLE_CLASSES)}")
    place = resources.catalogue.places.by_code.get(zone)
    if place is None:
        raise errors.UnknownZone(f"no zone {zone}")
    if not place.capacity.get(vehicle_class):
        raise errors.ClassNotServed(f"zone {zone} has no places for a {vehicle_class}")
    return place


def _max_stay(place: Place, rate: Rate) -> timedelta:
    minutes = min(place.max_stay_minutes, rate.max_stay_minutes or place.max_stay_minutes)
    return timedelta(minutes=minutes)


def _check_minutes(minutes: int, longest: timedelta) -> None:
    if timedelta(minutes=minutes) > longest:
        raise errors.MaxStayExceeded(f"at most {longest // timedelta(minutes=1)} minutes at a stretch here")


def quote(resources: Resources, zone: str, vehicle_class: str, start: datetime, minutes: int) -> Quote:
    """Price a stay at any instant that has a rate. Raises UnknownZone, ClassNotServed, NoRate, MaxStayExceeded."""
    place = _place(resources, zone, vehicle_class)
    rate = resources.catalogue.rates.at(place.rate_area, vehicle_class, start)
    longest = _max_stay(place, rate)
    _check_minutes(minutes, longest)
    bill = rates.price(rate, start, start + timedelta(minutes=minutes))
    return Quote(bill, rate.version, longest // timedelta(minutes=1))


def _agree(rate: Rate, started_at: datetime, longest: timedelta) -> AgreedPrice:
    """The price of every stay up to the longest, to be frozen with the session."""
    after, amounts = rates.fee_steps(rate, started_at, started_at + longest)
    return AgreedPrice(rate.version, rate.refund, (*after, longest // timedelta(microseconds=1) + 1), amounts)


def start(resources: Resources, client: str, key: str | None, request: StartRequest) -> Session:
    """Start a session now. The answer to a repeated key is the first one.

    Raises InvalidPlate, ClassNotServed, UnknownZone, NoRate, MaxStayExceeded, ZoneFull, AlreadyParked, KeyConflict.
    """
    place = _place(resources, request.zone, request.vehicle_class)
    plate = plates.parse(request.plate, request.vehicle_class).text
    started_at = sessions.floor_to_millisecond(resources.clock.now())
    rate = resources.catalogue.rates.at(place.rate_area, request.vehicle_class, started_at)
    longest = _max_stay(place, rate)
    _check_minutes(request.minutes or 0, longest)
    ends_at = None if request.minutes is None else started_at + timedelta(minutes=request.minutes)
    new = sessions.Start(
        client=client,
        key=key,
        zone=place.code,
        plate=plate,
        vehicle_class=request.vehicle_class,
        started_at=started_at,
        minutes=request.minutes,
        ends_at=ends_at,
        over_at=ends_at or started_at + longest,
        max_over_at=started_at + longest,
        payment_method=request.payment_method,
        price=_agree(rate, started_at, longest),
    )
    started = _admit(resources, new)
    push(resources, started.zone_count)
    return _first_answer(resources, new, started)


def _admit(resources: Resources, new: sessions.Start) -> sessions.Started:
    """Start; where a session of this plate is past its time, close that one first."""
    for _ in range(ATTEMPTS):
        try:
            return sessions.start(resources.connections.get(), new)
        except errors.SessionInTheWay as in_the_way:
            close(resources, [in_the_way.session_id], new.started_at, "restart")
    raise errors.AlreadyParked(f"{new.plate} is being started by others at this moment")


def _first_answer(resources: Resources, new: sessions.Start, started: sessions.Started) -> Session:
    """The session as it was answered first, also where this answer is a repetition after it was extended or stopped."""
    ends_at = None if new.minutes is None else started.started_at + timedelta(minutes=new.minutes)
    if started.zone_count is not None:
        fee = new.price.owed((ends_at or started.started_at) - started.started_at)
    else:
        rate = resources.catalogue.rates.version(started.rate_version)
        fee = rates.price(rate, started.started_at, ends_at or started.started_at).total
    return Session(
        started.id, new.zone, new.plate, new.vehicle_class, "running", started.started_at, ends_at, None,
        new.payment_method, started.rate_version, fee,
    )  # fmt: skip


# zones ends the session, billing records what is due: one statement, one transaction.
_RECORD_DUE = "record_due(e.id, e.client, e.payment_method, e.fee, e.ended_at)"
_STOP = f"""SELECT e.*, CASE WHEN e.outcome = 'stopped' THEN {_RECORD_DUE} END
    FROM stop_session(%s, %s, %s, %s::timestamptz, %s, %s) e"""
_CLOSE = f"""SELECT e.*, CASE WHEN e.outcome = 'closed' THEN {_RECORD_DUE} END
    FROM unnest(%s::uuid[]) s(id) CROSS JOIN LATERAL end_session(s.id, %s, %s) e"""


def stop(resources: Resources, call: StopCall) -> Session:
    """Stop a session now, or as of `stopped_at` where the phone was offline.

    Raises UnknownSession, SessionEnded, SessionExpired, KeyConflict, StoppedInFuture, StoppedTooLate,
    StoppedBeforeStart.
    """
    arguments = sessions.stop_arguments(call)

    def run() -> Ended:
        row = resources.connections.get().execute(_STOP, arguments).fetchone()
        assert row is not None
        return sessions.read_ended(row)

    ended = _priced(resources, call.now, run)
    push(resources, ended.zone_count)
    return Session(
        ended.id, ended.zone, ended.plate, ended.vehicle_class, "ended", ended.started_at, ended.ends_at,
        ended.ended_at, ended.payment_method, ended.rate_version, ended.fee,
    )  # fmt: skip


def close(resources: Resources, ids: list[UUID], now: datetime, ended_by: str) -> int:
    """End sessions whose time is over, without their drivers; those that are gone are left out. The number closed."""

    def run() -> list[Ended]:
        rows = resources.connections.get().execute(_CLOSE, (ids, now, ended_by)).fetchall()
        return [sessions.read_ended(row) for row in rows]

    ended = _priced(resources, now, run)
    push(resources, *(one.zone_count for one in ended))
    return len(ended)


def _priced(resources: Resources, now: datetime, run: Callable[[], T]) -> T:
    """Run; where a strict overstay has passed the end of its agreed price, continue the price and run again."""
    try:
        return run()
    except errors.StayUnpriced as unpriced:
        session = sessions.find(resources.connections.get(), unpriced.session_id, None, now)
        rate = resources.catalogue.rates.version(session.rate_version)
        longest = now - session.started_at + OVERSTAY_HORIZON
        sessions.continue_price(resources.connections.get(), session.id, _agree(rate, session.started_at, longest))
        return run()


def extend(
    resources: Resources, connection: psycopg.Connection, session_id: UUID, client: str, minutes: int
) -> Session:
    """Add prepaid minutes to a running session, in the caller's transaction."""
    now = resources.clock.now()
    sessions.extend(connection, session_id, client, minutes, now)
    return with_fee(resources, sessions.find(connection, session_id, client, now), now)


def find(resources: Resources, session_id: UUID, client: str) -> Session:
    """One of the client's sessions as it is now. Raises UnknownSession."""
    now = resources.clock.now()
    return with_fee(resources, sessions.find(resources.connections.get(), session_id, client, now), now)


def history(resources: Resources, client: str, state: str | None, before: UUID | None, limit: int) -> list[Session]:
    """A client's sessions, newest first."""
    now = resources.clock.now()
    connection = resources.connections.get()
    found = sessions.of_client(connection, client, now, state=state, before=before, limit=limit)
    return [with_fee(resources, session, now) for session in found]


def with_fee(resources: Resources, session: Session, now: datetime) -> Session:
    """The session with its fee, worked out here where the stay is longer than its agreed price."""
    if session.fee is not None:
        return session
    rate = resources.catalogue.rates.version(session.rate_version)
    return replace(session, fee=rates.price(rate, session.started_at, max(now, session.ends_at or now)).total)


def push(resources: Resources, *counts: Count | None) -> None:
    """Hand changed counts to Redis, after their commit. A lost one is repaired by the reconciler."""
    changed = [count for count in counts if count is not None]
    if changed:
        resources.copies.push(changed)

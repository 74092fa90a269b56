"""The use cases: `zones` says who stands where, `billing` what it costs; here they are joined.

A start and a stop are one SQL statement each, which is one transaction; those that arrive together share it
(app/grouping.py). No Flask here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple, TypeVar
from uuid import UUID

import psycopg

from app import cards, paying, permits, starts
from app.resources import Resources, Run
from billing import ledger, rates, vat
from billing.errors import BillingError, NotFree
from billing.rates import Bill, Rate
from zones import enforcement, errors, plates, sessions
from zones.enforcement import Check, Look, Sighting
from zones.errors import ZoneError
from zones.places import Place
from zones.sessions import AgreedPrice, Ended, Session, StopCall
from zones.terms import VEHICLE_CLASSES

Call = TypeVar("Call")
Answer = TypeVar("Answer")
# With others, by itself with a session that must be closed, and once more where a third request came between.
ATTEMPTS = 3
# What pays a stay without a rail to somebody else's.
PAID_HERE = ("wallet", "cash", "free")
# How far ahead a strict overstay is priced at a time.
OVERSTAY_HORIZON = timedelta(days=7)


class StartRequest(NamedTuple):
    """What a driver asks for: a place for a vehicle, for some minutes or (None) until it is stopped."""

    zone: str
    plate: str
    vehicle_class: str
    minutes: int | None
    payment_method: str


@dataclass(frozen=True, slots=True)
class Quote:
    """What a stay would cost, tax included, and the longest one allowed there.

    `open_hold` is what a wallet puts aside for a stay without an end; for this one it is the total. `tax` VND at
    `tax_basis_points` are in the total. `by_right`: the vehicle's rights cover it.
    """

    bill: Bill
    rate_version: str
    max_stay_minutes: int
    open_hold: int
    tax: int
    tax_basis_points: int
    by_right: bool


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


def quote(
    resources: Resources, zone: str, vehicle_class: str, start: datetime, minutes: int, plate: str | None = None
) -> Quote:
    """Price a stay at any instant that has a rate; with a plate, its rights are looked at.

    Raises UnknownZone, ClassNotServed, NoRate, MaxStayExceeded, InvalidPlate.
    """
    place = _place(resources, zone, vehicle_class)
    rate = resources.catalogue.rates.at(place.rate_area, vehicle_class, start)
    longest = _max_stay(place, rate)
    _check_minutes(minutes, longest)
    end = start + timedelta(minutes=minutes)
    bill = rates.price(rate, start, end)
    first = rates.price(rate, start, start + starts.first_while(resources, longest)).total
    tax = resources.catalogue.vat.at(end).basis_points
    by_right = plate is not None and permits.cover(resources, place, plate, vehicle_class, start, end)
    return Quote(
        bill, rate.version, longest // timedelta(minutes=1), first, bill.total - vat.net(bill.total, tax), tax, by_right
    )


def _agree(rate: Rate, started_at: datetime, longest: timedelta, free_until: datetime | None = None) -> AgreedPrice:
    """The price of every stay up to the longest, to be frozen with the session; nothing before `free_until`."""
    after, amounts = rates.fee_steps(rate, started_at, started_at + longest, free_until)
    return AgreedPrice(rate.version, rate.refund, (*after, longest // timedelta(microseconds=1) + 1), amounts)


def start(
    resources: Resources, client: str, key: str | None, request: StartRequest, *, on_behalf: bool = False
) -> Session:
    """Start a session now. The answer to a repeated key is the first one.

    `on_behalf`: the client is an attendant, who has taken the price in cash; it is put aside in his float.

    Raises InvalidPlate, ClassNotServed, UnknownZone, NoRate, MaxStayExceeded, ZoneFull, AlreadyParked, KeyConflict,
    InsufficientFunds, OwesTooMuch, NotFree, MethodUnavailable, NoCard, PaymentDeclined; on behalf InsufficientFloat,
    NoOpenShift.
    """
    started_at = sessions.floor_to_millisecond(resources.clock.now())
    try:
        new = _plan(resources, client, key, request, started_at)
        cards.check_card(resources, client, request.payment_method)
    except (ZoneError, BillingError):  # it may not have been so the first time
        first = key and _answered_before(resources, client, key, request, started_at)
        if first:
            cards.authorize(resources, first.id, request.payment_method, is_new=False)
            return first
        raise
    started = _insist(resources, starts.on_behalf if on_behalf else starts.together, new, started_at)
    resources.push(started.zone_count)
    cards.authorize(resources, started.id, request.payment_method, is_new=started.zone_count is not None)
    return _first_answer(resources, new, started)


def _plan(
    resources: Resources, client: str, key: str | None, request: StartRequest, started_at: datetime
) -> sessions.Start:
    """The session as it would be, by what is in force now."""
    place = _place(resources, request.zone, request.vehicle_class)
    plate = plates.parse(request.plate, request.vehicle_class).text
    rate = resources.catalogue.rates.at(place.rate_area, request.vehicle_class, started_at)
    longest = _max_stay(place, rate)
    _check_minutes(request.minutes or 0, longest)
    ends_at = None if request.minutes is None else started_at + timedelta(minutes=request.minutes)
    price, free_until = _agree(rate, started_at, longest), None
    asked = price.owed(ends_at - started_at if ends_at else longest)
    if request.payment_method == "free" and price.owed(longest):
        # Also where the time that is asked for is free by the rate: it may be extended, or overstayed.
        whose = place, plate, request.vehicle_class
        free_until = permits.free_until(resources, *whose, started_at, ends_at, is_needed=asked > 0)
        price = _agree(rate, started_at, longest, free_until)
    elif asked and request.payment_method not in PAID_HERE:
        paying.check_set_up(resources.settings, request.payment_method)
    return sessions.Start(
        id=sessions.new_id(started_at),
        client=client,
        key=key,
        zone=place.code,
        plate=plate,
        vehicle_class=request.vehicle_class,
        started_at=started_at,
        minutes=request.minutes,
        ends_at=ends_at,
        over_at=ends_at or min(started_at + longest, free_until or started_at + longest),
        max_over_at=started_at + longest,
        payment_method=request.payment_method,
        price=price,
        free_until=free_until,
    )


def _answered_before(
    resources: Resources, client: str, key: str, request: StartRequest, now: datetime
) -> Session | None:
    """The first answer to a key whose request would be refused by now; None where it has none. Raises KeyConflict."""
    try:
        plate = plates.parse(request.plate, request.vehicle_class).text
    except ZoneError:
        return None
    again = request._replace(plate=plate)
    started = sessions.find_started(resources.connections.get(), client, key, *again, now=now)
    return started and _first_answer(resources, again, started)


def _insist(resources: Resources, run: Run[Call, Answer], call: Call, now: datetime) -> Answer:
    """Run a call with those of other threads; where something stands in its way, then again by itself.

    Raises what it is refused with; Overtaken where others keep coming between.
    """
    group = resources.group(run)
    ask: Callable[[Call], Answer] = group
    again: Callable[[Call], Answer] = group.alone
    for _ in range(ATTEMPTS):
        try:
            return ask(call)
        except errors.SessionInTheWay as in_the_way:
            again = partial(_in_place_of, resources, in_the_way, now, group.alone)
        except errors.StayUnpriced as unpriced:
            _price_on(resources, unpriced.session_id, now)
        except (errors.Overtaken, psycopg.errors.DeadlockDetected):  # nothing was done
            pass
        ask = again
    raise errors.Overtaken("others are starting and stopping the same at this moment")


def _in_place_of(
    resources: Resources, in_the_way: errors.SessionInTheWay, now: datetime, start: Callable[[Call], Answer], call: Call
) -> Answer:
    """Close a session and run the start it stands in the way of, on this thread's connection: both, or neither.

    Raises what the start is refused with.
    """
    connection = resources.connections.get()
    with connection.transaction():
        sessions.lock_restart(connection, in_the_way)
        closed = _close(resources, [in_the_way.session_id], now, "restart")
        started = start(call)
    resources.push(*(one.zone_count for one in closed))
    return started


def _first_answer(resources: Resources, new: sessions.Start | StartRequest, started: sessions.Started) -> Session:
    """The session as it was answered first, also where this answer is a repetition after it was extended or stopped."""
    ends_at = None if new.minutes is None else started.started_at + timedelta(minutes=new.minutes)
    if isinstance(new, sessions.Start) and started.zone_count is not None:
        fee = new.price.owed((ends_at or started.started_at) - started.started_at)
    elif new.payment_method == "free":
        fee = 0
    else:
        rate = resources.catalogue.rates.version(started.rate_version)
        fee = rates.price(rate, started.started_at, ends_at or started.started_at).total
    return Session(
        started.id, new.zone, new.plate, new.vehicle_class, "running", started.started_at, ends_at, None,
        new.payment_method, started.rate_version, fee,
    )  # fmt: skip


# zones ends the sessions, billing charges them: one statement, one transaction. A zone that is closed by now is in the
# district of its last version.
_AND_CHARGE = """,
    charged AS MATERIALIZED (
        SELECT charge_sessions(array_agg(e.id), array_agg(e.client), array_agg(e.payment_method), array_agg(e.fee),
                   array_agg(COALESCE(
                       (SELECT z.district_code FROM zone z WHERE z.code = e.zone_code AND z.valid_to IS NULL),
                       (SELECT z.district_code FROM zone z WHERE z.code = e.zone_code
                         ORDER BY z.valid_from DESC LIMIT 1))), %s)
          FROM ended e
         WHERE e.outcome IN ('stopped', 'closed') AND (e.fee > 0 OR e.payment_method IN ('wallet', 'cash'))
        HAVING count(*) > 0)
SELECT ended.* FROM ended CROSS JOIN (SELECT count(*) FROM charged) AS booked"""
_STOP = "WITH ended AS MATERIALIZED (SELECT * FROM stop_sessions(%s))" + _AND_CHARGE
_CANCEL = "WITH ended AS MATERIALIZED (SELECT * FROM cancel_sessions(%s::uuid[], %s))" + _AND_CHARGE
_CLOSE = "WITH ended AS MATERIALIZED (SELECT * FROM end_sessions(%s::uuid[], %s, %s))" + _AND_CHARGE


def stop(resources: Resources, call: StopCall) -> Session:
    """Stop a session now, or as of `stopped_at` where the phone was offline. The answer to a repeated key is the first
    one, however late it comes.

    Raises UnknownSession, SessionEnded, SessionExpired, KeyConflict, StoppedInFuture, StoppedTooLate,
    StoppedBeforeStart; NoOpenShift where an attendant must give cash back and has none.
    """
    try:
        checked = sessions.check_stop(call)
    except errors.StoppedTooLate:  # it was not the first time
        first = call.key and sessions.find_stopped(resources.connections.get(), call)
        if not first:
            raise
        return _stopped(first)
    return _stopped(_insist(resources, _stop_together, checked, call.now))


def _stopped(ended: Ended) -> Session:
    return Session(
        ended.id, ended.zone, ended.plate, ended.vehicle_class, "ended", ended.started_at, ended.ends_at,
        ended.ended_at, ended.payment_method, ended.rate_version, ended.fee,
    )  # fmt: skip


def _stop_together(
    resources: Resources, connection: psycopg.Connection, calls: Sequence[StopCall]
) -> Sequence[Ended | ZoneError | BillingError]:
    now = max(call.now for call in calls)
    try:
        rows = connection.execute(_STOP, (sessions.stop_arguments(calls), now)).fetchall()
    except psycopg.errors.CheckViolation as error:
        refusal = starts.unpaid(error.diag.constraint_name)
        if refusal is None or len(calls) > 1:  # each is tried by itself then
            raise
        return [refusal]
    answers = [sessions.read_ended(row) for row in sorted(rows)]
    resources.push(*(answer.zone_count for answer in answers if isinstance(answer, Ended)))
    return answers


def close(resources: Resources, ids: list[UUID], now: datetime, ended_by: str) -> int:
    """End sessions whose time is over, without their drivers; those that are gone are left out. The number closed."""
    ended = _close(resources, ids, now, ended_by)
    resources.push(*(one.zone_count for one in ended))
    return len(ended)


def _close(resources: Resources, ids: list[UUID], now: datetime, ended_by: str) -> list[Ended]:
    """As close, on this thread's connection; those closed, whose counts are to be pushed once that is committed."""
    rows = resources.connections.get().execute(_CLOSE, (ids, now, ended_by, now)).fetchall()
    answers = [sessions.read_ended(row) for row in rows]
    ended = [answer for answer in answers if isinstance(answer, Ended)]
    unpriced = [answer.session_id for answer in answers if isinstance(answer, errors.StayUnpriced)]
    for session_id in unpriced:
        _price_on(resources, session_id, now)
    return ended + (_close(resources, unpriced, now, ended_by) if unpriced else [])


def cancel(connection: psycopg.Connection, session_id: UUID, now: datetime) -> Ended | None:
    """End a session that was started by mistake, for nothing; None where it is not running any more.

    Its count is to be pushed once the caller's transaction is committed. Raises NoOpenShift.
    """
    try:
        with connection.transaction():
            row = connection.execute(_CANCEL, ([session_id], now, now)).fetchone()
    except psycopg.errors.CheckViolation as error:
        raise starts.unpaid(error.diag.constraint_name) or error from None
    ended = None if row is None else sessions.read_ended(row)
    assert not isinstance(ended, ZoneError)
    return ended


def _price_on(resources: Resources, session_id: UUID, now: datetime) -> None:
    """Continue the price of a strict overstay that has passed the end of the agreed one."""
    session = sessions.find(resources.connections.get(), session_id, None, now)
    rate = resources.catalogue.rates.version(session.rate_version)
    longest = now - session.started_at + OVERSTAY_HORIZON
    price = _agree(rate, session.started_at, longest, session.free_until)
    sessions.continue_price(resources.connections.get(), session.id, price)


def extend(
    resources: Resources, connection: psycopg.Connection, session_id: UUID, client: str, minutes: int
) -> Session:
    """Add prepaid minutes to a running session, and put their price aside, in one transaction.

    Raises UnknownSession, SessionEnded, SessionExpired, NotPrepaid, MaxStayExceeded, InsufficientFunds, OwesTooMuch,
    NotFree, MethodUnavailable.
    """
    now = resources.clock.now()
    with connection.transaction():
        longest = sessions.extend(connection, session_id, client, minutes, now)
        session = with_fee(resources, sessions.find(connection, session_id, client, now), now)
        if session.payment_method == "free" and session.fee:
            raise NotFree("so long a stay is not free of charge: add less, or start anew and pay")
        if session.payment_method not in PAID_HERE and session.fee:
            paying.check_set_up(resources.settings, session.payment_method)
        if session.payment_method == "wallet" and session.fee:
            hold = ledger.Hold(session_id, client, session.fee, longest + starts.HOLD_MARGIN)
            ledger.raise_hold(connection, hold, now, resources.settings.owed_limit)
    return session


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
    bill = rates.price(rate, session.started_at, max(now, session.ends_at or now), session.free_until)
    return session._replace(fee=bill.total)


def check(resources: Resources, client: str, key: str | None, request_hash: bytes, sighting: Sighting) -> Check:
    """Judge a sighting and store the check. The answer to a repeated key is the first one.

    Raises InvalidPlate, ClassNotServed, UnknownZone, CapturedInFuture, CapturedTooLate, KeyConflict.
    """
    now = resources.clock.now()
    keyed = None if key is None else (key, request_hash)
    try:
        look = enforcement.look(resources.catalogue.places, client, sighting, now, keyed)
    except ZoneError:  # it may not have been so the first time
        first = keyed and enforcement.first_answer(resources.connections.get(), client, keyed, now)
        if first:
            return first
        raise
    return _insist(resources, _check_together, look, now)


def _check_together(
    resources: Resources, connection: psycopg.Connection, looks: Sequence[Look]
) -> list[Check | ZoneError]:
    return enforcement.check(connection, looks)

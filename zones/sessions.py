"""Parking sessions: started, extended, stopped, over. Each verb is one SQL statement, which is one transaction.

The statements call the functions of sql/functions/. Starts and stops take many calls at once, each with its own
answer. A session's id is a UUIDv7 of its start, so the id tells in which month's partition a finished session lies.
Instants come in as arguments; a start has millisecond precision.
"""

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn
from uuid import UUID

import orjson
import psycopg
from psycopg.rows import class_row

from zones import errors
from zones.errors import ZoneError

# How long a phone may have been offline when it hands in `stopped_at` (business time).
STOP_LATENESS = timedelta(minutes=15)
STATES = ("running", "expired", "ended")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MICROSECOND = timedelta(microseconds=1)


class Count(NamedTuple):
    """The count of one zone and class, as one version of its row had it."""

    zone: str
    vehicle_class: str
    version: int
    occupied: int
    capacity: int
    next_over: datetime | None


class AgreedPrice(NamedTuple):
    """What a stay will cost, frozen at its start: amounts[i] VND from after[i] microseconds on.

    `after` has one element more than `amounts`: the stay for which nothing was priced yet.
    """

    rate_version: str
    refund: str
    after: tuple[int, ...]
    amounts: tuple[int, ...]

    def owed(self, stay: timedelta) -> int:
        """What is owed once the stay has lasted this long."""
        return self.amounts[bisect_right(self.after, stay // _MICROSECOND) - 1]


@lru_cache(maxsize=4096)
def _array(numbers: tuple[int, ...]) -> str:
    """An array literal: a tenth of what the driver's own list adaption costs, and prices repeat."""
    return "{" + ",".join(map(str, numbers)) + "}"


class Start(NamedTuple):
    """A session as it would be. `client` and `key` make the request repeatable; `key` may be None.

    `free_until`: by a right, its price is nothing before that instant.
    """

    id: UUID
    client: str
    key: str | None
    zone: str
    plate: str
    vehicle_class: str
    started_at: datetime
    minutes: int | None
    ends_at: datetime | None
    over_at: datetime
    max_over_at: datetime
    payment_method: str
    price: AgreedPrice
    free_until: datetime | None = None

    def columns(self) -> dict[str, Any]:
        """As the SQL function start_sessions takes it."""
        columns: dict[str, Any] = {
            "id": self.id,
            "client": self.client,
            "idempotency_key": self.key,
            "zone_code": self.zone,
            "plate": self.plate,
            "vehicle_class": self.vehicle_class,
            "started_at": self.started_at,
            "minutes": self.minutes,
            "ends_at": self.ends_at,
            "over_at": self.over_at,
            "max_over_at": self.max_over_at,
            "payment_method": self.payment_method,
            "rate_version": self.price.rate_version,
            "refund": self.price.refund,
            "fee_after": _array(self.price.after),
            "fee_amount": _array(self.price.amounts),
        }
        if self.free_until is not None:
            columns["free_until"] = self.free_until
        return columns


class Started(NamedTuple):
    """An admitted session. `zone_count` is None where the answer repeats an earlier one."""

    id: UUID
    started_at: datetime
    rate_version: str
    zone_count: Count | None


class StopCall(NamedTuple):
    """Who stops what and when. `stopped_at` is None where the phone did not state it."""

    id: UUID
    client: str
    stopped_at: datetime | None
    now: datetime
    key: str | None


class Ended(NamedTuple):
    """A session that was stopped or closed. `zone_count` is None where the answer repeats an earlier one."""

    id: UUID
    zone: str
    plate: str
    vehicle_class: str
    started_at: datetime
    ends_at: datetime | None
    ended_at: datetime
    payment_method: str
    rate_version: str
    fee: int
    zone_count: Count | None


class Session(NamedTuple):
    """One session as it stood at an instant. `fee` is None where a strict overstay is longer than what was priced.

    `free_until`: by a right, it costs nothing before that instant; told while the session runs.
    """

    id: UUID
    zone_code: str
    plate: str
    vehicle_class: str
    state: str
    started_at: datetime
    ends_at: datetime | None
    ended_at: datetime | None
    payment_method: str
    rate_version: str
    fee: int | None
    free_until: datetime | None = None


def floor_to_millisecond(instant: datetime) -> datetime:
    """The instant at the precision that a session id carries."""
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000)


def new_id(started_at: datetime) -> UUID:
    """A UUIDv7 (RFC 9562, 5.7): 48 bits of Unix milliseconds, then 74 random bits around version and variant."""
    random = int.from_bytes(os.urandom(10), "big")
    milliseconds = (started_at - EPOCH) // _MILLISECOND
    return UUID(int=milliseconds << 80 | 7 << 76 | random >> 68 << 64 | 0b10 << 62 | random & (1 << 62) - 1)


def started_at_of(session_id: UUID) -> datetime:
    """The start that a session id carries. Raises UnknownSession for an id that is none of ours."""
    try:
        return EPOCH + (session_id.int >> 80) * _MILLISECOND
    except OverflowError:
        raise errors.UnknownSession(f"no session {session_id}") from None


STARTED = "members, outcome, id, started_at, rate_version, version, occupied, capacity, next_over"
_START = f"SELECT {STARTED} FROM start_sessions(%s)"


def start(connection: psycopg.Connection, calls: Sequence[Start]) -> list[Started | ZoneError]:
    """Admit vehicles: of each its active session and its zone's count, or neither; all in one transaction.

    The refusals: ZoneFull, AlreadyParked, UnknownZone, ClassNotServed, KeyConflict; SessionInTheWay where the plate's
    last session must be closed in the same transaction (after lock_restart); Overtaken.
    """
    return read_started(calls, connection.execute(_START, (start_arguments(calls),)))


def start_arguments(calls: Sequence[Start]) -> str:
    """The argument of the SQL function start_sessions."""
    return orjson.dumps([call.columns() for call in calls]).decode()


def read_started(calls: Sequence[Start], rows: Iterable[tuple[Any, ...]]) -> list[Started | ZoneError]:
    """What the rows of start_sessions say: for each call its session, or why it was refused."""
    answers: dict[int, Started | ZoneError] = {}
    for members, outcome, session_id, started_at, rate_version, *count in rows:
        for member in members:
            call = calls[member - 1]
            if outcome == "started":
                zone_count = Count(call.zone, call.vehicle_class, *count)
                answers[member] = Started(call.id, call.started_at, call.price.rate_version, zone_count)
            elif outcome == "repeated":
                answers[member] = Started(session_id, started_at, rate_version, None)
            else:
                answers[member] = _REFUSED_STARTS[outcome](call, session_id)
    return [answers[member] for member in range(1, len(calls) + 1)]


_REFUSED_STARTS: dict[str, Callable[[Start, UUID], ZoneError]] = {
    "already_parked": lambda call, _: errors.AlreadyParked(f"{call.plate} has a running session"),
    "full": lambda call, _: errors.ZoneFull(f"zone {call.zone} has no place left for a {call.vehicle_class}"),
    "unknown_zone": lambda call, _: errors.UnknownZone(f"zone {call.zone} has no places for a {call.vehicle_class}"),
    "conflict": lambda call, _: errors.KeyConflict("the idempotency key was used with another request"),
    "not_served": lambda call, _: errors.ClassNotServed(f"zone {call.zone} has no places for a {call.vehicle_class}"),
    "over": lambda call, session_id: errors.SessionInTheWay(session_id, call.zone),
    "again": lambda call, _: errors.Overtaken(f"{call.plate} is being started and stopped by others at this moment"),
}


def lock_restart(connection: psycopg.Connection, in_the_way: errors.SessionInTheWay) -> None:
    """Lock, in the caller's transaction, what closing a session and starting its plate's next one take together."""
    connection.execute("SELECT lock_restart(%s, %s)", (in_the_way.session_id, in_the_way.zone))


_FIND_STARTED = "SELECT outcome, id, started_at, rate_version FROM explain_start(%s, %s, %s, %s, %s, %s, %s, %s)"


def find_started(
    connection: psycopg.Connection,
    client: str,
    key: str,
    zone: str,
    plate: str,
    vehicle_class: str,
    minutes: int | None,
    payment_method: str,
    *,
    now: datetime,
) -> Started | None:
    """What a key's first start was answered, None where the key is not remembered. Raises KeyConflict."""
    asked = (plate, vehicle_class, client, key, zone, now, minutes, payment_method)
    row = connection.execute(_FIND_STARTED, asked).fetchone()
    if row is not None and row[0] == "conflict":
        raise errors.KeyConflict("the idempotency key was used with another request")
    if row is None or row[0] != "repeated":
        return None
    _, session_id, started_at, rate_version = row
    return Started(session_id, started_at, rate_version, None)


def check_stop(call: StopCall) -> StopCall:
    """The call as it is carried out: to the millisecond, as starts are, so that the end that is charged is the end that
    is shown. Raises StoppedInFuture, StoppedTooLate, UnknownSession.
    """
    if call.stopped_at is not None and call.stopped_at > call.now:
        raise errors.StoppedInFuture("stopped_at lies in the future")
    if call.stopped_at is not None and call.stopped_at < call.now - STOP_LATENESS:
        raise errors.StoppedTooLate(f"stopped_at lies more than {STOP_LATENESS // timedelta(minutes=1)} minutes back")
    started_at_of(call.id)
    stopped_at = None if call.stopped_at is None else floor_to_millisecond(call.stopped_at)
    return call._replace(stopped_at=stopped_at, now=floor_to_millisecond(call.now))


_FIRST_STOP = """
SELECT zone_code, plate, vehicle_class, started_at, ends_at, ended_at, payment_method, rate_version, fee,
       stop_requested_at
  FROM parking_session WHERE id = %s AND started_at = %s AND client = %s AND stop_key = %s
"""


def find_stopped(connection: psycopg.Connection, call: StopCall) -> Ended | None:
    """What a key's first stop was answered, None where the key has stopped nothing.

    Raises KeyConflict, UnknownSession.
    """
    asked = (call.id, started_at_of(call.id), call.client, call.key)
    row = connection.execute(_FIRST_STOP, asked).fetchone()
    if row is None:
        return None
    *columns, requested_at = row
    if requested_at != (call.stopped_at and floor_to_millisecond(call.stopped_at)):
        raise errors.KeyConflict("the idempotency key was used with another request")
    return Ended._make((call.id, *columns, None))


def stop_arguments(calls: Sequence[StopCall]) -> str:
    """The argument of the SQL function stop_sessions."""
    columns = [{**call._asdict(), "started_at": started_at_of(call.id)} for call in calls]
    return orjson.dumps(columns).decode()


def read_ended(row: tuple[Any, ...]) -> Ended | ZoneError:
    """What a row of stop_sessions or end_sessions says: the ended session, or why it was refused."""
    (_, outcome, session_id, _, zone, plate, vehicle_class, started_at, ends_at, ended_at, _by, method, rate_version,
     fee, version, occupied, capacity, next_over) = row[:18]  # fmt: skip
    if outcome not in ("stopped", "repeated", "closed"):
        return _REFUSALS[outcome](session_id)
    count = None if version is None else Count(zone, vehicle_class, version, occupied, capacity, next_over)
    return Ended(
        session_id, zone, plate, vehicle_class, started_at, ends_at, ended_at, method, rate_version, fee, count
    )


_EXTEND = """
SELECT extend_session(%(id)s, %(started_at)s, %(client)s, %(minutes)s, %(now)s),
       (SELECT max_over_at FROM active_session WHERE id = %(id)s)"""


def extend(connection: psycopg.Connection, session_id: UUID, client: str, minutes: int, now: datetime) -> datetime:
    """Add prepaid minutes; until when the session may be extended at most.

    Raises UnknownSession, SessionEnded, SessionExpired, NotPrepaid, MaxStayExceeded.
    """
    values = {"id": session_id, "started_at": started_at_of(session_id), "client": client}
    row = connection.execute(_EXTEND, values | {"minutes": minutes, "now": now}).fetchone()
    assert row is not None
    outcome, longest = row
    if outcome != "extended":
        _refuse(outcome, session_id)
    return longest


_REFUSALS: dict[str, Callable[[UUID], ZoneError]] = {
    "unknown": lambda _: errors.UnknownSession("you have no session of this id"),
    "conflict": lambda _: errors.KeyConflict("the idempotency key was used with another request"),
    "ended": lambda _: errors.SessionEnded("the session was stopped before"),
    "expired": lambda _: errors.SessionExpired("the session's time is over"),
    "not_prepaid": lambda _: errors.NotPrepaid("the session runs until it is stopped; there is nothing to extend"),
    "max_stay_exceeded": lambda _: errors.MaxStayExceeded("the session would pass the zone's maximum stay"),
    "before_start": lambda _: errors.StoppedBeforeStart("stopped_at lies before the session's start"),
    "unpriced": errors.StayUnpriced,
    "again": lambda session_id: errors.Overtaken(f"session {session_id} is being stopped by others at this moment"),
}


def _refuse(outcome: str, session_id: UUID) -> NoReturn:
    raise _REFUSALS[outcome](session_id)


def continue_price(connection: psycopg.Connection, session_id: UUID, price: AgreedPrice) -> None:
    """Put a longer agreed price on a session whose strict overstay has passed the end of the first one."""
    connection.execute(
        "UPDATE active_session SET fee_after = %s::bigint[], fee_amount = %s::bigint[] "
        "WHERE id = %s AND rate_version = %s",
        (_array(price.after), _array(price.amounts), session_id, price.rate_version),
    )


_SESSION_COLUMNS = """id, zone_code, plate, vehicle_class, state, started_at, ends_at, ended_at,
    payment_method, rate_version, fee, free_until"""


def find(connection: psycopg.Connection, session_id: UUID, client: str | None, now: datetime) -> Session:
    """One session as of `now`, of one client or (None) of any. Raises UnknownSession."""
    query = f"""SELECT {_SESSION_COLUMNS} FROM sessions_as_of(%(now)s)
        WHERE id = %(id)s AND started_at = %(started_at)s AND (%(client)s::text IS NULL OR client = %(client)s::text)"""
    values = {"id": session_id, "started_at": started_at_of(session_id), "client": client, "now": now}
    with connection.cursor(row_factory=class_row(Session)) as cursor:
        session = cursor.execute(query, values).fetchone()
    if session is None:
        _refuse("unknown", session_id)
    return session


def of_client(
    connection: psycopg.Connection, client: str, now: datetime, *, state: str | None, before: UUID | None, limit: int
) -> list[Session]:
    """A client's sessions as of `now`, newest first, at most `limit`, older than `before` (the last id seen)."""
    query = f"""SELECT {_SESSION_COLUMNS} FROM sessions_as_of(%(now)s) WHERE client = %(client)s
        AND (%(before)s::uuid IS NULL OR id < %(before)s::uuid) AND (%(state)s::text IS NULL OR state = %(state)s::text)
        ORDER BY id DESC LIMIT %(limit)s"""
    values = {"client": client, "now": now, "state": state, "before": before, "limit": limit}
    with connection.cursor(row_factory=class_row(Session)) as cursor:
        return cursor.execute(query, values).fetchall()


def release_over(connection: psycopg.Connection, now: datetime) -> list[Count]:
    """Give back the places of advisory sessions whose time is over; the counts that changed."""
    return [Count(*row) for row in connection.execute("SELECT * FROM release_over(%s)", (now,)).fetchall()]


def void(connection: psycopg.Connection, ids: Sequence[UUID], now: datetime) -> list[Count]:
    """Take back starts that were not paid for: they cost nothing and lasted no time. The counts that changed."""
    rows = connection.execute("SELECT * FROM void_sessions(%s, %s)", (list(ids), now)).fetchall()
    return [Count(*row) for row in rows]


def ready_to_close(connection: psycopg.Connection, now: datetime, limit: int) -> list[UUID]:
    """Advisory sessions that are over for so long that no late stop can come any more."""
    query = "SELECT id FROM active_session WHERE NOT counted AND over_at < %s ORDER BY over_at LIMIT %s"
    return [row[0] for row in connection.execute(query, (now - STOP_LATENESS, limit)).fetchall()]

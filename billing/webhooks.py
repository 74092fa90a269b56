"""What gateways tell us by webhook: stored first, then handled once each, by one small handler a kind.

A gateway sends an event late, twice, or before an older one. So a handler may only move a payment forward, or asks the
gateway how it stands; run twice, it changes nothing the second time. What a handler raises is tried again, each time
later; what fails MAX_TRIES times is parked, for somebody to look at. A silent gateway or database is no such failure.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import psycopg

from billing.errors import GatewayUnavailable, UnknownEvent

MAX_TRIES = 5
LONGEST_PAUSE = timedelta(minutes=10)
# Who takes an event has so long to handle it, before another may: longer than the slowest gateway call.
LEASE = timedelta(seconds=90)
# Every reconciliation that could ask for an event is over by then.
MEMORY = timedelta(days=90)


class Event(NamedTuple):
    """An event as it came: the gateway's id and kind of it, and the signed body."""

    gateway: str
    id: str
    kind: str
    body: bytes


class Stored(NamedTuple):
    """An event with what became of it."""

    gateway: str
    id: str
    kind: str
    state: str
    received_at: datetime
    tries: int
    error: str | None


# By (gateway, kind). A kind without a handler is kept as unknown.
Handlers = Mapping[tuple[str, str], Callable[[Event], None]]


class Times(NamedTuple):
    """The business clock's time, and the real time, by which events are tried again."""

    now: datetime
    real: datetime


def store(connection: psycopg.Connection, event: Event, times: Times) -> bool:
    """Keep an event; False where it was there already."""
    stored = connection.execute(
        "INSERT INTO webhook_event (gateway, id, kind, body, state, received_at, retry_at) "
        "VALUES (%s, %s, %s, %s, 'waiting', %s, %s) ON CONFLICT DO NOTHING",
        (*event, times.now, times.real),
    )
    return stored.rowcount == 1


# Taken before it is handled, by one alone; who dies meanwhile leaves it to the next, once the lease is over.
_TAKE = """
UPDATE webhook_event SET tries = tries + 1, retry_at = %(until)s
 WHERE (gateway, id) = (SELECT gateway, id FROM webhook_event WHERE state = 'waiting' AND retry_at <= %(real)s
                         ORDER BY retry_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING gateway, id, kind, body, tries"""


def handle_next(connection: psycopg.Connection, handlers: Handlers, times: Times) -> bool:
    """Handle the event that has waited longest, if there is one. No transaction is open while its handler runs."""
    taken = connection.execute(_TAKE, {"real": times.real, "until": times.real + LEASE}).fetchone()
    if taken is None:
        return False
    event, tries = Event(*taken[:4]), int(taken[4])
    handler = handlers.get((event.gateway, event.kind))
    if handler is None:
        _settle(connection, event, "unknown", times.now)
        return True
    try:
        handler(event)
    except (GatewayUnavailable, psycopg.OperationalError) as error:
        _again(connection, event, tries, times.real, error, counted=False)
    except Exception as error:
        if tries >= MAX_TRIES:
            _settle(connection, event, "parked", times.now, error)
        else:
            _again(connection, event, tries, times.real, error)
    else:
        _settle(connection, event, "handled", times.now)
    return True


def _settle(
    connection: psycopg.Connection, event: Event, state: str, now: datetime, error: Exception | None = None
) -> None:
    connection.execute(
        "UPDATE webhook_event SET state = %s, settled_at = %s, error = %s WHERE (gateway, id) = (%s, %s)",
        (state, now, error and _said(error), event.gateway, event.id),
    )


def _again(
    connection: psycopg.Connection, event: Event, tries: int, real: datetime, error: Exception, *, counted: bool = True
) -> None:
    pause = min(timedelta(seconds=2**tries), LONGEST_PAUSE)
    connection.execute(
        "UPDATE webhook_event SET retry_at = %s, error = %s, tries = tries - %s WHERE (gateway, id) = (%s, %s)",
        (real + pause, _said(error), 0 if counted else 1, event.gateway, event.id),
    )


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\x00", "")[:1000]


def listed(connection: psycopg.Connection, states: Sequence[str], limit: int) -> list[Stored]:
    """Events in these states, newest first."""
    rows = connection.execute(
        "SELECT gateway, id, kind, state, received_at, tries, error FROM webhook_event "
        "WHERE state = ANY(%s) ORDER BY received_at DESC, id DESC LIMIT %s",
        (list(states), limit),
    )
    return [Stored(*row) for row in rows]


def retry(connection: psycopg.Connection, gateway: str, id_: str, real: datetime) -> None:
    """Let a parked event, or one of a kind that was unknown, be handled once more. Raises UnknownEvent."""
    changed = connection.execute(
        "UPDATE webhook_event SET state = 'waiting', settled_at = NULL, tries = 0, retry_at = %s "
        "WHERE (gateway, id) = (%s, %s) AND state IN ('parked', 'unknown')",
        (real, gateway, id_),
    )
    if changed.rowcount == 0:
        raise UnknownEvent(f"no event {id_} of {gateway} is parked")


def forget(connection: psycopg.Connection, now: datetime) -> int:
    """Delete what was handled long ago; what is parked stays until somebody has looked at it."""
    query = "DELETE FROM webhook_event WHERE state IN ('handled', 'unknown') AND settled_at < %s"
    return connection.execute(query, (now - MEMORY,)).rowcount

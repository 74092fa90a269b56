"""Refunds where sessions come in: who may ask for one, and mistakes that are taken back, running or over."""

from dataclasses import dataclass
from uuid import UUID

import psycopg

from app import parking
from app.resources import Resources
from billing import audit, refunds
from billing.audit import Act
from billing.errors import NothingCharged
from billing.refunds import Charge, Refund
from zones import errors, sessions
from zones.sessions import Count


@dataclass(frozen=True, slots=True)
class Voided:
    """A session that was taken back: `refund` says where its charge went, None where it was running and cost nothing.

    `count` is to be pushed once the transaction is committed.
    """

    session_id: UUID
    refund: Refund | None
    count: Count | None


def request(resources: Resources, connection: psycopg.Connection, client: str, session_id: UUID, reason: str) -> Refund:
    """Ask for a refund of one's own session.

    Raises UnknownSession, NothingCharged, AlreadyRequested, RefundExceedsCharge.
    """
    charge = _charge(resources, connection, session_id, client)
    if charge.owner != client:
        raise errors.UnknownSession("you have no session of this id")
    return refunds.request(connection, charge, reason, resources.clock.now())


def _charge(resources: Resources, connection: psycopg.Connection, session_id: UUID, client: str | None) -> Charge:
    """What was charged, also for a session that was archived. Raises UnknownSession, NothingCharged."""
    try:
        return refunds.charge_of(connection, session_id)
    except NothingCharged:
        sessions.find(connection, session_id, client, resources.clock.now())
        raise


def void(resources: Resources, connection: psycopg.Connection, session_id: UUID, act: Act) -> Voided:
    """Take back a session that was a mistake: one that runs ends now for nothing, of one that is over the whole charge.

    Raises UnknownSession, NothingCharged, RefundExceedsCharge, NoOpenShift.
    """
    sessions.started_at_of(session_id)
    ended = parking.cancel(connection, session_id, sessions.floor_to_millisecond(act.at))
    if ended is not None:
        audit.note(connection, act, "session.void", str(session_id), {"was_running": True})
        return Voided(session_id, None, ended.zone_count)
    refund, is_new = refunds.void(connection, _charge(resources, connection, session_id, None), act)
    if is_new:
        audit.note(connection, act, "session.void", str(session_id), {"was_running": False, "amount": refund.amount})
    return Voided(session_id, refund, None)

"""Attendants take cash for others: a start is put aside in their float, and what was left owing is paid out of it."""

from typing import NamedTuple
from uuid import UUID

import psycopg

from app import parking
from app.identity.keys import Identity
from app.parking import StartRequest
from app.resources import Resources
from billing import audit, refunds, shifts
from billing.audit import Act
from billing.errors import NothingCharged, NothingOwed, UnknownAttendant
from billing.ledger import Wallet
from billing.shifts import CashPayment
from zones import sessions
from zones.sessions import Session, StopCall

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: no I, L, O or U
CODE_LENGTH = 8


class OnBehalf(NamedTuple):
    """What an attendant asks for: a place for a vehicle, for some minutes that are paid now."""

    zone: str
    plate: str
    vehicle_class: str
    minutes: int


class Attended(NamedTuple):
    """A session that an attendant handles, and the cash that he takes (or, below 0, hands back), VND."""

    session: Session
    cash: int


def code_of(session_id: UUID) -> str:
    """What is written on the driver's slip: the end of the session's id, as eight letters that cannot be misread."""
    return "".join(ALPHABET[session_id.int >> 5 * n & 31] for n in reversed(range(CODE_LENGTH)))


def start(resources: Resources, attendant: str, key: str | None, wanted: OnBehalf) -> Attended:
    """Start a session for who pays in cash. Raises what parking.start does."""
    request = StartRequest(*wanted, "cash")
    session = parking.start(resources, attendant, key, request, on_behalf=True)
    return Attended(session, session.fee or 0)


def stop(resources: Resources, attendant: str, key: str | None, session_id: UUID) -> Attended:
    """Stop a session of the attendant's own; what was not used is handed back. Raises what parking.stop does."""
    call = StopCall(session_id, attendant, None, resources.clock.now(), key)
    session = parking.stop(resources, call)
    return Attended(session, -shifts.handed_back(resources.connections.get(), session_id))


def take_debt(resources: Resources, connection: psycopg.Connection, attendant: str, session_id: UUID) -> CashPayment:
    """Take in cash what a session of anybody left owing.

    Raises UnknownSession, NothingOwed, InsufficientFloat, NoOpenShift.
    """
    now = resources.clock.now()
    try:
        charge = refunds.charge_of(connection, session_id)
    except NothingCharged:
        sessions.find(connection, session_id, None, now)
        raise NothingOwed("the session owes nothing, or is not over yet") from None
    return shifts.take_debt(connection, attendant, session_id, charge.owner, now)


def check_attendant(resources: Resources, attendant: str) -> None:
    """Raises UnknownAttendant."""
    if not resources.keys.knows(Identity("attendant", attendant)):
        raise UnknownAttendant(f"no attendant {attendant}")


def top_up(resources: Resources, connection: psycopg.Connection, attendant: str, amount: int, act: Act) -> Wallet:
    """Book what an attendant has paid in; the float behind that. Raises UnknownAttendant."""
    check_attendant(resources, attendant)
    has = shifts.top_up(connection, attendant, amount, act.at)
    audit.note(connection, act, "float.topup", attendant, {"amount": amount})
    return has

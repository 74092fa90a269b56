"""Attendants who take cash for others: their floats, and the shifts in which cash moves.

An attendant prepays a float; what he takes in cash is paid to us out of it at once, so the cash in his hand is his own
until he pays it in again. Cash moves only in an open shift: it begins with what he counts and ends with what he counts,
and what is expected between is the sum of the movements. A difference is booked when the shift is closed, by the usual
rule of cash over and short: over debits clearing/cash (there is more in attendants' hands than is explained) and
credits cash_difference, short the other way round. His float does not move by it: whether he answers for a shortage is
for an operator to decide, and counting wrongly makes nobody richer.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import class_row

from billing import ledger, wallets
from billing.errors import InsufficientFloat, NoOpenShift, NothingOwed, ShiftClosed, ShiftOpen, UnknownShift
from billing.ledger import RECEIVABLE, WALLET, Posting, Wallet
from billing.wallets import FLOAT

IN_HAND, DIFFERENCE = "clearing/cash", "cash_difference"
MOVEMENTS = ("start", "hand_back", "payment")


class Shift(NamedTuple):
    """A shift as it stands; VND. `expected` and `counted` are None while it is open."""

    id: UUID
    attendant: str
    opened_at: datetime
    opening: int
    closed_at: datetime | None
    counted: int | None
    expected: int | None


class Movement(NamedTuple):
    """Cash that came into the attendant's hand (or left it, below 0), and what should then be in it."""

    kind: str
    session_id: UUID
    amount: int
    at: datetime
    in_hand: int


class CashPayment(NamedTuple):
    """Cash taken for what a session still owed."""

    id: UUID
    session_id: UUID
    amount: int
    at: datetime


_COLUMNS = ", ".join(Shift._fields)


def _query(connection: psycopg.Connection, query: str, values: Sequence[Any]) -> list[Shift]:
    with connection.cursor(row_factory=class_row(Shift)) as cursor:
        return cursor.execute(query, values).fetchall()


def float_of(connection: psycopg.Connection, attendant: str) -> Wallet:
    """What an attendant has prepaid; `held` of it is for sessions that run."""
    query = "SELECT balance, held FROM wallet WHERE owner = %s AND kind = 'float'"
    row = connection.execute(query, (attendant,)).fetchone()
    return Wallet(*row) if row else Wallet()


def top_up(connection: psycopg.Connection, attendant: str, amount: int, at: datetime) -> Wallet:
    """Book what an attendant has paid in at the bank; the float behind that."""
    entries = {"bank": amount, FLOAT + attendant: -amount}
    ledger.post(connection, [Posting("float_topup", str(uuid4()), at, entries)])
    return float_of(connection, attendant)


def open_shift(connection: psycopg.Connection, attendant: str, counted: int, at: datetime) -> Shift:
    """Open a shift with the cash that is in the attendant's hand. Raises ShiftOpen."""
    made = _query(
        connection,
        "INSERT INTO shift (id, attendant, opened_at, opening) VALUES (uuid_of(%s), %s, %s, %s) "
        f"ON CONFLICT (attendant) WHERE closed_at IS NULL DO NOTHING RETURNING {_COLUMNS}",
        (at, attendant, at, counted),
    )
    if not made:
        raise ShiftOpen("close the open shift first")
    return made[0]


def find(connection: psycopg.Connection, shift_id: UUID, attendant: str | None) -> Shift:
    """A shift of one attendant, or (None) of any. Raises UnknownShift."""
    query = f"SELECT {_COLUMNS} FROM shift WHERE id = %s AND (%s::text IS NULL OR attendant = %s::text)"
    found = _query(connection, query, (shift_id, attendant, attendant))
    if not found:
        raise UnknownShift(f"no shift {shift_id}")
    return found[0]


def movements(connection: psycopg.Connection, shift: Shift) -> list[Movement]:
    """The cash that moved in a shift, in order: the opening and these explain what is expected."""
    query = (
        "SELECT kind, session_id, amount, at, (%s + sum(amount) OVER (ORDER BY id))::bigint AS in_hand "
        "FROM cash_movement WHERE shift_id = %s ORDER BY id"
    )
    with connection.cursor(row_factory=class_row(Movement)) as cursor:
        return cursor.execute(query, (shift.opening, shift.id)).fetchall()


_CLOSE = f"""
UPDATE shift SET closed_at = GREATEST(%s, opened_at), counted = %s,
       expected = opening + (SELECT COALESCE(sum(amount), 0) FROM cash_movement WHERE shift_id = shift.id)
 WHERE id = %s RETURNING {_COLUMNS}
"""


def close_shift(connection: psycopg.Connection, shift_id: UUID, attendant: str, counted: int, at: datetime) -> Shift:
    """Close a shift with the cash that is counted, and book what it differs by. Raises UnknownShift, ShiftClosed.

    Movements under way wait, or are waited for: the lock comes first, the sum behind it.
    """
    with connection.transaction():
        query = f"SELECT {_COLUMNS} FROM shift WHERE id = %s AND attendant = %s FOR NO KEY UPDATE"
        found = _query(connection, query, (shift_id, attendant))
        if not found:
            raise UnknownShift(f"no shift {shift_id}")
        if found[0].closed_at is not None:
            raise ShiftClosed("the shift is closed")
        (closed,) = _query(connection, _CLOSE, (at, counted, shift_id))
        assert closed.expected is not None
        difference = counted - closed.expected
        if difference:
            entries = {IN_HAND: difference, DIFFERENCE: -difference}
            ledger.post(connection, [Posting("cash_shift", str(shift_id), at, entries)])
    return closed


def move_cash(
    connection: psycopg.Connection, attendant: str, session_id: UUID, amount: int, kind: str, at: datetime
) -> None:
    """Note cash that moves, in the attendant's open shift. Raises NoOpenShift."""
    try:
        with connection.transaction():
            connection.execute(
                "SELECT move_cash(%s, %s, %s::bigint[], %s, %s)", ([session_id], [attendant], [amount], kind, at)
            )
    except psycopg.errors.CheckViolation as error:
        if error.diag.constraint_name != "shift_is_open":
            raise
        raise NoOpenShift("cash moves only in an open shift of the attendant who took it") from None


_PAID = """
INSERT INTO payment (id, client, purpose, session_id, method, amount, paid, state, reference, created_at, settled_at)
VALUES (%(id)s, %(client)s, 'session', %(session)s, 'cash', %(amount)s, %(amount)s, 'paid', %(id)s::text, %(at)s,
        %(at)s)
"""


def take_debt(
    connection: psycopg.Connection, attendant: str, session_id: UUID, client: str, at: datetime
) -> CashPayment:
    """Take in cash all that a session of `client` still owes: debit the float, credit the debt.

    Raises NothingOwed, InsufficientFloat, NoOpenShift.
    """
    with connection.transaction():
        has, debtor = wallets.lock(connection, FLOAT + attendant, WALLET + client)
        amount = wallets.owed_for(connection, client, session_id, debtor.owed)
        if amount <= 0:
            raise NothingOwed("the session owes nothing, or is not over yet")
        if amount > has.available:
            raise InsufficientFloat(f"the session owes {amount} VND, and {has.available} are in the float")
        made = CashPayment(uuid4(), session_id, amount, at)
        move_cash(connection, attendant, session_id, amount, "payment", at)
        connection.execute(_PAID, {"id": made.id, "client": client, "session": session_id, "amount": amount, "at": at})
        entries = {FLOAT + attendant: amount, RECEIVABLE + client: -amount}
        ledger.post(connection, [Posting("cash", str(made.id), at, entries)])
    return made


def handed_back(connection: psycopg.Connection, session_id: UUID) -> int:
    """The cash that was given back for a session."""
    query = "SELECT COALESCE(-sum(amount), 0)::bigint FROM cash_movement WHERE session_id = %s AND kind = 'hand_back'"
    row = connection.execute(query, (session_id,)).fetchone()
    assert row is not None
    return int(row[0])

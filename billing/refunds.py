"""Refunds and voids: what was charged and goes back, never more in all than was charged.

A refund takes revenue and tax back in proportion. The tax of all refunds of a charge together is the charge's tax times
what was given back, divided by the charge, rounded half up to whole VND; a refund's own tax is what that grows by. So
however a charge is given back in pieces, the last one makes it the exact opposite.

What is given back first takes away what is still owed for the session; then it goes back to the card, as far as one
paid for it (credit `refund`, until its gateway has done it: refunds_at_gateway.py); the rest goes to the wallet, where
it first pays what is owed for other sessions.

A void takes a whole charge back by a reversal in the ledger, and then gives back what was paid in the same way. A
charge that an attendant took in cash goes back to his float, and the cash out of his hand, in his open shift.

Refund's row, then the wallet's: whoever reduces a charge holds its client's wallet, so that no two do it at once.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, LiteralString, NamedTuple
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from billing import ledger, shifts, wallets
from billing.audit import Act
from billing.errors import AlreadyDecided, AlreadyRequested, NothingCharged, RefundExceedsCharge, UnknownRefund
from billing.ledger import RECEIVABLE, WALLET, Posting
from billing.wallets import FLOAT

STATES = ("requested", "rejected", "pending_gateway", "refunded")
KINDS = ("refund", "void")
GIVEN = ("pending_gateway", "refunded")
# What was given back, as a query: of which session, when, and how much with tax in it; by whatever way it went.
GIVEN_BACK: LiteralString = "SELECT session_id, decided_at AS at, amount FROM refund WHERE amount IS NOT NULL"
ON_THE_WAY = "refund"  # the account of what gateways are to give back


class Charge(NamedTuple):
    """What a session was charged: VND by account, as it was booked."""

    id: UUID
    session_id: UUID
    entries: dict[str, int]

    @property
    def gross(self) -> int:
        """The whole charge, tax included."""
        return sum(amount for amount in self.entries.values() if amount > 0)

    @property
    def purse(self) -> str:
        """The account to which what was paid goes back: a wallet, or the float of who took cash."""
        kind = FLOAT if FLOAT + self.owner in self.entries else WALLET
        return kind + self.owner

    @property
    def owner(self) -> str:
        """Whose session it was."""
        named = [code for code in self.entries if code.startswith((WALLET, RECEIVABLE, FLOAT))]
        return named[0].partition("/")[2]

    def tax(self, given: int) -> int:
        """The tax in so much of the charge, rounded half up."""
        return (2 * -self.entries.get("vat", 0) * given + self.gross) // (2 * self.gross)


class Refund(NamedTuple):
    """A refund or void as it stands; VND. `amount` is what was given back, None while nothing was."""

    id: UUID
    kind: str
    session_id: UUID
    client: str
    reason: str
    state: str
    charged: int
    amount: int | None
    to_debt: int
    to_gateway: int
    to_purse: int
    requested_at: datetime
    decided_at: datetime | None
    decided_by: str | None
    decision: str | None


class Parts(NamedTuple):
    """Where what is given back goes."""

    to_debt: int
    to_gateway: int
    to_purse: int


_COLUMNS = ", ".join(Refund._fields)
_CHARGE = """
SELECT t.id, %(session)s::uuid, json_object_agg(a.code, e.amount)
  FROM ledger_transaction t JOIN ledger_entry e ON e.transaction_id = t.id JOIN ledger_account a ON a.id = e.account_id
 WHERE t.kind = 'parking' AND t.reference = %(session)s::text GROUP BY t.id
"""


def charge_of(connection: psycopg.Connection, session_id: UUID) -> Charge:
    """What a session was charged. Raises NothingCharged."""
    row = connection.execute(_CHARGE, {"session": session_id}).fetchone()
    if row is None:
        raise NothingCharged("the session was charged nothing, or runs still")
    return Charge(*row)


_GIVEN = """
SELECT COALESCE(sum(amount), 0)::bigint, EXISTS (SELECT FROM ledger_transaction WHERE reverses = %s)
  FROM refund WHERE session_id = %s AND state = ANY(%s)
"""


def left_of(connection: psycopg.Connection, charge: Charge) -> int:
    """What of a charge was not given back yet. It stays so while the caller holds its owner's wallet."""
    row = connection.execute(_GIVEN, (charge.id, charge.session_id, list(GIVEN))).fetchone()
    assert row is not None
    return 0 if row[1] else charge.gross - int(row[0])


def request(connection: psycopg.Connection, charge: Charge, reason: str, at: datetime) -> Refund:
    """Ask for a refund, which an operator decides. Raises AlreadyRequested, RefundExceedsCharge."""
    if left_of(connection, charge) <= 0:
        raise RefundExceedsCharge("all of it was given back before")
    made = _query(
        connection,
        "INSERT INTO refund (id, kind, session_id, client, reason, state, charged, requested_at) "
        "VALUES (uuid_of(%s), 'refund', %s, %s, %s, 'requested', %s, %s) "
        f"ON CONFLICT (session_id) WHERE state = 'requested' DO NOTHING RETURNING {_COLUMNS}",
        (at, charge.session_id, charge.owner, reason, charge.gross, at),
    )
    if not made:
        raise AlreadyRequested("a refund for this session was asked for and is not decided yet")
    return made[0]


def _query(connection: psycopg.Connection, query: str, values: Sequence[Any] | Mapping[str, Any]) -> list[Refund]:
    with connection.cursor(row_factory=class_row(Refund)) as cursor:
        return cursor.execute(query, values).fetchall()


def lock(connection: psycopg.Connection, refund_id: UUID) -> Refund:
    """The refund, held until the caller's transaction ends. Raises UnknownRefund."""
    found = _query(connection, f"SELECT {_COLUMNS} FROM refund WHERE id = %s FOR UPDATE", (refund_id,))
    if not found:
        raise UnknownRefund(f"no refund {refund_id}")
    return found[0]


def approve(connection: psycopg.Connection, refund_id: UUID, amount: int | None, act: Act) -> Refund:
    """Give back an amount, or (None) all that is left. Approved once more for the same amount, it changes nothing.

    Raises UnknownRefund, AlreadyDecided, RefundExceedsCharge.
    """
    with connection.transaction():
        found = lock(connection, refund_id)
        if found.state in GIVEN and amount in (None, found.amount):
            return found
        if found.state != "requested":
            raise AlreadyDecided(f"the refund is {found.state}")
        charge = charge_of(connection, found.session_id)
        _open_accounts(connection, charge)
        (has,) = wallets.lock(connection, WALLET + charge.owner)
        left = left_of(connection, charge)
        given = left if amount is None else amount
        if not 0 < given <= left:
            raise RefundExceedsCharge(f"{left} VND of the charge can still be given back")
        parts = _parts(connection, charge, given, has.owed)
        _book(connection, charge, found.id, charge.gross - left, parts, act.at)
        return _settle(connection, found.id, parts, act)


# A gateway gives back what one payment brought, the one that is picked below; what others brought goes to the purse.
# Less what went back already: as refunds of this charge, but for those of another payment, or beside it.
_PAID_BY_CARD = """
WITH paid AS (SELECT id, paid FROM payment WHERE id = payment_to_refund(%(session)s, NULL))
SELECT COALESCE((SELECT paid FROM paid), 0)
       - (SELECT COALESCE(sum(to_gateway), 0)::bigint FROM refund r WHERE session_id = %(session)s
             AND NOT EXISTS (SELECT FROM gateway_refund g
                              WHERE g.refund_id = r.id AND g.payment_id NOT IN (SELECT id FROM paid)))
       - (SELECT COALESCE(sum(of_wallet + of_ours), 0)::bigint FROM gateway_refund
           WHERE payment_id IN (SELECT id FROM paid) AND state = 'given')
"""


def _parts(connection: psycopg.Connection, charge: Charge, amount: int, owed: int) -> Parts:
    """Where an amount goes: off the debt, back to the card, to the purse."""
    to_debt = min(amount, wallets.owed_for(connection, charge.owner, charge.session_id, owed))
    row = connection.execute(_PAID_BY_CARD, {"session": charge.session_id}).fetchone()
    assert row is not None
    to_gateway = min(amount - to_debt, max(int(row[0]), 0))
    return Parts(to_debt, to_gateway, amount - to_debt - to_gateway)


def _book(
    connection: psycopg.Connection, charge: Charge, refund_id: UUID, before: int, parts: Parts, at: datetime
) -> None:
    """Take revenue and tax back, in proportion. `before` was given back earlier."""
    amount = sum(parts)
    tax = charge.tax(before + amount) - charge.tax(before)
    revenue = next(code for code in charge.entries if code.startswith("revenue/"))
    entries = {"vat": tax, revenue: amount - tax, **_destinations(charge, parts)}
    ledger.post(connection, [Posting("refund", f"{charge.session_id}/{refund_id}", at, entries)])


def _open_accounts(connection: psycopg.Connection, charge: Charge) -> None:
    """Of where it may go: before the wallet is locked, as everybody does."""
    ledger.open_accounts(connection, RECEIVABLE + charge.owner, ON_THE_WAY, charge.purse)


def _destinations(charge: Charge, parts: Parts) -> dict[str, int]:
    return {
        RECEIVABLE + charge.owner: -parts.to_debt,
        ON_THE_WAY: -parts.to_gateway,
        charge.purse: -parts.to_purse,
    }


def _settle(connection: psycopg.Connection, refund_id: UUID, parts: Parts, act: Act) -> Refund:
    state = "pending_gateway" if parts.to_gateway else "refunded"
    (settled,) = _query(
        connection,
        "UPDATE refund SET state = %s, amount = %s, to_debt = %s, to_gateway = %s, to_purse = %s, decided_at = %s, "
        "decided_by = %s, decision = %s, payment_id = CASE WHEN %s THEN payment_to_refund(session_id, NULL) END "
        f"WHERE id = %s RETURNING {_COLUMNS}",
        (state, sum(parts), *parts, act.at, act.actor, act.reason, parts.to_gateway > 0, refund_id),
    )
    wallets.settle_owed(connection, settled.client, act.at + wallets.NEXT, parts.to_purse)
    return settled


def given_at_gateway(connection: psycopg.Connection, charge: Charge, amount: int, act: Act) -> UUID:
    """Note and book that a gateway gave back an amount of a charge, by nobody's order here; the refund's id.

    In the caller's transaction, who holds the owner's wallet and knows that so much of the charge is left.
    """
    before = charge.gross - left_of(connection, charge)
    (made,) = _query(
        connection,
        "INSERT INTO refund (id, kind, session_id, client, reason, state, charged, amount, to_gateway, requested_at, "
        "decided_at, decided_by) VALUES (uuid_of(%s), 'refund', %s, %s, %s, 'refunded', %s, %s, %s, %s, %s, %s) "
        f"RETURNING {_COLUMNS}",
        (act.at, charge.session_id, charge.owner, act.reason, charge.gross, amount, amount, act.at, act.at, act.actor),
    )
    _book(connection, charge, made.id, before, Parts(0, amount, 0), act.at)
    return made.id


def reject(connection: psycopg.Connection, refund_id: UUID, act: Act) -> Refund:
    """Give nothing back. Raises UnknownRefund, AlreadyDecided."""
    with connection.transaction():
        found = lock(connection, refund_id)
        if found.state == "rejected":
            return found
        if found.state != "requested":
            raise AlreadyDecided(f"the refund is {found.state}")
        (rejected,) = _query(
            connection,
            "UPDATE refund SET state = 'rejected', decided_at = %s, decided_by = %s, decision = %s WHERE id = %s "
            f"RETURNING {_COLUMNS}",
            (act.at, act.actor, act.reason, refund_id),
        )
        return rejected


def void(connection: psycopg.Connection, charge: Charge, act: Act) -> tuple[Refund, bool]:
    """Take a charge back as a whole; and whether that is new: voided once more, it changes nothing.

    Raises RefundExceedsCharge where some was given back before; NoOpenShift where cash must go back and cannot.
    """
    with connection.transaction():
        _open_accounts(connection, charge)
        (has, _) = wallets.lock(connection, WALLET + charge.owner, FLOAT + charge.owner)
        known = _query(
            connection, f"SELECT {_COLUMNS} FROM refund WHERE session_id = %s AND kind = 'void'", (charge.session_id,)
        )
        if known:
            return known[0], False
        if left_of(connection, charge) < charge.gross:
            raise RefundExceedsCharge("a part was given back before: refund the rest")
        parts = _parts(connection, charge, charge.gross, has.owed)
        (made,) = _query(
            connection,
            "INSERT INTO refund (id, kind, session_id, client, reason, state, charged, amount, to_purse, requested_at, "
            "decided_at, decided_by) VALUES (uuid_of(%s), 'void', %s, %s, %s, 'refunded', %s, %s, %s, %s, %s, %s) "
            f"RETURNING {_COLUMNS}",
            (act.at, charge.session_id, charge.owner, act.reason, *[charge.gross] * 3, act.at, act.at, act.actor),
        )
        _reverse(connection, charge, f"{charge.session_id}/{made.id}", parts, act.at)
        return _settle(connection, made.id, parts, act), True


def _reverse(connection: psycopg.Connection, charge: Charge, reference: str, parts: Parts, at: datetime) -> None:
    """The reversal, and behind it what of the debt had been paid: it goes to whoever paid it."""
    ledger.reverse(connection, charge.id, reference, at)
    back = _destinations(charge, parts)
    paid = {code: back.get(code, 0) + charge.entries.get(code, 0) for code in {*back}}
    if any(paid.values()):
        ledger.post(connection, [Posting("void", reference, at + wallets.NEXT, paid)])
    if charge.purse.startswith(FLOAT) and parts.to_purse:
        shifts.move_cash(connection, charge.owner, charge.session_id, -parts.to_purse, "hand_back", at)


_LIST = f"""
SELECT {_COLUMNS} FROM refund
 WHERE (%(client)s::text IS NULL OR client = %(client)s::text)
   AND (%(state)s::text IS NULL OR state = %(state)s::text)
   AND (%(before)s::uuid IS NULL OR id < %(before)s::uuid)
 ORDER BY id DESC LIMIT %(limit)s
"""


def find_all(
    connection: psycopg.Connection, client: str | None, state: str | None, before: UUID | None, limit: int
) -> list[Refund]:
    """Refunds and voids of a client or (None) of all, newest first, at most `limit`, older than `before`."""
    return _query(connection, _LIST, {"client": client, "state": state, "before": before, "limit": limit})

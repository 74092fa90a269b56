"""E-invoices in the database: pending → sent → accepted or rejected; a rejected one may be made anew.

Whoever takes one up puts its next try off before he sends it, so two senders seldom meet, and where they do the
provider answers both alike.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import psycopg

from billing.einvoices import Answer
from billing.einvoices.document import Original, make
from billing.receipts import store
from billing.seller import Seller

# The wait after the first try; twice as long after each one, up to the longest.
FIRST_WAIT, LONGEST_WAIT = timedelta(minutes=1), timedelta(hours=6)
_DOUBLINGS = 9


class Taken(NamedTuple):
    """An invoice that its taker shall send now."""

    id: UUID
    sign: str
    number: int
    document: bytes

    @property
    def name(self) -> str:
        """Sign and number, fit for a file's name."""
        return f"{self.sign}-{self.number:08d}"


_NEXT = """
SELECT id, sign, number, code_number, tries, document FROM einvoice
 WHERE state IN ('pending', 'sent') AND next_try_at <= %s
 ORDER BY next_try_at, sign, number LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_TAKE = "UPDATE einvoice SET state = 'sent', document = %s, tries = %s, next_try_at = %s WHERE id = %s"


def wait_after(tries: int) -> timedelta:
    """How long to leave an invoice alone after so many tries without an answer: 1, 2, 4, … minutes, at most 6 hours."""
    return min(FIRST_WAIT * 2 ** min(tries - 1, _DOUBLINGS), LONGEST_WAIT)


def take(connection: psycopg.Connection, seller: Seller, now: datetime) -> Taken | None:
    """The invoice whose time came first, with its document written down; None where none is due.

    A transaction of its own: what is returned is committed.
    """
    with connection.transaction():
        row = connection.execute(_NEXT, (now,)).fetchone()
        if row is None:
            return None
        invoice_id, sign, number, code_number, tries, kept = row
        document = kept.encode() if kept else _document(connection, invoice_id, code_number, seller)
        values = (document.decode(), tries + 1, now + wait_after(tries + 1), invoice_id)
        connection.execute(_TAKE, values)
    return Taken(invoice_id, sign, number, document)


def _document(connection: psycopg.Connection, invoice_id: UUID, code_number: int, seller: Seller) -> bytes:
    receipt = store.by_ids(connection, [invoice_id])[invoice_id]
    if receipt.corrects is None:
        return make(receipt, code_number, seller, None)
    original = store.by_ids(connection, [receipt.corrects])[receipt.corrects]
    return make(receipt, code_number, seller, Original(original.sign, original.number, original.issued_at))


_SETTLE = """
UPDATE einvoice SET state = %s, provider_reference = %s, last_error = %s, settled_at = %s, next_try_at = NULL
 WHERE id = %s AND state = 'sent'
"""


def settle(connection: psycopg.Connection, invoice_id: UUID, answer: Answer, now: datetime) -> bool:
    """Note the provider's answer. Saying it again changes nothing: False."""
    state = "rejected" if answer.reference is None else "accepted"
    reason = (answer.reason or "no reason given") if answer.reference is None else None
    values = (state, answer.reference, reason, now, invoice_id)
    return connection.execute(_SETTLE, values).rowcount == 1


def note_failure(connection: psycopg.Connection, invoice_id: UUID, error: str) -> None:
    """Note why there was no answer; the next try stands already."""
    connection.execute("UPDATE einvoice SET last_error = %s WHERE id = %s AND state = 'sent'", (error, invoice_id))


_MAKE_ANEW = """
UPDATE einvoice SET state = 'pending', document = NULL, tries = 0, next_try_at = %s, settled_at = NULL
 WHERE state = 'rejected' AND id = ANY(%s)
"""


def make_anew(connection: psycopg.Connection, ids: list[UUID], now: datetime) -> int:
    """Let rejected invoices be made and sent again, once what was wrong (the seller's address, say) is put right."""
    return connection.execute(_MAKE_ANEW, (now, ids)).rowcount


class Listed(NamedTuple):
    """An e-invoice with what became of it."""

    id: UUID
    sign: str
    number: int
    state: str
    tries: int
    next_try_at: datetime | None
    settled_at: datetime | None
    error: str | None


def listed(connection: psycopg.Connection, states: Sequence[str], limit: int) -> list[Listed]:
    """E-invoices in these states, the newest charge first."""
    rows = connection.execute(
        "SELECT id, sign, number, state, tries, next_try_at, settled_at, last_error FROM einvoice "
        "WHERE state = ANY(%s) ORDER BY id DESC LIMIT %s",
        (list(states), limit),
    )
    return [Listed(*row) for row in rows]


def rejected(connection: psycopg.Connection) -> list[UUID]:
    """All e-invoices that were rejected."""
    return [row[0] for row in connection.execute("SELECT id FROM einvoice WHERE state = 'rejected' ORDER BY id")]

"""Receipts in the database: issued with the next numbers of their series, found, listed."""

from collections.abc import Iterable
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import psycopg
from psycopg.rows import class_row

from billing.errors import UnknownReceipt
from billing.receipts import series
from billing.receipts.charges import PARKING, Charge
from billing.receipts.content import HANOI


class Receipt(NamedTuple):
    """One receipt or credit note. Amounts in VND; `content` is all that it says (billing/receipts/content.py)."""

    id: UUID
    kind: str
    district: str
    year: int
    number: int
    client: str
    session_id: UUID
    corrects: UUID | None
    issued_at: datetime
    amount: int
    vat: int
    content: dict[str, Any]
    corrects_number: int | None = None
    corrects_year: int | None = None

    @property
    def number_text(self) -> str:
        """Its number as people read it."""
        return series.number_text(self.year, self.district, self.number)

    @property
    def sign(self) -> str:
        """Form and series of its e-invoice, whose number is the same."""
        return series.sign(self.year, self.district)

    @property
    def corrects_text(self) -> str | None:
        """The number of the receipt that a credit note is about."""
        if self.corrects_number is None or self.corrects_year is None:
            return None
        return series.number_text(self.corrects_year, self.district, self.corrects_number)


class Draft(NamedTuple):
    """A receipt but for its number: the charge and what is said about it."""

    charge: Charge
    content: dict[str, Any]


def issue(connection: psycopg.Connection, drafts: Iterable[Draft], now: datetime) -> int:
    """Issue what is not issued yet, each district in a transaction of its own; the number issued.

    `connection` commits by itself. A credit note's receipt must have been issued before.
    """
    ordered = sorted(drafts, key=lambda draft: draft.charge.district)
    return sum(
        _issue_district(connection, district, list(of_one), now)
        for district, of_one in groupby(ordered, key=lambda draft: draft.charge.district)
    )


def _issue_district(connection: psycopg.Connection, district: str, drafts: list[Draft], now: datetime) -> int:
    year = now.astimezone(HANOI).year
    rows = orjson.dumps([_columns(draft) for draft in drafts]).decode()
    values = (district, year, series.sign(year, district), now, rows)
    row = connection.execute("SELECT issue_receipts(%s, %s, %s, %s, %s)", values).fetchone()
    assert row is not None
    return int(row[0])


def _columns(draft: Draft) -> dict[str, Any]:
    charge = draft.charge
    return {
        "id": charge.id,
        "kind": "receipt" if charge.kind == PARKING else "credit_note",
        "client": charge.client,
        "session_id": charge.session_id,
        "corrects": charge.of,
        "charged_at": charge.at,
        "amount": charge.gross,
        "vat": charge.vat,
        "content": draft.content,
    }


_SELECT = """
SELECT r.id, r.kind, r.district, r.year, r.number, r.client, r.session_id, r.corrects, r.issued_at, r.amount, r.vat,
       r.content, c.number AS corrects_number, c.year AS corrects_year
  FROM receipt r LEFT JOIN receipt c ON c.id = r.corrects
"""


def find(connection: psycopg.Connection, receipt_id: UUID, client: str) -> Receipt:
    """One of the client's receipts. Raises UnknownReceipt."""
    with connection.cursor(row_factory=class_row(Receipt)) as cursor:
        found = cursor.execute(_SELECT + "WHERE r.id = %s AND r.client = %s", (receipt_id, client)).fetchone()
    if found is None:
        raise UnknownReceipt("you have no receipt of this id")
    return found


def of_session(connection: psycopg.Connection, session_id: UUID, client: str) -> Receipt | None:
    """The receipt of a session of the client's, None where it is not issued."""
    query = _SELECT + "WHERE r.session_id = %s AND r.kind = 'receipt' AND r.client = %s"
    with connection.cursor(row_factory=class_row(Receipt)) as cursor:
        return cursor.execute(query, (session_id, client)).fetchone()


def of_client(connection: psycopg.Connection, client: str, before: UUID | None, limit: int) -> list[Receipt]:
    """A client's receipts, the newest charge first, at most `limit`, older than `before` (the last id seen)."""
    query = (
        _SELECT
        + """WHERE r.client = %(client)s AND (%(before)s::uuid IS NULL OR r.id < %(before)s::uuid)
        ORDER BY r.id DESC LIMIT %(limit)s"""
    )
    values = {"client": client, "before": before, "limit": limit}
    with connection.cursor(row_factory=class_row(Receipt)) as cursor:
        return cursor.execute(query, values).fetchall()


def by_ids(connection: psycopg.Connection, ids: list[UUID]) -> dict[UUID, Receipt]:
    """Those of these receipts that are issued."""
    with connection.cursor(row_factory=class_row(Receipt)) as cursor:
        rows = cursor.execute(_SELECT + "WHERE r.id = ANY(%s)", (ids,)).fetchall()
    return {receipt.id: receipt for receipt in rows}


def progress(connection: psycopg.Connection) -> UUID:
    """The transaction up to which every charge has its receipt."""
    row = connection.execute("SELECT id FROM receipt_progress").fetchone()
    return UUID(str(row[0])) if row else UUID(int=0)


def advance(connection: psycopg.Connection, to: UUID) -> None:
    """Note that every charge up to `to` has its receipt. Never goes back."""
    connection.execute(
        "INSERT INTO receipt_progress AS p (id) VALUES (%s) ON CONFLICT (only_one) "
        "DO UPDATE SET id = excluded.id WHERE p.id < excluded.id",
        (to,),
    )

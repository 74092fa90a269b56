"""What the ledger has charged and given back, and what of it has no receipt yet."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import psycopg
from psycopg.rows import class_row

PARKING = "parking"
# The Unix milliseconds of a UUIDv7 are its first 48 bits.
_AFTER_MILLISECONDS = 80


class Charge(NamedTuple):
    """One ledger transaction: what it moved of revenue and tax, in VND, below 0 where it was given back.

    `id` is the transaction's and will be the receipt's; `of` is the charge that is given back. `client` is None where
    the money went to nobody's wallet.
    """

    id: UUID
    kind: str
    at: datetime
    session_id: UUID
    of: UUID | None
    client: str | None
    district: str
    net: int
    vat: int

    @property
    def gross(self) -> int:
        """What the driver pays, tax included."""
        return self.net + self.vat


# What gives money back names the charge as what it reverses, or its session in front of its own reference.
_CHARGES = """
SELECT f.id, f.kind, f.at, COALESCE(p.reference, f.reference)::uuid AS session_id, p.id AS of,
       max(a.owner) FILTER (WHERE a.kind IN ('wallet', 'receivable')) AS client,
       COALESCE(max(split_part(a.code, '/', 2)) FILTER (WHERE a.kind = 'revenue'), '') AS district,
       (-COALESCE(sum(e.amount) FILTER (WHERE a.kind = 'revenue'), 0))::bigint AS net,
       (-COALESCE(sum(e.amount) FILTER (WHERE a.kind = 'vat'), 0))::bigint AS vat
  FROM (SELECT t.id, t.kind, t.at, t.reference, o.of
          FROM ledger_transaction t
         CROSS JOIN LATERAL (SELECT CASE WHEN t.kind <> 'parking' THEN COALESCE(
               (SELECT p.id FROM ledger_transaction p WHERE p.kind = 'parking' AND p.id = t.reverses),
               (SELECT p.id FROM ledger_transaction p
                 WHERE p.kind = 'parking' AND p.reference = split_part(t.reference, '/', 1))) END) o(of)
         WHERE (t.kind = 'parking' OR o.of IS NOT NULL) AND {which}) f
  LEFT JOIN ledger_transaction p ON p.id = f.of
  JOIN ledger_entry e ON e.transaction_id = f.id
  JOIN ledger_account a ON a.id = e.account_id
 GROUP BY f.id, f.kind, f.at, f.reference, p.id, p.reference
 ORDER BY f.id
"""
_PENDING = _CHARGES.format(
    # Both sides begin at `after`: a merge of the two would read all receipts otherwise.
    which="""t.id > %(after)s AND t.kind IN ('parking', 'refund', 'reversal')
           AND NOT EXISTS (SELECT FROM receipt r WHERE r.id = t.id AND r.id > %(after)s)
         ORDER BY t.id LIMIT %(limit)s"""
)
_OF_SESSION = _CHARGES.format(which="t.kind = 'parking' AND t.reference = %s")


def pending(connection: psycopg.Connection, after: UUID, limit: int) -> list[Charge]:
    """At most `limit` charges and refunds without a receipt, behind the transaction `after`, in the order of time.

    Among them may be such as gave back no revenue: they get no receipt.
    """
    with connection.cursor(row_factory=class_row(Charge)) as cursor:
        return cursor.execute(_PENDING, {"after": after, "limit": limit}).fetchall()


def of_session(connection: psycopg.Connection, session_id: UUID) -> Charge | None:
    """What a session was charged, None where it has not ended or owed nothing."""
    with connection.cursor(row_factory=class_row(Charge)) as cursor:
        return cursor.execute(_OF_SESSION, (str(session_id),)).fetchone()


def first_id_at(instant: datetime) -> UUID:
    """The lowest id that a transaction booked at `instant` can have."""
    return UUID(int=int(instant.timestamp() * 1000) << _AFTER_MILLISECONDS)

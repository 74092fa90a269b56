"""What became of one session's money: put aside, taken, owed, given back."""

from typing import NamedTuple
from uuid import UUID

import psycopg

from billing import wallets


class SessionMoney(NamedTuple):
    """VND. What was charged was `captured`, is `owed`, or was taken off the debt by a refund."""

    held: int  # in the wallet, or the float of who took cash
    charged: int
    captured: int
    owed: int
    refunded: int


# Of one session: its hold, its charge with what of that was left to be paid, what was given back, all its client owes.
_MONEY = """
SELECT COALESCE((SELECT amount FROM hold WHERE id = %(id)s AND state = 'pending'), 0),
       COALESCE(c.charged, 0)::bigint, COALESCE(c.unpaid, 0)::bigint, c.owner,
       COALESCE(r.amount, 0)::bigint, COALESCE(r.to_debt, 0)::bigint,
       COALESCE((SELECT owed FROM wallet w WHERE w.owner = c.owner AND w.kind = 'wallet'), 0)
  FROM (SELECT sum(e.amount) FILTER (WHERE e.amount > 0) AS charged,
               sum(e.amount) FILTER (WHERE a.kind = 'receivable') AS unpaid, max(a.owner) AS owner
          FROM ledger_transaction t JOIN ledger_entry e ON e.transaction_id = t.id
          JOIN ledger_account a ON a.id = e.account_id
         WHERE t.kind = 'parking' AND t.reference = %(id)s::text) c,
       (SELECT sum(amount) AS amount, sum(to_debt) AS to_debt FROM refund WHERE session_id = %(id)s) r
"""


def of(connection: psycopg.Connection, session_id: UUID) -> SessionMoney:
    """What became of a session's money; nothing but a hold, where it was not charged (yet)."""
    row = connection.execute(_MONEY, {"id": session_id}).fetchone()
    assert row is not None
    held, charged, unpaid, owner, refunded, to_debt, owes = row
    owed = wallets.owed_for(connection, owner, session_id, owes) if unpaid and owes > 0 else 0
    return SessionMoney(held, charged, charged - owed - to_debt, owed, refunded)

"""What must be true of all receipts: no gap, nothing without one, and in all the ledger's revenue and tax."""

from typing import NamedTuple

import psycopg


class Revenue(NamedTuple):
    """One district's revenue in VND without VAT: by its receipts, and by the ledger."""

    district: str
    receipts: int
    ledger: int


_BY_DISTRICT = """
SELECT COALESCE(r.district, l.district), COALESCE(r.net, 0), COALESCE(l.net, 0)
  FROM (SELECT district, sum(amount - vat)::bigint AS net FROM receipt GROUP BY district) r
  FULL JOIN (SELECT split_part(a.code, '/', 2) AS district, (-sum(e.amount))::bigint AS net
               FROM ledger_account a JOIN ledger_entry e ON e.account_id = a.id
              WHERE a.kind = 'revenue' GROUP BY 1) l USING (district)
 ORDER BY 1
"""
_VAT = """
SELECT (SELECT COALESCE(sum(vat), 0) FROM receipt)::bigint,
       (SELECT COALESCE(-sum(e.amount), 0) FROM ledger_account a JOIN ledger_entry e ON e.account_id = a.id
         WHERE a.kind = 'vat')::bigint
"""
_GAPS = """
SELECT r.district, r.year, r.issued, COALESCE(s.last, 0)
  FROM (SELECT district, year, count(*) AS issued, max(number) AS highest FROM receipt GROUP BY district, year) r
  LEFT JOIN number_series s ON s.name = 'receipt/' || r.district AND s.year = r.year
 WHERE r.issued <> r.highest OR r.issued IS DISTINCT FROM s.last
 ORDER BY 1, 2
"""
_MISSING = """
SELECT count(*) FROM ledger_transaction t
 WHERE t.kind = 'parking' AND NOT EXISTS (SELECT FROM receipt r WHERE r.id = t.id)
"""


def by_district(connection: psycopg.Connection) -> list[Revenue]:
    """Revenue by district, from both books."""
    return [Revenue(*row) for row in connection.execute(_BY_DISTRICT).fetchall()]


def problems(connection: psycopg.Connection) -> list[str]:
    """Everything that is wrong, a line each. What was charged in the last seconds may have no receipt yet."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        found = [
            f"series {district} of {year}: {issued} receipts, the last number is {last}"
            for district, year, issued, last in connection.execute(_GAPS).fetchall()
        ]
        for (missing,) in connection.execute(_MISSING).fetchall():
            found += [f"{missing} charges have no receipt"] if missing else []
        found += [
            f"district {one.district}: receipts say {one.receipts} VND, the ledger {one.ledger}"
            for one in by_district(connection)
            if one.receipts != one.ledger
        ]
        for receipts, ledger in connection.execute(_VAT).fetchall():
            found += [f"VAT: receipts say {receipts} VND, the ledger {ledger}"] if receipts != ledger else []
    return found

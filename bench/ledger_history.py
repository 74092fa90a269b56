"""A ledger in bulk: what the service would have booked for all finished sessions of a database (bench/history.py).

Most sessions are paid from wallets, some from attendants' floats, some are owed, and part of that is paid later. Purses
are topped up now and then, and a few charges are reversed. What a purse paid had been held, and some holds are pending.

Rows go past the triggers into tables without their indexes, which are made afterwards. That they are what the service
would have left, `./iparking ledger check` proves.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from bench import history

# So much is in every purse at first: none is ever empty.
FUNDS = 10**9
ATTENDANTS = 200
# How many entries a session brings in the mean, with top-ups, payments of debts and reversals around it; and a purse.
ENTRIES_A_SESSION = 3.45
ENTRIES_A_PURSE = 2
# A session's transactions, entries and hold with their indexes, and what they are made from, when measured.
BYTES_A_SESSION = 1_400
# No trigger runs, no reference is looked up; checks hold.
LOADING = (
    "-c session_replication_role=replica -c synchronous_commit=off -c maintenance_work_mem=512MB -c work_mem=128MB"
)
FILLED = ("ledger_account", "ledger_transaction", "ledger_entry", "hold", "wallet")

_ACCOUNTS = """
INSERT INTO ledger_account (code)
VALUES ('vat'), ('bank'), ('clearing/vietqr'), ('clearing/stripe')
 UNION ALL
SELECT DISTINCT 'revenue/' || z.district_code || '/iparking' FROM zone z
 UNION ALL
SELECT k.kind || '/attendant-' || n
  FROM generate_series(0, %(attendants)s - 1) n, (VALUES ('float'), ('receivable')) k(kind)
 UNION ALL
SELECT k.kind || '/' || o.owner
  FROM (SELECT DISTINCT client AS owner FROM parking_session) o, (VALUES ('wallet'), ('receivable')) k(kind)
"""
# The die (0 to 255) says who pays: below 13 an attendant, below 39 nobody (half of them pay later), below 52 the wallet
# a part (and half of them the rest later), else the wallet. From 224 on it is topped up before.
_CHARGED = """
CREATE UNLOGGED TABLE charged AS
SELECT s.id, s.die, s.lot, s.started_at, s.at, p.id AS purse, p.kind, p.owner, o.id AS receivable, r.id AS revenue,
       s.fee, vat_net(s.fee, s.points) AS net,
       CASE WHEN s.die BETWEEN 13 AND 38 THEN 0 WHEN s.die BETWEEN 39 AND 51 THEN LEAST(s.fee, 10000) ELSE s.fee END
           AS drawn
  FROM (SELECT q.id, d.die, d.lot, q.started_at, q.received_at AS at, q.zone_code, q.fee,
               CASE WHEN d.die < 13 THEN 'attendant-' || d.lot %% %(attendants)s ELSE q.client END AS owner,
               v.points[width_bucket(q.received_at, v.froms)] AS points
          FROM parking_session q
         CROSS JOIN LATERAL (SELECT uuid_hash(q.id) & 255 AS die, uuid_hash(q.id) >> 8 & 1023 AS lot) d
         CROSS JOIN (SELECT array_agg(r.valid_from ORDER BY r.valid_from) AS froms,
                            array_agg(r.basis_points ORDER BY r.valid_from) AS points FROM vat_rate r) v
         WHERE q.fee > 0) s
  JOIN ledger_account p ON p.code = CASE WHEN s.die < 13 THEN 'float/' ELSE 'wallet/' END || s.owner
  JOIN ledger_account o ON o.code = 'receivable/' || s.owner
  JOIN zone z ON z.code = s.zone_code AND z.valid_to IS NULL
  JOIN ledger_account r ON r.code = 'revenue/' || z.district_code || '/iparking'
"""
# A row a transaction, in the order of their time, with up to four entries. The last digits of an id are the session's.
_BOOKINGS = """
CREATE UNLOGGED TABLE booking AS
SELECT CASE WHEN b.tail IS NULL THEN uuid_of(b.at)
            ELSE ('0' || to_hex((extract(epoch FROM b.at) * 1000)::bigint) || b.tail)::uuid END AS id,
       b.kind, b.reference, b.at,
       CASE b.kind WHEN 'reversal' THEN
            ('0' || to_hex((extract(epoch FROM b.charged_at) * 1000)::bigint) || b.tail)::uuid END AS reverses,
       b.purse, b.drawn, b.receivable, b.owed, b.other, b.amount, b.vat
  FROM (SELECT NULL::text AS tail, CASE a.kind WHEN 'float' THEN 'float_topup' ELSE 'payment' END AS kind,
               a.code AS reference, f.at, f.at AS charged_at, a.id AS purse, -%(funds)s AS drawn,
               NULL::bigint AS receivable, 0::bigint AS owed, o.id AS other, %(funds)s AS amount, 0::bigint AS vat
          FROM ledger_account a
          JOIN ledger_account o ON o.code = CASE a.kind WHEN 'float' THEN 'bank' ELSE 'clearing/vietqr' END
         CROSS JOIN (SELECT min(at) - interval '1 day' AS at FROM charged) f
         WHERE a.kind IN ('wallet', 'float')
         UNION ALL
        SELECT substr(c.id::text, 14), t.kind, t.reference, c.at + t.later, c.at, c.purse, t.drawn,
               c.receivable, t.owed, t.other, t.amount, t.vat
          FROM charged c
         CROSS JOIN (SELECT max(id) FILTER (WHERE code = 'clearing/vietqr') AS vietqr,
                            max(id) FILTER (WHERE code = 'clearing/stripe') AS stripe FROM ledger_account) o
         CROSS JOIN LATERAL (VALUES
               (true, interval '0',
                'parking', c.id::text, c.drawn, c.fee - c.drawn, c.revenue, -c.net, c.net - c.fee),
               (c.die >= 224, interval '-2 hours',
                'payment', 'VQ' || c.id, -200000, 0, o.vietqr, 200000, 0),
               (c.die BETWEEN 26 AND 38, interval '1 hour',
                'payment', 'ST' || c.id, 0, -c.fee, o.stripe, c.fee, 0),
               (c.die BETWEEN 46 AND 51 AND c.fee > c.drawn, interval '1 hour',
                'arrears', c.id::text, c.fee - c.drawn, c.drawn - c.fee, NULL, 0, 0),
               (c.die BETWEEN 52 AND 223 AND c.lot < 2, interval '1 day',
                'reversal', c.id || '/void', -c.fee, 0, c.revenue, c.net, c.fee - c.net))
               t(is_made, later, kind, reference, drawn, owed, other, amount, vat)
         WHERE t.is_made) b
 ORDER BY 1
"""
_TRANSACTIONS = """
INSERT INTO ledger_transaction (id, kind, reference, at, reverses) SELECT id, kind, reference, at, reverses FROM booking
"""
_ENTRIES = """
INSERT INTO ledger_entry
SELECT b.id, e.account_id, e.amount
  FROM booking b
 CROSS JOIN (SELECT id AS vat FROM ledger_account WHERE code = 'vat') v
 CROSS JOIN LATERAL (VALUES (b.purse, b.drawn), (b.receivable, b.owed), (b.other, b.amount), (v.vat, b.vat))
       e(account_id, amount)
 WHERE e.amount <> 0
"""
_HOLDS = """
INSERT INTO hold (id, owner, kind, amount, state, captured, created_at, expires_at, ended_at)
SELECT c.id, c.owner, c.kind, c.drawn, 'captured', c.drawn, c.started_at, c.started_at + interval '2 days', c.at
  FROM charged c WHERE c.drawn > 0
 UNION ALL
SELECT uuid_of(l.at), a.owner, a.kind, 50000, 'pending', NULL, l.at, l.at + interval '2 days', NULL
  FROM ledger_account a, (SELECT max(at) AS at FROM charged) l WHERE a.kind IN ('wallet', 'float') AND a.id % 50 < 2
"""
_WALLETS = """
INSERT INTO wallet (owner, kind, balance, owed, held)
SELECT a.owner, a.purse, COALESCE(sum(a.balance), 0), COALESCE(sum(a.owed), 0), COALESCE(max(h.amount), 0)
  FROM (SELECT x.owner, CASE x.kind WHEN 'float' THEN 'float' ELSE 'wallet' END AS purse,
               CASE WHEN x.kind <> 'receivable' THEN -e.amount ELSE 0 END AS balance,
               CASE WHEN x.kind = 'receivable' THEN e.amount ELSE 0 END AS owed
          FROM ledger_account x
          LEFT JOIN (SELECT account_id, sum(amount) AS amount FROM ledger_entry GROUP BY 1) e ON e.account_id = x.id
         WHERE x.owner IS NOT NULL) a
  LEFT JOIN (SELECT owner, kind, sum(amount) AS amount FROM hold WHERE state = 'pending' GROUP BY 1, 2) h
    ON h.owner = a.owner AND h.kind = a.purse
 GROUP BY 1, 2
"""


def sessions_for(entries: int) -> int:
    """How many sessions bring so many entries, or a few more."""
    purses = min(history.CLIENTS, entries // 10) + ATTENDANTS
    return max(int((entries - ENTRIES_A_PURSE * purses) / ENTRIES_A_SESSION), 1)


def kept(url: str, sessions: int) -> int | None:
    """The number of entries of a ledger that was filled from so many sessions as it would be now; None: it was not."""
    with psycopg.connect(url) as connection:
        note = connection.execute("SELECT obj_description('ledger_entry'::regclass, 'pg_class')").fetchone()
        if note != (_note(sessions),):
            return None
        return _entries(connection)


def _note(sessions: int) -> str:
    """What a ledger is made from, in short."""
    text = "".join((_ACCOUNTS, _CHARGED, _BOOKINGS, _TRANSACTIONS, _ENTRIES, _HOLDS, _WALLETS))
    return f"bench {hashlib.sha256(text.encode()).hexdigest()} {sessions}"


def _entries(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM ledger_entry").fetchone()
    assert row is not None
    return int(row[0])


def fill(admin_url: str, sessions: int) -> int:
    """Book all finished sessions of a database whose ledger is empty, as its superuser; the number of entries.

    `sessions` is how many they are, for `kept`.
    """
    with psycopg.connect(admin_url, autocommit=True, options=LOADING) as connection:
        for statement in (_ACCOUNTS, "ANALYZE ledger_account", _CHARGED, _BOOKINGS):
            _execute(connection, statement)
        with _without_indexes(connection, "ledger_transaction", "ledger_entry"):
            # Two statements at a time, one a core.
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(partial(_run, admin_url), ((_TRANSACTIONS, _HOLDS), (_ENTRIES,))))
            connection.execute("DROP TABLE charged, booking")
        connection.execute(_WALLETS)
        connection.execute(f"VACUUM (ANALYZE) {', '.join(FILLED)}")
        connection.execute(sql.SQL("COMMENT ON TABLE ledger_entry IS {}").format(sql.Literal(_note(sessions))))
        return _entries(connection)


def _run(admin_url: str, statements: Sequence[LiteralString]) -> None:
    with psycopg.connect(admin_url, autocommit=True, options=LOADING) as connection:
        for statement in statements:
            _execute(connection, statement)


def _execute(connection: psycopg.Connection, statement: LiteralString) -> None:
    given: dict[str, Any] = {"funds": FUNDS, "attendants": ATTENDANTS}
    connection.execute(psycopg.ClientCursor(connection).mogrify(statement, given) if "%(" in statement else statement)


# What may be left out for a while: keys that no other table refers to, and plain indexes.
_DEFINITIONS = """
SELECT x.indrelid::regclass::text, x.indexrelid::regclass::text, pg_get_indexdef(x.indexrelid),
       pg_get_constraintdef(c.oid)
  FROM pg_index x
  LEFT JOIN pg_constraint c ON c.conindid = x.indexrelid AND c.conrelid = x.indrelid AND c.contype IN ('p', 'u')
 WHERE x.indrelid = ANY (%s::regclass[])
   AND NOT EXISTS (SELECT FROM pg_constraint f WHERE f.contype = 'f' AND f.conindid = x.indexrelid)
 ORDER BY x.indexrelid
"""


@contextmanager
def _without_indexes(connection: psycopg.Connection, *tables: str) -> Iterator[None]:
    """Drop indexes and keys of tables, and make them anew in the end as they were."""
    found = connection.execute(_DEFINITIONS, (list(tables),)).fetchall()
    for table, index, _, key in found:
        drop = "ALTER TABLE {} DROP CONSTRAINT {}" if key else "DROP INDEX {1}"
        connection.execute(sql.SQL(drop).format(sql.Identifier(table), sql.Identifier(index)))
    yield
    for table, index, definition, key in found:
        make = sql.SQL(f"ALTER TABLE {{}} ADD CONSTRAINT {{}} {key}" if key else definition)
        connection.execute(make.format(sql.Identifier(table), sql.Identifier(index)))

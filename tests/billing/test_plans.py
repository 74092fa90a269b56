"""Holds and charges look every row up, also where their plans were made before the tables had any rows."""

from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Engine

from billing import ledger
from tests.billing.money import NOW, charge, hold

# So many other drivers have money put aside, and so few holds and wallets are a hold and a charge of three to read.
MANY, FEW = 3_000, 40
READ = """SELECT sum(seq_tup_read + idx_tup_fetch)::integer FROM pg_stat_xact_user_tables
           WHERE relname IN ('hold', 'wallet')"""
CROWD = """
INSERT INTO ledger_account (code)
SELECT 'wallet/other-' || n FROM generate_series(1, %(many)s) n UNION ALL
SELECT 'receivable/other-' || n FROM generate_series(1, %(many)s) n;
INSERT INTO hold (id, owner, amount, created_at, expires_at)
SELECT gen_random_uuid(), 'other-' || n, 1, %(now)s, %(now)s + n * interval '1 second'
  FROM generate_series(1, %(many)s) n
"""


@pytest.fixture
def connection(engine: Engine) -> Iterator[psycopg.Connection]:
    """A service's connection; nothing gathers statistics of the tables while it is open."""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        tables = ("hold", "wallet", "ledger_account", "ledger_transaction", "ledger_entry")
        for table in tables:
            connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
        connection.execute(f"VACUUM ANALYZE {', '.join(tables)}")  # as where nothing ever was
        yield connection
        for table in tables:
            connection.execute(f"ALTER TABLE {table} RESET (autovacuum_enabled)")


def rows_read(connection: psycopg.Connection, *owners: str) -> dict[str, int]:
    """Put money of these drivers aside and charge them, the first more than that; how many rows each verb read."""
    ledger.fund(connection, owners, 1_000, NOW)
    with connection.transaction():
        before = connection.execute(READ).fetchone()
        ids = [hold(connection, owner, 100)[0] for owner in owners]
        placed = connection.execute(READ).fetchone()
        fees = [250, *[100] * (len(owners) - 1)]
        charge(connection, [(*one, "wallet", fee) for *one, fee in zip(ids, owners, fees, strict=True)], NOW)
        charged = connection.execute(READ).fetchone()
    assert [ledger.wallet(connection, owner).balance for owner in owners] == [1_000 - fee for fee in fees]
    assert before is not None and placed is not None and charged is not None
    return {"hold": placed[0] - before[0], "charge": charged[0] - placed[0]}


def test_plans_made_on_empty_tables_serve_full_ones(connection: psycopg.Connection) -> None:
    rows_read(connection, "A1", "A2", "A3")
    connection.execute(CROWD, {"many": MANY, "now": NOW})
    read = rows_read(connection, "B1", "B2", "B3")
    assert max(read.values()) <= FEW, read

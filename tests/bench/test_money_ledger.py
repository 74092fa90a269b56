"""The ledger that its check is measured on: whole, with every shape that the service books; and how it is measured."""

import os
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.errors import CheckViolation

from app.commands.ledger import prove
from app.stack import Stack, prepare_database
from bench import ledger_history, money_ledger
from bench.memory import Peak

ENTRIES = 60_000
SCHEMA = """
SELECT indrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = ANY (%(tables)s::regclass[])
 UNION ALL
SELECT conrelid::regclass::text, conname || pg_get_constraintdef(oid) || convalidated FROM pg_constraint
 WHERE conrelid = ANY (%(tables)s::regclass[])
 UNION ALL
SELECT tgrelid::regclass::text, CASE WHEN tgisinternal THEN tgfoid::regproc::text ELSE tgname END || tgenabled::text
  FROM pg_trigger WHERE tgrelid = ANY (%(tables)s::regclass[])
 ORDER BY 1, 2
"""


@pytest.fixture(autouse=True)
def other_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that a developer has kept, on the same server, stays."""
    monkeypatch.setattr(money_ledger, "DATABASE", "bench_ledger_short")


@pytest.fixture
def kept(stack: Stack) -> Iterator[dict]:
    """What a short run found, which left its database."""
    yield money_ledger.ledger_check(stack, ENTRIES, keep=True)
    stack.drop_database(money_ledger.DATABASE)


def test_loaded_ledger_is_whole_and_has_every_shape(stack: Stack, kept: dict) -> None:
    sessions = ledger_history.sessions_for(ENTRIES)
    with psycopg.connect(stack.database_url(money_ledger.DATABASE), autocommit=True) as connection:
        proofs = {one.name: one for one in prove(connection)}
        assert [one for one in proofs.values() if one.wrong] == []
        assert [proofs[name].checked for name in ("parking_fees", "vat", "sessions_charged")] == [sessions] * 3
        assert proofs["reversals"].checked > 0 and proofs["never_overdrawn"].checked > sessions
        kinds = {row[0] for row in connection.execute("SELECT DISTINCT kind FROM ledger_transaction")}
        assert kinds == {"arrears", "float_topup", "parking", "payment", "reversal"}
        per_charge = """SELECT count(*) FROM ledger_entry e JOIN ledger_transaction t ON t.id = e.transaction_id
            WHERE t.kind = 'parking' GROUP BY t.id"""
        assert {row[0] for row in connection.execute(per_charge)} == {3, 4}
        purses = "SELECT sum(owed), sum(held), count(*) FILTER (WHERE kind = 'float') FROM wallet"
        assert all(connection.execute(purses).fetchone() or [0])
        assert connection.execute("SELECT count(*) FROM ledger_entry").fetchone() == (kept["entries"],)
        with pytest.raises(CheckViolation, match="does not balance"):
            connection.execute("INSERT INTO ledger_transaction VALUES (gen_random_uuid(), 'x', 'x', now())")


def test_loaded_ledger_has_the_schema_of_the_service(stack: Stack, kept: dict) -> None:
    found = []
    for name in (money_ledger.DATABASE, "bench_ledger_empty"):
        with psycopg.connect(prepare_database(stack, name)) as connection:
            found.append(connection.execute(SCHEMA, {"tables": list(ledger_history.FILLED)}).fetchall())
    stack.drop_database("bench_ledger_empty")
    assert found[0] == found[1] and len(found[0]) > 40


def test_ledger_that_is_there_is_taken_as_it_is_but_no_other(stack: Stack, kept: dict) -> None:
    assert kept["client_mb"] > 20 and kept["backends_mb"] > 5 and kept["shared_mb"] > 5
    again = money_ledger.ledger_check(stack, ENTRIES, keep=True)
    assert again["entries"] == kept["entries"] and again["ok"]
    url = stack.database_url(money_ledger.DATABASE)
    assert ledger_history.kept(url, ledger_history.sessions_for(ENTRIES)) == kept["entries"]
    assert ledger_history.kept(url, ledger_history.sessions_for(ENTRIES) + 1) is None


def test_sessions_are_enough_for_the_entries_that_are_asked_for() -> None:
    assert ledger_history.sessions_for(10_000_000) == 2_666_550
    assert ledger_history.sessions_for(1) == 1


def test_memory_is_that_of_the_command_and_of_what_sorts_for_it(database_url: str) -> None:
    rows = "SELECT n::text FROM generate_series(1, 1000000) n"
    with psycopg.connect(database_url, autocommit=True) as watching, psycopg.connect(database_url) as sorting:
        database = urlsplit(database_url).path.strip("/")
        with Peak(watching, database, os.getpid()) as idle:
            idle._look()
        sorting.execute("SET work_mem = '256MB'")
        with Peak(watching, database, os.getpid()) as peak:
            sorting.execute(f'SELECT count(*) FROM ({rows} ORDER BY n::text COLLATE "C" OFFSET 0) s')
    assert peak.backends > idle.backends + 60 and peak.client > 20
    assert peak.total == peak.client + peak.backends and peak.shared > 0


def test_what_cannot_be_looked_at_is_told(database_url: str) -> None:
    with psycopg.connect(database_url) as closed:
        pass
    with pytest.raises(psycopg.OperationalError), Peak(closed, "none", os.getpid()) as peak:
        peak._thread.join()


def test_short_run_has_every_figure_and_leaves_nothing(stack: Stack) -> None:
    found = money_ledger.ledger_check(stack, 10)
    assert found["ok"] and found["entries"] >= 10 and found["seconds"] > 0
    assert found["mb"] == pytest.approx(found["client_mb"] + found["backends_mb"], abs=0.2)
    with psycopg.connect(stack.admin_url()) as connection:
        assert connection.execute("SELECT FROM pg_database WHERE datname = %s", [money_ledger.DATABASE]).rowcount == 0

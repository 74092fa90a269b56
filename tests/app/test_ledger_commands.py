"""`./iparking ledger check` and `export`: what they find, and that beancount's own checker agrees."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from app import archiving
from app.commands.ledger import ledger as command
from billing import beancount, city_share, ledger
from billing.check import PASSES
from tests.billing.money import NOW, book, hold, name, top_up
from tests.conftest import Client, SteppedClock, emptying
from zones import archive

BEAN_CHECK = Path(sys.executable).parent / "bean-check"
ODD = 'Trần "Đức" \\ /a:b-2D\n{x} 💰'


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a verb of `ledger` on the test's database."""

    @contextmanager
    def opened(_: str) -> Iterator[psycopg.Connection]:
        with closing(archive.connect(database_url)) as connection:
            yield connection

    monkeypatch.setattr(archiving, "opened", opened)
    return lambda *arguments: CliRunner().invoke(command, list(arguments))


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def busy(client: Client, clock: SteppedClock, connection: psycopg.Connection) -> Client:
    """A day of the service, and what is booked beside it: every kind of hold, a debt, a reversal, an odd name."""
    body = {"zone": "HK-001", "vehicle_class": "car"}
    for number, (method, minutes) in enumerate([("wallet", 60), ("wallet", None), ("cash", None), ("wallet", 120)]):
        body |= {"plate": f"30A-12{number}.45", "payment_method": method, "minutes": minutes}
        started = client.post("/v1/sessions", json=body, role=f"driver-{number + 1}").json
        if number < 3:
            clock.advance(minutes=35)
            client.post(f"/v1/sessions/{started['id']}/stop", json={}, role=f"driver-{number + 1}")
    top_up(connection, ODD, 5_000)
    hold(connection, ODD, 1_000, hours=1)
    ledger.expire_holds(connection, NOW + timedelta(hours=2), 10)
    ledger.reverse(connection, book(connection, {"refund": 7, f"wallet/{ODD}": -7}), name("r"), NOW + timedelta(days=1))
    book(connection, {f"float/{ODD}": -900, "bank": 900})
    assert city_share.book(connection, NOW + timedelta(days=1)) == 1
    return client


def proofs(result: Result) -> dict[str, dict]:
    return {one["name"]: one for one in json.loads(result.stdout)["invariants"]}


def test_all_that_the_service_booked_is_proved(run, busy: Client):
    result = run("check", "--json")
    assert result.exit_code == 0, result.output
    found = proofs(result)
    assert [one for one in found.values() if one["wrong"]] == []
    assert [found[name]["checked"] for name in ("parking_fees", "sessions_charged", "vat")] == [3, 3, 3]
    assert found["reversals"]["checked"] == 1 and found["never_overdrawn"]["checked"] > 10
    assert "sum to zero" in run("check").output.replace("\n", " ")


@contextmanager
def broken(connection: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """What no service can do: past the triggers, as the superuser of the tests may."""
    connection.execute("SET session_replication_role = replica")
    yield connection
    connection.execute("SET session_replication_role = origin")


ENTRY_OF = "transaction_id = (SELECT id FROM ledger_transaction WHERE kind = '{}' ORDER BY id DESC LIMIT 1)"
ACCOUNT = "account_id = (SELECT id FROM ledger_account WHERE code = '{}')"
PARKING = ENTRY_OF.format("parking")
DAMAGE = {
    "an amount": (f"UPDATE ledger_entry SET amount = amount - 1 WHERE {PARKING} AND {ACCOUNT.format('vat')}",
                  {"balanced", "parking_fees", "vat"}),
    "between revenue and VAT": (
        f"UPDATE ledger_entry SET amount = amount + CASE WHEN {ACCOUNT.format('vat')} THEN 1 ELSE -1 END "
        f"WHERE {PARKING} AND amount < 0", {"vat", "city_share"}),
    "a fee": ("UPDATE parking_session SET fee = fee + 1 WHERE payment_method = 'cash'", {"parking_fees"}),
    "a lost charge": (f"WITH t AS (DELETE FROM ledger_entry WHERE {PARKING} AND amount < 0 RETURNING *) "
                      "UPDATE ledger_transaction SET reference = 'x' WHERE id IN (SELECT transaction_id FROM t)",
                      {"balanced", "sessions_charged", "vat", "city_share"}),
    "what was earned": (
        f"UPDATE ledger_entry SET account_id = (SELECT id FROM ledger_account WHERE code = "
        f"CASE WHEN {ACCOUNT.format('vat')} THEN 'refund' ELSE 'bank' END) WHERE {PARKING} AND amount < 0",
        {"parking_fees", "vat", "city_share", "refund_account"}),
    "a charge's reference": ("UPDATE ledger_transaction SET reference = upper(reference) WHERE id = "
                             "(SELECT id FROM ledger_transaction WHERE kind = 'parking' ORDER BY id LIMIT 1)",
                             {"sessions_charged"}),
    "a transaction without entries": ("INSERT INTO ledger_transaction VALUES (gen_random_uuid(), 'x', 'x', now())",
                                      {"balanced"}),
    "a wallet's balance": ("UPDATE wallet SET balance = balance + 1 WHERE owner = 'driver-1'", {"wallet_balances"}),
    "a lost wallet": ("DELETE FROM wallet WHERE owner = 'driver-1'", {"wallet_balances"}),
    "a debt": ("UPDATE wallet SET owed = 0 WHERE owed > 0", {"wallet_debts"}),
    "what is held": ("UPDATE wallet SET held = held - 1 WHERE held > 0", {"wallet_holds"}),
    "a lost hold": ("DELETE FROM hold WHERE state = 'pending'", {"wallet_holds"}),
    "an account": ("UPDATE ledger_account SET code = 'revenue/002' WHERE code = 'revenue/002/iparking'",
                   {"account_codes", "city_share"}),
    "the city's share of a day": ("UPDATE city_share_day SET share = share - 1", {"city_share"}),
    "revenue that was shared": ("UPDATE city_share_day SET revenue = revenue + 1", {"city_share"}),
    "a lost day of the city's": ("DELETE FROM city_share_day", {"city_share"}),
    "a booking of the city's share": ("UPDATE ledger_transaction SET reference = 'x' WHERE kind = 'city_share'",
                                      {"city_share"}),
    "a reversal": (f"UPDATE ledger_entry SET amount = amount * 2 WHERE {ENTRY_OF.format('reversal')}",
                   {"reversals", "wallet_balances", "refund_account"}),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_named(run, busy: Client, connection: psycopg.Connection, damage: str):
    statement, expected = DAMAGE[damage]
    with broken(connection):
        assert connection.execute(statement).rowcount  # type: ignore[arg-type]
    result = run("check", "--json")
    assert result.exit_code == 1
    wrong = {name: one for name, one in proofs(result).items() if one["wrong"]}
    assert set(wrong) == expected
    assert all(one["first"] for one in wrong.values())
    assert run("check").exit_code == 1


def test_wallet_that_was_below_zero_for_a_while_is_found(run, connection: psycopg.Connection):
    """Its end is right; nothing but the order of booking tells."""
    owner = name()
    with broken(connection):
        connection.execute("INSERT INTO ledger_account (code) VALUES (%s)", [f"wallet/{owner}"])
        connection.execute("INSERT INTO wallet VALUES (%s, 'wallet', 3)", [owner])
        for amount in (-5, 8):
            book(connection, {f"wallet/{owner}": -amount, "bank": amount})
    found = proofs(run("check", "--json"))
    assert {name for name, one in found.items() if one["wrong"]} == {"never_overdrawn"}
    assert found["never_overdrawn"]["first"][0].startswith(f"wallet/{owner} after transaction ")


def test_sessions_from_before_the_ledger_are_not_asked_for(run, busy: Client, connection: psycopg.Connection):
    with broken(connection):
        connection.execute(
            "INSERT INTO parking_session SELECT (jsonb_populate_record(s, %s)).* FROM parking_session s LIMIT 1",
            [json.dumps({"id": str(uuid4()), "received_at": "2017-12-01T00:00:00Z"})],
        )
    assert run("check", "--json").exit_code == 0


def test_every_invariant_has_a_damage():
    """Those of receipts and refunds are damaged in test_receipt_check.py, of refunds by card in test_given_back.py."""
    others = ("refunds", "receipts", "districts", "papers", "series")
    elsewhere = {one.name for name in others for one in PASSES[name]} | {"refunds_by_card"}
    invariants = {one.name for each in PASSES.values() for one in each}
    assert invariants - elsewhere == set().union(*(expected for _, expected in DAMAGE.values())) | {"never_overdrawn"}


def bean_check(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BEAN_CHECK, "--no-cache", str(file)], capture_output=True, text=True)


def test_beancount_accepts_an_export_and_no_other(run, busy: Client, tmp_path: Path):
    file = tmp_path / "ledger.beancount"
    result = run("export", str(file), "--json")
    assert result.exit_code == 0, result.output
    text = file.read_text()
    assert json.loads(result.stdout)["transactions"] == text.count("\n  id: ")
    checked = bean_check(file)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    wallet = beancount.account_name("wallet/driver-1")
    assert re.search(rf"balance {re.escape(wallet)} -\d+ VND", text)
    for found in (rf"(balance {re.escape(wallet)} -\d+)\d VND", r"(\n  Income:\S+  -\d+)\d VND"):
        file.write_text(re.sub(found, r"\g<1>3 VND", text, count=1))
        assert bean_check(file).returncode == 1, found


def test_export_of_an_empty_ledger_is_accepted(run, connection: psycopg.Connection, tmp_path: Path):
    with broken(connection):
        connection.execute(emptying(["ledger_entry", "ledger_transaction", "ledger_account", "wallet"]))
    file = tmp_path / "empty.beancount"
    assert run("export", str(file)).exit_code == 0
    assert bean_check(file).returncode == 0


def test_failed_export_leaves_the_earlier_one(run, busy: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "ledger.beancount"
    file.write_text("earlier")
    monkeypatch.setattr(beancount, "_transactions", lambda _: iter([1]))
    assert run("export", str(file)).exit_code == 1
    assert file.read_text() == "earlier" and list(tmp_path.iterdir()) == [file]


@settings(max_examples=50)
@given(st.sampled_from(sorted(beancount.ROOTS)), st.lists(st.text(), max_size=3))
def test_account_names_are_legal_and_tell_their_code(kind: str, parts: list[str]):
    code = "/".join([kind, *parts])
    found = beancount.account_name(code)
    assert beancount.account_code(found) == code
    assert re.fullmatch(r"[A-Z][A-Za-z0-9-]*(:[A-Z0-9][A-Za-z0-9-]*)+", found)

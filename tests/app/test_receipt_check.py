"""What `./iparking ledger check` proves of receipts, e-invoices and refunds, and how it names what is not so."""

import json
from collections.abc import Callable

import psycopg
import pytest
from click.testing import Result

from app import receipts
from app.resources import Resources
from billing.check import PASSES
from tests.app.giving_back import all_receipts_are_due
from tests.app.test_ledger_commands import broken, connection, proofs, run
from tests.app.test_receipts import KERB, OTHER_KERB, park, plates
from tests.app.test_refunds import ask, decide, void
from tests.conftest import Client, SteppedClock

__all__ = ["connection", "run"]
Run = Callable[..., Result]
# What receipts say of a district without VAT, and whether the ledger says the same.
BY_DISTRICT = """
SELECT r.district, sum(r.amount - r.vat)::bigint, sum(r.amount - r.vat) = (
           SELECT -sum(e.amount) FROM ledger_entry e JOIN ledger_account a ON a.id = e.account_id
            WHERE a.code = 'revenue/' || r.district || '/iparking')
  FROM receipt r GROUP BY r.district ORDER BY 1"""


@pytest.fixture
def booked(client: Client, clock: SteppedClock) -> Client:
    """Three sessions of two districts that were charged; of one a part was given back, another was voided."""
    ended = [park(client, clock, plate, zone=(KERB, OTHER_KERB)[n % 2]) for n, plate in enumerate(plates(3))]
    decide(client, ask(client, {"id": ended[0]}).json, amount=10_000)
    void(client, {"id": ended[1]})
    return client


@pytest.fixture
def papered(booked: Client, resources: Resources, connection: psycopg.Connection) -> Client:
    """With receipts and credit notes for all."""
    assert receipts.issue(resources) == 5
    all_receipts_are_due(connection)
    return booked


def test_all_papers_are_proved(run: Run, papered: Client, connection: psycopg.Connection):
    result = run("check", "--json")
    assert result.exit_code == 0, result.output
    found = {name: (one["checked"], one["wrong"]) for name, one in proofs(result).items()}
    assert {name: found[name] for name in ("refunds", "receipts_issued", "receipt_amounts", "credit_notes")} == {
        "refunds": (2, 0), "receipts_issued": (5, 0), "receipt_amounts": (5, 0), "credit_notes": (2, 0),
    }  # fmt: skip
    assert (found["einvoices"], found["numbers"]) == ((5, 0), (3, 0)), "two districts, and all e-invoices"
    assert connection.execute(BY_DISTRICT).fetchall() == [("001", 0, True), ("002", 46_297, True)]


def test_what_has_no_receipt_is_found_once_its_time_has_come(
    run: Run, booked: Client, resources: Resources, connection: psycopg.Connection
):
    result = run("check", "--json")
    assert result.exit_code == 0 and proofs(result)["receipts_issued"]["checked"] == 0, "the job was not there yet"
    all_receipts_are_due(connection)
    result = run("check", "--json")
    missing, districts = (one for one in proofs(result).values() if one["wrong"])
    assert (result.exit_code, missing["name"], missing["wrong"]) == (1, "receipts_issued", 5)
    assert (districts["name"], districts["wrong"]) == ("receipt_revenue", 1), "of the other one all was taken back"
    assert json.loads(result.stdout)["ok"] is False and "VND of revenue" in missing["first"][0]
    receipts.sweep(resources)
    assert run("check", "--json").exit_code == 0


def test_gap_is_named_with_its_series(run: Run, papered: Client, connection: psycopg.Connection):
    connection.execute("UPDATE number_series SET last = 7 WHERE name = 'receipt/002'")
    found = proofs(run("check", "--json"))["numbers"]
    assert found["first"] == ["receipt/002 of 2026: 3 issued, the last number is 7"]
    assert "receipt/002 of 2026" in run("check").output


A_RECEIPT = "(SELECT id FROM receipt WHERE kind = 'receipt' ORDER BY district, number LIMIT 1)"
A_NOTE = "(SELECT id FROM receipt WHERE kind = 'credit_note' ORDER BY district, number LIMIT 1)"
DAMAGE = {
    "an amount": (f"UPDATE receipt SET amount = amount + 1 WHERE id = {A_RECEIPT}",
                  {"receipt_amounts", "receipt_revenue"}),
    "between revenue and VAT": (f"UPDATE receipt SET vat = vat + 1 WHERE id = {A_RECEIPT}",
                                {"receipt_amounts", "receipt_revenue"}),
    "a district": ("UPDATE receipt SET district = '009' WHERE district = '001'", {"receipt_amounts", "numbers"}),
    "a lost receipt": (f"DELETE FROM receipt WHERE id = {A_NOTE}", {"receipts_issued", "receipt_revenue", "numbers"}),
    "a receipt of nothing": (
        "INSERT INTO receipt SELECT gen_random_uuid(), kind, district, 2027, 1, client, gen_random_uuid(), NULL, "
        "charged_at, issued_at, amount, vat, content FROM receipt WHERE kind = 'receipt' LIMIT 1",
        {"receipt_revenue", "einvoices", "numbers"}),
    "a note of another's": ("UPDATE receipt SET session_id = gen_random_uuid() WHERE kind = 'credit_note'",
                            {"credit_notes"}),
    "a gap": ("UPDATE number_series SET last = last + 1 WHERE name = 'receipt/002'", {"numbers"}),
    "a skipped number": ("UPDATE receipt SET number = number + 5 WHERE (district, number) = ('002', 2)",
                         {"numbers", "einvoices"}),
    "a lost e-invoice": (f"DELETE FROM einvoice WHERE id = {A_RECEIPT}", {"einvoices", "numbers"}),
    "an e-invoice's number": (f"UPDATE einvoice SET number = number + 7 WHERE id = {A_RECEIPT}", {"einvoices"}),
    "a refund's amount": ("UPDATE refund SET amount = amount - 1, to_purse = to_purse - 1 WHERE kind = 'refund'",
                          {"refunds"}),
    "a refund's time": ("UPDATE refund SET decided_at = decided_at + interval '1 day'", {"refunds"}),
    "two refunds of all": (
        "INSERT INTO refund SELECT (jsonb_populate_record(r, jsonb_build_object('id', gen_random_uuid(), 'kind', "
        "'refund'))).* FROM refund r WHERE r.kind = 'void'", {"refunds"}),
    "a void that was not booked": (
        "UPDATE ledger_transaction SET reference = 'x' WHERE kind = 'reversal'", {"refunds"}),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_named(run: Run, papered: Client, connection: psycopg.Connection, damage: str):
    statement, expected = DAMAGE[damage]
    with broken(connection):
        connection.execute(statement)  # type: ignore[call-overload]
    result = run("check", "--json")
    wrong = {name: one for name, one in proofs(result).items() if one["wrong"]}
    assert (result.exit_code, set(wrong)) == (1, expected)
    assert all(one["first"] for one in wrong.values())


def test_every_invariant_has_a_damage():
    invariants = {one.name for name in ("refunds", "receipts", "districts", "papers", "series") for one in PASSES[name]}
    assert invariants == set().union(*(expected for _, expected in DAMAGE.values()))

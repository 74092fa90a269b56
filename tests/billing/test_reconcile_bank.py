"""Withdrawals beside the debits of the bank's statement, whichever day either of them has."""

import csv
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import date, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import Connection
from sqlalchemy import Engine

from billing import ledger, withdrawals
from billing.reconcile import Result, lists, reconcile
from billing.reconcile.days import HANOI
from billing.reconcile.debits import named
from billing.reconcile.lists import Line
from billing.withdrawals import BankAccount, Withdrawal

DAY = date(2026, 10, 14)
NOON = datetime(2026, 10, 14, 12, tzinfo=HANOI)
NIGHT = datetime(2026, 10, 16, 3, tzinfo=HANOI)
HOUR, ONE = timedelta(hours=1), timedelta(days=1)
ACCOUNT = BankAccount("970436", "0011001234567", "NGUYEN VAN A")
TO_ACCOUNT = "Rut tien vi 0011001234567 NGUYEN VAN A"
Debit = tuple[str, datetime, int, str]


@pytest.fixture
def url(engine: Engine) -> str:
    return engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
def db(url: str) -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        ledger.fund(connection, ["driver-1"], 10_000_000, NOON - 9 * ONE)
        yield connection


def ask(db: Connection, amount: int = 200_000, at: datetime = NOON - 3 * HOUR, to: BankAccount = ACCOUNT) -> UUID:
    return withdrawals.request(db, "driver-1", amount, to, at).id


def paid(db: Connection, amount: int = 200_000, at: datetime = NOON, reference: str = "FT1") -> UUID:
    asked = ask(db, amount, at - 3 * HOUR)
    withdrawals.pay(db, asked, reference, at)
    return asked


def write(path: Path, debits: list[Debit], *days: date) -> Path:
    """A statement; a credit at the noon of each of `days` says that it reaches so far."""
    with path.open("w", newline="", encoding="utf-8") as file:
        written = csv.writer(file)
        written.writerow(["transaction_id", "at", "debit", "credit", "description"])
        for transaction, at, amount, text in debits:
            written.writerow([transaction, f"{at.astimezone(HANOI):%d/%m/%Y %H:%M:%S}", amount, "", text])
        for day in days:
            written.writerow([f"IN{day}", f"{day:%d/%m/%Y} 12:00:00", "", 1_000, "lai"])
    return path


def run(db: Connection, statement: Path | None, day: date = DAY, now: datetime = NIGHT) -> Result:
    with ExitStack() as stack:
        read = lists.of_statement(statement, day) if statement else [lists.of_credits("bank", day)]
        for one in read:
            stack.enter_context(one)
        return reconcile(db, day, read, None, now)


def kinds(result: Result) -> list[tuple[str, str, int]]:
    return [(one.kind, one.state, one.amount) for one in result.differences if one.gateway == "bank"]


def unexplained(result: Result) -> int:
    return result.as_dict()["unexplained"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "bank.csv"


# --- matched ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("reference", "text"), [
    ("FT1", "chuyen khoan"), (" ft1 ", "chuyen khoan"), ("by hand", TO_ACCOUNT), ("x", "CK 0011 0012 34567; A"),
])  # fmt: skip
def test_debit_is_matched_by_its_reference_or_by_amount_and_account(db, file, reference, text):
    paid(db, reference=reference)
    result = run(db, write(file, [("FT1", NOON + HOUR, 200_000, text)]))
    bank = result.gateways[0]
    assert kinds(result) == [] and unexplained(result) == 0
    assert (bank.gateway, bank.source, bank.payments, bank.theirs, bank.ours) == ("bank", "file", 1, -200_000, -200_000)
    assert ledger.balance(db, "clearing/bank") == 0 and ledger.balance(db, "bank") == -200_000


def test_debits_take_nothing_from_what_transfers_brought_to_the_bank(db, file):
    paid(db)
    run(db, write(file, [("FT1", NOON, 200_000, ""), ("FT2", NOON, 7_000, "phi")], DAY))
    assert ledger.balance(db, "bank") == -200_000
    assert ledger.balance(db, "clearing/vietqr") == 0


def test_fee_under_the_same_reference_is_a_debit_of_its_own(db, file):
    paid(db)
    result = run(db, write(file, [("FT1", NOON, 11_000, "phi"), ("FT1", NOON, 200_000, "")]))
    assert kinds(result) == [("bank_debit", "open", -11_000)] and unexplained(result) == 0


def test_one_debit_may_pay_several_withdrawals(db, file):
    for amount in (100_000, 200_000, 300_000):
        paid(db, amount)
    result = run(db, write(file, [("FT1", NOON, 600_000, "chi lo")]))
    assert kinds(result) == [] and result.gateways[0].payments == 3


def test_equal_withdrawals_to_one_account_are_matched_one_to_one(db, file):
    for n in range(3):
        paid(db, reference=f"x{n}")
    debits = [(f"FT{n}", NOON + n * HOUR, 200_000, TO_ACCOUNT) for n in range(4)]
    assert kinds(run(db, write(file, debits))) == [("bank_debit", "open", -200_000)]


# --- differences ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["tien dien", "CK 10011001234567", "CK 00110012345678"])
def test_debit_for_no_withdrawal_is_listed(db, file, text):
    ask(db)
    result = run(db, write(file, [("FT9", NOON, 200_000, text)]))
    (one,) = result.differences
    assert (one.kind, one.state, one.reference) == ("bank_debit", "open", "bank/FT9") and one.next_step
    assert unexplained(result) == 0


def test_debit_before_the_withdrawal_was_asked_for_is_not_its(db, file):
    ask(db, at=NOON)
    assert kinds(run(db, write(file, [("FT9", NOON - HOUR, 200_000, TO_ACCOUNT)]))) == [
        ("bank_debit", "open", -200_000)
    ]


def test_wrong_amount_is_listed_under_its_withdrawal(db, file):
    asked = paid(db)
    result = run(db, write(file, [("FT1", NOON, 20_000, TO_ACCOUNT)]))
    (one,) = result.differences
    assert (one.kind, one.reference, one.theirs, one.ours) == (
        "withdrawal_wrong_amount", str(asked), -20_000, -200_000
    )  # fmt: skip
    assert one.amount == 180_000 and "send the rest" in one.next_step and unexplained(result) == 0


def test_sent_and_not_noted_is_explained_once_it_is_noted(db, file):
    asked = ask(db)
    statement = write(file, [("FT1", NOON, 200_000, TO_ACCOUNT)])
    result = run(db, statement)
    assert kinds(result) == [("withdrawal_not_noted", "open", -200_000)]
    assert result.differences[0].reference == str(asked) and "note the withdrawal" in result.differences[0].next_step
    withdrawals.pay(db, asked, "FT1", NOON + 4 * ONE)
    again = run(db, statement)
    assert kinds(again) == [("late", "explained", -200_000)] and unexplained(again) == 0


def test_sent_and_rejected_is_listed(db, file):
    asked = ask(db)
    withdrawals.reject(db, asked, NOON)
    result = run(db, write(file, [("FT1", NOON + HOUR, 200_000, TO_ACCOUNT)]))
    assert kinds(result) == [("withdrawal_rejected", "open", -200_000)] and unexplained(result) == 0
    assert ledger.wallet(db, "driver-1").balance == 10_000_000


def test_withdrawal_that_three_days_statements_lack_was_not_sent(db, file):
    paid(db)
    assert kinds(run(db, write(file, [], DAY))) == [("late", "open", 200_000)]
    result = run(db, write(file, [], DAY - ONE, DAY + ONE))
    assert kinds(result) == [("withdrawal_not_sent", "open", 200_000)] and unexplained(result) == 0
    assert "ask the bank" in result.differences[0].next_step


def test_withdrawal_that_statements_day_by_day_lack_was_not_sent(db, file):
    paid(db)
    for n in (-1, 1, 0):
        result = run(db, write(file, [], DAY + n * ONE), DAY + n * ONE)
    assert kinds(result) == [("withdrawal_not_sent", "open", 200_000)]


def test_withdrawal_whose_row_disagrees_with_its_bookings_is_unexplained(db, file):
    asked = paid(db)
    db.execute(
        "UPDATE withdrawal SET state = 'requested', bank_reference = NULL, decided_at = NULL WHERE id = %s", [asked]
    )
    result = run(db, None)
    assert ("withdrawal_row", "open", -200_000) in kinds(result) and unexplained(result) == 200_000


# --- two days ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("statement_of", ["each day", "the week"])
@pytest.mark.parametrize("days", [-1, 1])
def test_debit_of_the_day_before_or_behind_explains_both(db, file, statement_of, days):
    """The bank dates a transfer to another day than the operator notes it on."""
    asked = ask(db, at=NOON - 2 * ONE)
    debit = ("FT1", NOON + days * ONE, 200_000, TO_ACCOUNT)
    results = {}
    for n in (-1, 0, 1):
        day = DAY + n * ONE
        if n == 0:
            withdrawals.pay(db, asked, "FT1", NOON)
        if statement_of == "the week":
            write(file, [debit], DAY - ONE, DAY + ONE)
        else:
            write(file, [debit] if n == days else [], day)
        results[n] = run(db, file, day)
        assert unexplained(results[n]) == 0
    left = db.execute(
        "SELECT kind, state FROM reconciliation_difference WHERE gateway = 'bank' ORDER BY day"
    ).fetchall()
    assert {state for _, state in left} == {"explained"} and len(left) == 2
    assert kinds(results[0])[0][2] == 200_000


def test_two_days_at_once_settle_each_others_differences(db, url, tmp_path):
    for n in range(20):
        paid(db, 100_000 + n, reference=f"FT{n}")
    debits = [(f"FT{n}", NOON + ONE, 100_000 + n, "") for n in range(20)]
    files = {DAY: write(tmp_path / "0.csv", [], DAY), DAY + ONE: write(tmp_path / "1.csv", debits)}
    for _ in range(3):
        ready = threading.Barrier(2)

        def one(day: date, ready: threading.Barrier = ready) -> None:
            with psycopg.connect(url, autocommit=True) as connection:
                ready.wait(20)
                run(connection, files[day], day)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(one, files))
    run(db, files[DAY])
    rows = db.execute("SELECT day, state, count(*), sum(amount) FROM reconciliation_difference "
                      "WHERE gateway = 'bank' GROUP BY day, state ORDER BY day").fetchall()  # fmt: skip
    assert rows == [(DAY, "explained", 20, 2_000_190), (DAY + ONE, "explained", 20, -2_000_190)]


# --- without a statement ----------------------------------------------------------------------------------------------
def test_without_a_statement_operators_word_counts_and_a_statement_counts_more(db, file):
    paid(db)
    told = run(db, None)
    assert kinds(told) == [] and told.gateways[0].source == "credits" and told.gateways[0].payments == 1
    assert kinds(run(db, write(file, [], DAY))) == [("late", "open", 200_000)]
    assert run(db, None).gateways[0].source == "file"


# --- any debits, any withdrawals --------------------------------------------------------------------------------------
amounts = st.sampled_from([10_000, 20_000, 30_000])
references = st.sampled_from(["FT1", "FT2", "FT3"])
debits = st.builds(
    lambda amount, reference, hour, text: Line("", "debit", f"bank/{reference}", reference, None, -amount, 0,
                                               NOON + hour * HOUR, text),
    amounts, references, st.integers(-30, 30), st.sampled_from(["", TO_ACCOUNT]),
)  # fmt: skip
asked = st.builds(
    lambda amount, state, reference: Withdrawal(
        uuid4(), "driver-1", amount, *ACCOUNT, state, reference if state == "paid" else None, NOON - 9 * HOUR,
        None if state == "requested" else NOON),
    amounts, st.sampled_from(withdrawals.STATES), references,
)  # fmt: skip


@given(st.lists(debits, max_size=6), st.lists(asked, max_size=6))
def test_every_debit_is_kept_and_every_withdrawal_is_matched_at_most_once(lines, candidates):
    lines = [line._replace(id=str(n)) for n, line in enumerate(lines)]
    found = list(named(lines, candidates))
    assert sum(line.amount for line in found) == sum(line.amount for line in lines)
    assert len({line.id for line in found}) == len(found)
    matched = [line.name for line in found if line.booking == "withdrawal_paid"]
    assert len(set(matched)) == len(matched) and set(matched) <= {str(one.id) for one in candidates}
    assert sorted(named(lines[::-1], candidates[::-1])) == sorted(found)

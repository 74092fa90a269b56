"""The ledger: what it refuses, what it books once, and what it says as of any time; on real PostgreSQL."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from fractions import Fraction
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.errors import CheckViolation, RestrictViolation

from billing import ledger
from billing.errors import LedgerConflict, UnknownTransaction
from billing.ledger import Posting
from tests.billing.money import NOW, book, name, together, top_up

SAME_DATABASE = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
AMOUNTS = st.integers(-(10**12), 10**12).filter(bool)


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def entries_of(connection: psycopg.Connection, transaction_id: UUID) -> dict[str, int]:
    query = """SELECT a.code, e.amount FROM ledger_entry e JOIN ledger_account a ON a.id = e.account_id
        WHERE e.transaction_id = %s"""
    return dict(connection.execute(query, [transaction_id]).fetchall())


@st.composite
def balanced(draw: st.DrawFn) -> dict[str, int]:
    """Entries of up to five of six accounts without an owner, which sum to zero."""
    codes = draw(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=5, unique=True))
    amounts = draw(st.lists(AMOUNTS, min_size=len(codes) - 1, max_size=len(codes) - 1).filter(lambda some: sum(some)))
    return {f"revenue/{code}": amount for code, amount in zip(codes, [*amounts, -sum(amounts)], strict=True)}


@SAME_DATABASE
@given(st.lists(st.tuples(balanced(), st.integers(0, 5)), min_size=1, max_size=6))
def test_balance_as_of_any_time_is_the_sum_of_what_was_booked_by_then(
    connection: psycopg.Connection, booked: list[tuple[dict[str, int], int]]
):
    own = name("own")
    postings = [
        Posting(
            "test", name("r"), NOW + timedelta(seconds=at), {f"{code}/{own}": amount for code, amount in one.items()}
        )
        for one, at in booked
    ]
    ids = ledger.post(connection, postings)
    assert [entries_of(connection, one) for one in ids] == [dict(posting.entries) for posting in postings]
    for at in range(-1, 6):
        instant, expected = NOW + timedelta(seconds=at), Counter[str]()
        for posting in postings:
            if posting.at <= instant:
                expected.update(posting.entries)
        for code in {code for posting in postings for code in posting.entries}:
            assert ledger.balance(connection, code, instant) == expected[code]


@SAME_DATABASE
@given(balanced(), AMOUNTS)
def test_what_does_not_sum_to_zero_is_refused(connection: psycopg.Connection, entries: dict[str, int], off: int):
    reference = name("r")
    entries = {code: amount for code, amount in entries.items() if amount}
    first = next(iter(entries))
    with pytest.raises(CheckViolation, match="does not balance"):
        book(connection, entries | {first: entries[first] + off}, reference=reference)
    assert connection.execute("SELECT FROM ledger_transaction WHERE reference = %s", [reference]).rowcount == 0


def test_transaction_without_entries_is_refused(connection: psycopg.Connection):
    with pytest.raises(CheckViolation, match="0 entries"):
        ledger.post(connection, [Posting("test", name("r"), NOW, {})])


def test_entry_that_is_added_later_is_refused(connection: psycopg.Connection):
    transaction = book(connection, {"bank": 5, "funding": -5})
    vat = connection.execute("SELECT id FROM ledger_account WHERE code = 'vat'").fetchone()
    if vat is None:
        vat = connection.execute("INSERT INTO ledger_account (code) VALUES ('vat') RETURNING id").fetchone()
    with pytest.raises(CheckViolation, match="does not balance"):
        connection.execute("INSERT INTO ledger_entry VALUES (%s, %s, 1)", [transaction, vat and vat[0]])
    assert entries_of(connection, transaction) == {"bank": 5, "funding": -5}


def test_it_is_looked_at_when_the_transaction_ends_and_not_before(connection: psycopg.Connection):
    """Deferred: entries may come in several statements."""
    connection.execute("BEGIN")
    transaction = book(connection, {"bank": 5})
    connection.execute("INSERT INTO ledger_account (code) VALUES (%s)", [f"revenue/{transaction}"])
    add = "INSERT INTO ledger_entry SELECT %s, id, %s FROM ledger_account WHERE code = %s"
    connection.execute(add, [transaction, -4, f"revenue/{transaction}"])
    with pytest.raises(CheckViolation, match="sum 1"):
        connection.execute("COMMIT")
    assert entries_of(connection, transaction) == {}


@pytest.mark.parametrize("table", ["ledger_account", "ledger_transaction", "ledger_entry"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET {}", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_what_is_booked_stays(connection: psycopg.Connection, table: str, statement: str):
    book(connection, {"bank": 5, "funding": -5})
    column = {"ledger_account": "code = code", "ledger_transaction": "at = at", "ledger_entry": "amount = amount"}
    with pytest.raises(RestrictViolation, match="append-only"):
        connection.execute(statement.format(table, column[table]))  # type: ignore[arg-type]


@pytest.mark.parametrize("code", ["", "purse/x", "wallet", "wallet/", "float/", "Wallet/x"])
def test_account_of_no_known_kind_or_of_nobody_is_refused(connection: psycopg.Connection, code: str):
    with pytest.raises(CheckViolation):
        book(connection, {code: 5, "funding": -5})


@SAME_DATABASE
@given(balanced(), balanced())
def test_a_kind_and_reference_are_booked_once(
    connection: psycopg.Connection, entries: dict[str, int], others: dict[str, int]
):
    reference = name("r")
    transaction = book(connection, entries, reference=reference)
    assert book(connection, entries, NOW + timedelta(hours=1), reference=reference) == transaction
    if others != entries:
        with pytest.raises(LedgerConflict):
            book(connection, others, reference=reference)
    assert entries_of(connection, transaction) == entries
    assert book(connection, others, kind="other", reference=reference) != transaction


def test_the_same_twice_in_one_call_is_booked_once(connection: psycopg.Connection):
    posting = Posting("test", name("r"), NOW, {"bank": 5, "funding": -5})
    first, second = ledger.post(connection, [posting, posting])
    assert first == second


def test_conflict_of_one_leaves_nothing_of_the_others(connection: psycopg.Connection):
    taken, fresh = name("r"), name("r")
    book(connection, {"bank": 5, "funding": -5}, reference=taken)
    postings = [Posting("test", one, NOW, {"bank": 6, "funding": -6}) for one in (fresh, taken)]
    with pytest.raises(LedgerConflict):
        ledger.post(connection, postings)
    assert connection.execute("SELECT FROM ledger_transaction WHERE reference = %s", [fresh]).rowcount == 0


@SAME_DATABASE
@given(balanced())
def test_reversal_is_the_opposite_and_comes_once(connection: psycopg.Connection, entries: dict[str, int]):
    own = name("own")
    transaction = book(connection, {f"{code}/{own}": amount for code, amount in entries.items()})
    reference = name("r")
    reversal = ledger.reverse(connection, transaction, reference, NOW + timedelta(seconds=1))
    assert ledger.reverse(connection, transaction, reference, NOW + timedelta(seconds=2)) == reversal
    with pytest.raises(LedgerConflict):
        ledger.reverse(connection, transaction, name("r"), NOW)
    for code, amount in entries.items():
        assert ledger.balance(connection, f"{code}/{own}", NOW) == amount
        assert ledger.balance(connection, f"{code}/{own}") == 0


def test_what_was_never_booked_cannot_be_reversed(connection: psycopg.Connection):
    with pytest.raises(UnknownTransaction):
        ledger.reverse(connection, uuid4(), name("r"), NOW)


def test_wallet_shows_a_credit_as_money_and_a_debt_as_owed(connection: psycopg.Connection):
    owner = name("Lê Thị Đào/")
    assert ledger.wallet(connection, owner) == ledger.Wallet()
    book(connection, {"bank": 700, f"wallet/{owner}": -700})
    book(connection, {f"receivable/{owner}": 300, "revenue/002/iparking": -300})
    assert ledger.wallet(connection, owner) == ledger.Wallet(balance=700, owed=300)
    assert ledger.balance(connection, f"wallet/{owner}") == -700


def test_wallet_and_float_of_one_name_are_two(connection: psycopg.Connection):
    owner = name()
    book(connection, {"bank": 700, f"float/{owner}": -700})
    with pytest.raises(CheckViolation):
        book(connection, {f"wallet/{owner}": 1, "bank": -1})
    with pytest.raises(CheckViolation):
        book(connection, {f"float/{owner}": 701, "bank": -701})
    assert ledger.wallet(connection, owner).balance == 0


@SAME_DATABASE
@given(fees=st.lists(st.integers(0, 10**11), min_size=50, max_size=50), points=st.integers(0, 10_000))
def test_vat_is_what_exact_arithmetic_says(connection: psycopg.Connection, fees: list[int], points: int):
    """A price includes its VAT: net = price ÷ (1 + rate), half a đồng up."""
    rows = connection.execute("SELECT vat_net(f, %s) FROM unnest(%s::bigint[]) f", [points, fees]).fetchall()
    exact = [Fraction(fee) / (1 + Fraction(points, 10_000)) for fee in fees]
    assert [row[0] for row in rows] == [int(one + Fraction(1, 2)) for one in exact]


def test_many_spenders_of_one_wallet_take_no_more_than_is_in_it(database_url: str, connection: psycopg.Connection):
    owner = name()
    top_up(connection, owner, 1_000)

    def spend(own: psycopg.Connection) -> int:
        spent = 0
        for _ in range(25):
            try:
                book(own, {f"wallet/{owner}": 7, "bank": -7})
                spent += 7
            except CheckViolation:
                pass
        return spent

    spent = together(database_url, [spend] * 8)
    assert sum(spent) == 1_000 // 7 * 7
    assert ledger.wallet(connection, owner).balance == 1_000 - sum(spent)


def test_transfers_in_opposite_orders_wait_for_each_other_but_never_in_a_circle(
    database_url: str, connection: psycopg.Connection
):
    """Also where both open the same accounts: they are new in every round."""
    for _ in range(15):
        one, other = sorted((name(), name()))

        def move(own: psycopg.Connection, giver: str, taker: str) -> None:
            both = {f"wallet/{giver}": -5, "bank": 5}, {f"receivable/{taker}": 5, "funding": -5}
            ledger.post(own, [Posting("test", name("r"), NOW, entries) for entries in both])
            book(own, {f"wallet/{giver}": 3, f"wallet/{taker}": -3})

        works = [lambda own, a=one, b=other: move(own, a, b), lambda own, a=one, b=other: move(own, b, a)] * 2
        assert together(database_url, works) == [None] * 4
        for owner in (one, other):
            assert ledger.wallet(connection, owner) == ledger.Wallet(balance=10, owed=10)


def test_same_reference_from_many_threads_is_booked_once(database_url: str, connection: psycopg.Connection):
    owner, reference = name(), name("r")
    ids = together(database_url, [lambda own: book(own, {"bank": 9, f"wallet/{owner}": -9}, reference=reference)] * 6)
    assert len(set(ids)) == 1
    assert ledger.wallet(connection, owner).balance == 9


def test_killed_in_the_middle_leaves_nothing(database_url: str, connection: psycopg.Connection):
    owner = name()
    top_up(connection, owner, 100)
    with psycopg.connect(database_url) as victim:
        book(victim, {f"wallet/{owner}": 60, "bank": -60})
        connection.execute("SELECT pg_terminate_backend(%s, 10000)", [victim.info.backend_pid])
        with pytest.raises(psycopg.OperationalError):
            victim.commit()
    assert ledger.wallet(connection, owner) == ledger.Wallet(balance=100)
    assert ledger.balance(connection, f"wallet/{owner}") == -100
    book(connection, {f"wallet/{owner}": 100, "bank": -100})

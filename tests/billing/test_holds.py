"""Wallet money that is put aside at a start and taken at the end: every state, every split, and many at once."""

import random
from collections.abc import Iterator, Sequence
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.errors import CheckViolation

from billing import ledger
from billing.errors import InsufficientFunds, OwesTooMuch
from tests.billing.money import NOW, book, charge, hold, hold_states, name, raise_hold, together, top_up

SAME_DATABASE = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def owner(connection: psycopg.Connection) -> str:
    """A driver with 1,000 đồng."""
    owner = name()
    top_up(connection, owner, 1_000)
    return owner


def drawn(connection: psycopg.Connection, sessions: Sequence[UUID], owner: str) -> list[tuple[int, int]]:
    """By session: what the wallet gave, and what is owed."""
    query = """SELECT COALESCE(sum(e.amount) FILTER (WHERE a.kind = 'wallet'), 0)::bigint,
               COALESCE(sum(e.amount) FILTER (WHERE a.kind = 'receivable'), 0)::bigint
          FROM ledger_transaction t JOIN ledger_entry e ON e.transaction_id = t.id
          JOIN ledger_account a ON a.id = e.account_id AND a.owner = %s
         WHERE t.kind = 'parking' AND t.reference = %s"""
    return [connection.execute(query, [owner, str(one)]).fetchone() for one in sessions]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("held", "fee", "state", "takes", "owes"),
    [
        (400, 400, ("captured", 400), 400, 0),
        (400, 150, ("captured", 150), 150, 0),  # stopped early
        (400, 0, ("released", None), 0, 0),
        (400, 900, ("captured", 900), 900, 0),  # an open session went on: the rest comes out of what is free
        (400, 1_300, ("captured", 1_000), 1_000, 300),
    ],
)
def test_hold_ends_as_the_session_does(
    connection: psycopg.Connection, owner: str, held: int, fee: int, state: tuple, takes: int, owes: int
):
    ids = hold(connection, owner, held)
    assert ledger.wallet(connection, owner) == ledger.Wallet(1_000, held)
    charge(connection, [(ids[0], owner, "wallet", fee)])
    assert hold_states(connection, ids) == [state]
    assert ledger.wallet(connection, owner) == ledger.Wallet(1_000 - takes, 0, owes)
    charge(connection, [(ids[0], owner, "wallet", fee)])
    assert ledger.wallet(connection, owner) == ledger.Wallet(1_000 - takes, 0, owes)


def test_session_without_a_hold_draws_what_is_free(connection: psycopg.Connection, owner: str):
    other = hold(connection, owner, 700)
    charge(connection, [(uuid4(), owner, "wallet", 500)])
    assert ledger.wallet(connection, owner) == ledger.Wallet(700, 700, 200)
    assert hold_states(connection, other) == [("pending", None)]


def test_other_methods_leave_the_wallet_alone(connection: psycopg.Connection, owner: str):
    paid = hold(connection, owner, 100)
    charge(connection, [(uuid4(), owner, "cash", 500), (paid[0], owner, "wallet", 100), (uuid4(), owner, "card", 50)])
    assert ledger.wallet(connection, owner) == ledger.Wallet(900, 0, 550)


def test_hold_that_the_wallet_lacks_is_refused_whole(connection: psycopg.Connection, owner: str):
    with pytest.raises(CheckViolation, match="does not cover"):
        hold(connection, owner, 600, 401)
    assert ledger.wallet(connection, owner) == ledger.Wallet(1_000)
    hold(connection, owner, 600, 400)
    with pytest.raises(CheckViolation):  # what is held cannot be spent otherwise
        book(connection, {f"wallet/{owner}": 1, "bank": -1})


def test_hold_is_raised_as_far_as_the_wallet_goes(connection: psycopg.Connection, owner: str):
    ids = hold(connection, owner, 300)
    raise_hold(connection, owner, ids[0], 1_000)
    raise_hold(connection, owner, ids[0], 200)  # never lowered
    assert ledger.wallet(connection, owner).held == 1_000
    with pytest.raises(InsufficientFunds):
        raise_hold(connection, owner, ids[0], 1_001)
    assert ledger.wallet(connection, owner).held == 1_000
    charge(connection, [(ids[0], owner, "wallet", 10)])
    raise_hold(connection, owner, ids[0], 500)  # it is over
    assert ledger.wallet(connection, owner) == ledger.Wallet(990)


def test_first_hold_of_a_session_that_began_free_is_placed_as_at_a_start(connection: psycopg.Connection, owner: str):
    free = hold(connection, owner, 0)[0]
    with pytest.raises(InsufficientFunds):
        raise_hold(connection, owner, free, 1_001)
    charge(connection, [(uuid4(), owner, "cash", 11)])
    with pytest.raises(OwesTooMuch):
        raise_hold(connection, owner, free, 1_000, owed_limit=10)
    assert ledger.wallet(connection, owner) == ledger.Wallet(1_000, 0, 11)
    for amount in (900, 1_000):
        raise_hold(connection, owner, free, amount, owed_limit=11)
        assert ledger.wallet(connection, owner) == ledger.Wallet(1_000, amount, 11)
    charge(connection, [(free, owner, "wallet", 400)])
    assert hold_states(connection, [free]) == [("captured", 400)]
    assert ledger.wallet(connection, owner) == ledger.Wallet(600, 0, 11)


def test_hold_expires_at_its_instant_and_not_before(connection: psycopg.Connection, owner: str):
    """[created, expires): at `expires_at` it is over."""
    ids = hold(connection, owner, 300, hours=1) + hold(connection, owner, 200, hours=2)
    end = NOW + timedelta(hours=1)
    assert ledger.expire_holds(connection, end - timedelta(microseconds=1), 100) == 0
    assert ledger.expire_holds(connection, end, 100) == 1
    assert hold_states(connection, ids) == [("expired", None), ("pending", None)]
    assert ledger.wallet(connection, owner) == ledger.Wallet(1_000, 200)
    assert ledger.expire_holds(connection, end, 100) == 0
    charge(connection, [(ids[0], owner, "wallet", 250)], end)  # its session ended after all
    assert hold_states(connection, ids)[0] == ("expired", None)
    assert ledger.wallet(connection, owner) == ledger.Wallet(750, 200)


SESSIONS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(0, 400),
        st.integers(0, 400),
        st.integers(0, 700),
        st.sampled_from(["wallet", "wallet", "cash"]),
    ),
    min_size=1,
    max_size=6,
)


@SAME_DATABASE
@given(st.tuples(st.integers(1, 1_500), st.integers(1, 1_500)), SESSIONS)
def test_sessions_of_a_group_share_what_is_free_in_their_order(
    connection: psycopg.Connection, funds: tuple[int, int], sessions: list[tuple[int, int, int, int, str]]
):
    """Whatever was held (also for the first time by an extension) and is owed by two drivers' sessions that end in one
    call, each takes its own hold first, then of what is free (holds that were larger than their fee included), the
    first session first; the rest is owed."""
    owners = [name(), name()]
    for owner, amount in zip(owners, funds, strict=True):
        top_up(connection, owner, amount)
    free, charged = list(funds), []
    for who, wanted, longer, fee, method in sessions:
        first = min(wanted, free[who]) if method == "wallet" else 0
        session = hold(connection, owners[who], first)[0]
        held = min(max(first, longer), free[who]) if method == "wallet" else 0
        if held > first:
            raise_hold(connection, owners[who], session, held)
        assert ledger.wallet(connection, owners[who]).available == free[who] - held
        free[who] -= held
        charged.append((session, who, held, fee if method == "wallet" else 0, fee))
    for _, who, held, own, _ in charged:
        free[who] += max(held - own, 0)
    expected = []
    for _, who, held, own, fee in charged:
        takes = min(own, held) + min(max(own - held, 0), free[who])
        free[who] -= takes - min(own, held)
        expected.append((takes, fee - takes))
    charge(
        connection,
        [(one[0], owners[who], method, fee)
         for one, (who, *_, fee, method) in zip(charged, sessions, strict=True)],
    )  # fmt: skip
    found = [drawn(connection, [session], owners[who])[0] for session, who, *_ in charged]
    assert found == expected
    for number, owner in enumerate(owners):
        owed = sum(owes for (_, who, *_), (_, owes) in zip(charged, expected, strict=True) if who == number)
        assert ledger.wallet(connection, owner) == ledger.Wallet(free[number], 0, owed)


def test_vat_and_revenue_of_a_session_are_its_fee(connection: psycopg.Connection, owner: str):
    before = ledger.balance(connection, "vat"), ledger.balance(connection, "revenue/005/iparking")
    charge(connection, [(uuid4(), owner, "cash", 25_000), (uuid4(), owner, "cash", 1)], district="005")
    assert before[0] - ledger.balance(connection, "vat") == 1_852  # 8 % from July 2023 to the end of 2026
    assert before[1] - ledger.balance(connection, "revenue/005/iparking") == 23_148 + 1


def test_many_at_once_never_overdraw_and_never_wait_in_a_circle(database_url: str, connection: psycopg.Connection):
    """Eight threads start, extend, stop, expire, top up and spend for three drivers, in groups of any order."""
    owners = [name() for _ in range(3)]
    for owner in owners:
        top_up(connection, owner, 2_000)

    def act(own: psycopg.Connection, seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(12):
            some = dice.sample(owners, dice.randint(1, 3))
            try:
                started = [(hold(own, one, dice.randint(0, 300), hours=dice.choice([1, 24]))[0], one) for one in some]
                raise_hold(own, started[0][1], started[0][0], dice.randint(1, 400))
                ledger.expire_holds(own, NOW + timedelta(hours=2), 100)
                ended = [
                    (one, client, dice.choice(["wallet", "cash"]), dice.randint(0, 500)) for one, client in started
                ]
                charge(own, ended, district=name("new-"))
                book(own, {f"wallet/{some[0]}": 50, f"wallet/{dice.choice(owners)}x": -50})
            except (CheckViolation, InsufficientFunds):
                top_up(own, some[-1], 200)

    assert together(database_url, [lambda own, seed=seed: act(own, seed) for seed in range(8)]) == [None] * 8
    for owner in owners:
        found = ledger.wallet(connection, owner)
        pending = "SELECT COALESCE(sum(amount), 0) FROM hold WHERE owner = %s AND state = 'pending'"
        assert found.balance == -ledger.balance(connection, f"wallet/{owner}") >= found.held
        assert found.owed == ledger.balance(connection, f"receivable/{owner}")
        assert connection.execute(pending, [owner]).fetchone() == (found.held,)


def test_second_charge_of_a_session_touches_nothing(connection: psycopg.Connection, owner: str):
    """Neither its hold nor what is free, also where it would be more than before."""
    one = hold(connection, owner, 100)[0]
    for fee in (100, 400):
        charge(connection, [(one, owner, "wallet", fee), (uuid4(), owner, "wallet", 0)], NOW + timedelta(hours=1))
        assert ledger.wallet(connection, owner) == ledger.Wallet(900)
    assert hold_states(connection, [one]) == [("captured", 100)]

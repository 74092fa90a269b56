"""Payments: forward only, whatever comes first, late or twice; and what the ledger learns of them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from billing import given_back, ledger, payments
from billing.errors import LedgerConflict, UnknownPayment
from billing.gateways import Refund
from billing.ledger import Posting
from billing.payments import OPEN, New, Payment

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
STATES = ("unknown", "requires_action", "authorized", "failed", "expired", "void", "paid")
AMOUNT = 50_000


@pytest.fixture
def connection(engine: Engine) -> Iterator[psycopg.Connection]:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def owe(connection: psycopg.Connection, client: str, amount: int) -> None:
    entries = {f"receivable/{client}": amount, "revenue/002/iparking": -amount}
    ledger.post(connection, [Posting("parking", str(uuid4()), NOW, entries)])


def create(connection: psycopg.Connection, purpose: str = "session", client: str = "driver-1") -> Payment:
    new = payments.new_id(NOW)
    session = uuid4() if purpose == "session" else None
    payments.create(connection, [New(new, client, purpose, session, "card", AMOUNT, str(new), NOW)])
    return payments.find(connection, new)


def come(connection: psycopg.Connection, payment: Payment, state: str, minute: int = 0) -> None:
    at = NOW + timedelta(minutes=minute)
    if state == "paid":
        payments.pay(connection, payment, AMOUNT, "stripe", at, f"pi_{payment.id}")
    else:
        payments.move(connection, payment, state, at)


def test_payment_is_written_once(connection):
    first = create(connection)
    payments.create(connection, [New(first.id, "other", "topup", None, "card", 1, first.reference, NOW)])
    assert payments.find(connection, first.id) == first == payments.find_by_reference(connection, first.reference)
    assert payments.of_session(connection, first.session_id) == [first]
    with pytest.raises(UnknownPayment):
        payments.find(connection, uuid4())


@given(st.lists(st.sampled_from(STATES), min_size=1, max_size=6))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_news_moves_forward_only_and_money_that_came_wins(connection, news):
    client = f"driver-{uuid4()}"
    owe(connection, client, AMOUNT)
    payment, ranks = create(connection, client=client), []
    for minute, state in enumerate(news):
        come(connection, payment, state, minute)
        ranks.append(rank(payments.find(connection, payment.id).state))
    assert ranks == sorted(ranks)
    ended = payments.find(connection, payment.id)
    assert (ended.state == "paid") == ("paid" in news) == (ended.paid == AMOUNT)
    assert ledger.wallet(connection, client).owed == (0 if "paid" in news else AMOUNT)
    closed = [state for state in news if state not in OPEN]
    assert (ended.settled_at is None) == (ended.state in OPEN) and (bool(closed) or ended.state in OPEN)


def rank(state: str) -> int:
    order = {"created": 0, "unknown": 1, "requires_action": 2, "authorized": 3, "paid": 5}
    return order.get(state, 4)


def test_money_is_booked_once_and_another_amount_is_a_conflict(connection):
    owe(connection, "driver-1", AMOUNT)
    payment = create(connection)
    assert payments.pay(connection, payment, AMOUNT, "stripe", NOW, "pi_1")
    assert not payments.pay(connection, payment, AMOUNT, "stripe", NOW + timedelta(days=1), "pi_1")
    with pytest.raises(LedgerConflict):
        payments.pay(connection, payment, AMOUNT - 1, "stripe", NOW)
    assert ledger.balance(connection, "clearing/stripe") == AMOUNT
    assert payments.find_at_gateway(connection, "pi_1").settled_at == NOW


@pytest.mark.parametrize(("owed", "in_wallet"), [(AMOUNT + 1, 0), (AMOUNT, 0), (20_000, 30_000), (0, AMOUNT)])
def test_what_was_paid_in_another_way_meanwhile_goes_to_the_wallet(connection, owed, in_wallet):
    if owed:
        owe(connection, "driver-1", owed)
    payments.pay(connection, create(connection, "arrears"), AMOUNT, "stripe", NOW)
    has = ledger.wallet(connection, "driver-1")
    assert (has.balance, has.owed) == (in_wallet, owed - AMOUNT + in_wallet)


def test_topup_pays_no_more_of_what_is_owed_than_it_brought(connection):
    ledger.fund(connection, ["driver-1"], 100_000, NOW)
    owe(connection, "driver-1", AMOUNT + 10_000)
    payments.pay(connection, create(connection, "topup"), AMOUNT, "stripe", NOW)
    has = ledger.wallet(connection, "driver-1")
    assert (has.balance, has.owed) == (100_000, 10_000), "the rest of it may be meant to be paid in another way"


def test_topup_pays_what_is_owed_then_goes_to_the_wallet_and_leaves_it_when_it_is_given_back(connection):
    owe(connection, "driver-1", 10_000)
    payment = create(connection, "topup")
    payments.pay(connection, payment, AMOUNT, "stripe", NOW)
    has = ledger.wallet(connection, "driver-1")
    assert (has.balance, has.owed) == (AMOUNT - 10_000, 0)
    for _ in range(2):
        given_back.book(connection, payment, Refund("re_1", 20_000, "paid"), "stripe", NOW)
    assert ledger.wallet(connection, "driver-1").balance == AMOUNT - 30_000
    given_back.book(connection, payment, Refund("re_2", 30_000, "paid"), "stripe", NOW)
    has = ledger.wallet(connection, "driver-1")
    assert (has.balance, has.owed) == (0, 10_000), "what it had paid is owed again"
    assert ledger.balance(connection, "clearing/stripe") == ledger.balance(connection, "refund") == 0


def test_ids_are_of_their_time():
    made = [payments.new_id(NOW + timedelta(seconds=second)) for second in range(3)]
    assert made == sorted(made) and len(set(made)) == 3
    assert all(isinstance(one, UUID) and one.version == 7 for one in made)

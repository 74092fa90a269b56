"""Money that a driver sends by himself: booked once, to what he owes or to his wallet, whatever he sent and when."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from billing import ledger, references, transfers
from billing.errors import NothingOwed, UnknownCredit, UnknownPayment
from billing.gateways import vnpay
from billing.ledger import Posting
from billing.payments import Payment
from billing.transfers import Credit, Wanted
from tests.billing.money import is_blocked
from tests.billing.rate_examples import hanoi

NOW = hanoi("2026-11-26T09:00")
IN_TIME = NOW + timedelta(minutes=5)
ids = count(1)


@pytest.fixture
def url(engine: Engine) -> str:
    return engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
def db(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def owe(db: psycopg.Connection, amount: int, client: str = "driver-1") -> UUID:
    """A session that ended and was not paid."""
    session = uuid4()
    entries = {f"receivable/{client}": amount, "revenue/002/iparking": -amount}
    ledger.post(db, [Posting("parking", str(session), NOW, entries)])
    return session


def ask(db: psycopg.Connection, purpose: str, amount: int | None = None, method: str = "vietqr", **more) -> Payment:
    return transfers.create(db, Wanted("driver-1", purpose, method, amount, **more), NOW)


def credit(payment: Payment | None, amount: int, at=IN_TIME, transaction: str | None = None, **change) -> Credit:
    text = f"MBVCB.{payment.reference} chuyen tien" if payment else "chuyen tien"
    return Credit("vietqr", transaction or f"FT{next(ids)}", amount, at, text)._replace(**change)


def state(db: psycopg.Connection, payment: Payment) -> tuple[str, int | None]:
    found = transfers.find(db, payment.id, payment.client)
    return found.state, found.paid


def has(db: psycopg.Connection, client: str = "driver-1") -> tuple[int, int]:
    """Wallet and debt."""
    wallet = ledger.wallet(db, client)
    return wallet.balance, wallet.owed


def test_payment_waits_with_its_reference_and_its_time(db):
    payment = ask(db, "topup", 50_000)
    assert references.is_valid(payment.reference) and payment.state == "created" and payment.paid is None
    assert payment.expires_at == NOW + transfers.LIFETIMES["vietqr"]
    assert transfers.find(db, payment.id, "driver-1") == payment
    with pytest.raises(UnknownPayment):
        transfers.find(db, payment.id, "driver-2")


def test_top_up_reaches_the_wallet_and_pays_what_is_owed_first(db):
    owe(db, 25_000)
    payment = ask(db, "topup", 50_000)
    assert transfers.receive(db, credit(payment, 50_000), IN_TIME) == (payment.id, "driver-1", None, True, False)
    assert state(db, payment) == ("paid", 50_000) and has(db) == (25_000, 0)
    assert ledger.balance(db, "clearing/vietqr") == 50_000


def test_exact_payment_settles_a_session(db):
    session = owe(db, 25_000)
    owe(db, 10_000)
    payment = ask(db, "session", session_id=session)
    assert payment.amount == 25_000
    assert transfers.receive(db, credit(payment, 25_000), IN_TIME).note is None
    assert has(db) == (0, 10_000)
    with pytest.raises(NothingOwed):
        ask(db, "session", session_id=session)


def test_arrears_are_all_that_is_owed_or_a_part_of_it(db):
    owe(db, 25_000)
    owe(db, 10_000)
    assert [ask(db, "arrears", amount).amount for amount in (None, 20_000, 99_000)] == [35_000, 20_000, 35_000]


@pytest.mark.parametrize("purpose", ["arrears", "session"])
def test_nothing_owed_is_not_paid(db, purpose):
    other = owe(db, 25_000, "driver-2")
    for session in [None] if purpose == "arrears" else [uuid4(), other]:
        with pytest.raises(NothingOwed):
            ask(db, purpose, session_id=session)


def test_more_than_asked_leaves_the_rest_in_the_wallet(db):
    payment = ask(db, "session", session_id=owe(db, 25_000))
    assert transfers.receive(db, credit(payment, 30_000), IN_TIME).note == "more"
    assert state(db, payment) == ("paid", 30_000) and has(db) == (5_000, 0)


def test_less_than_asked_leaves_the_rest_owed_until_it_comes(db):
    session = owe(db, 25_000)
    payment = ask(db, "session", session_id=session)
    assert transfers.receive(db, credit(payment, 20_000), IN_TIME).note == "less"
    assert state(db, payment) == ("paid", 20_000) and has(db) == (0, 5_000)
    assert ask(db, "session", session_id=session).amount == 5_000
    assert transfers.receive(db, credit(payment, 5_000), IN_TIME).note == "again"
    assert state(db, payment) == ("paid", 25_000) and has(db) == (0, 0)


def test_credit_that_is_told_twice_is_booked_once(db):
    payment = ask(db, "topup", 50_000)
    first = credit(payment, 50_000)
    assert transfers.receive(db, first, IN_TIME).is_new
    cut = first._replace(description="PARK", at=NOW)  # told by another: the text is cut, the clock another
    for again in (first, cut):
        assert transfers.receive(db, again, IN_TIME) == (payment.id, "driver-1", None, False, False)
    assert transfers.receive(db, first._replace(amount=60_000), IN_TIME).differs
    assert has(db) == (50_000, 0) and state(db, payment) == ("paid", 50_000)


def test_second_transfer_is_money_too(db):
    payment = ask(db, "session", session_id=owe(db, 25_000))
    owe(db, 10_000)
    notes = [transfers.receive(db, credit(payment, 25_000), IN_TIME).note for _ in range(2)]
    assert notes == [None, "again"] and has(db) == (15_000, 0)
    assert state(db, payment) == ("paid", 50_000)


def test_late_transfer_still_settles_what_is_owed(db):
    payment = ask(db, "session", session_id=owe(db, 25_000))
    assert transfers.state_at(payment, payment.expires_at - timedelta(microseconds=1)) == "created"
    assert transfers.state_at(payment, payment.expires_at) == "expired"
    assert transfers.expire(db, payment.expires_at - timedelta(microseconds=1), 10) == 0
    assert transfers.expire(db, payment.expires_at, 10) == 1 and state(db, payment) == ("expired", None)
    assert transfers.receive(db, credit(payment, 25_000, payment.expires_at), payment.expires_at).note == "late"
    assert state(db, payment) == ("paid", 25_000) and has(db) == (0, 0)
    assert transfers.expire(db, NOW + timedelta(days=9), 10) == 0


def test_late_transfer_for_what_is_owed_no_more_goes_to_the_wallet(db):
    session = owe(db, 25_000)
    slow, quick = (ask(db, "session", session_id=session) for _ in range(2))
    transfers.receive(db, credit(quick, 25_000), IN_TIME)
    received = transfers.receive(db, credit(slow, 25_000, slow.expires_at), slow.expires_at)
    assert received.note == "late not_owed" and has(db) == (25_000, 0)


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (["chuyen tien"], "no_reference"),
        (["{0} {1}"], "several_references"),
        (["{2}"], "unknown_reference"),
    ],
)
def test_credit_of_nobody_is_kept_until_it_is_assigned(db, texts, why):
    known = [ask(db, "topup", 50_000).reference for _ in range(2)]
    (text,) = texts
    came = credit(None, 50_000, description=text.format(*known, references.new()))
    assert transfers.receive(db, came, IN_TIME) == (None, None, why, True, False)
    assert transfers.receive(db, came, IN_TIME) == (None, None, why, False, False)
    assert transfers.unmatched(db, 10) == [came] and ledger.balance(db, "clearing/vietqr") == 0
    transfers.assign(db, "vietqr", came.transaction, "driver-3", IN_TIME)
    assert transfers.unmatched(db, 10) == [] and has(db, "driver-3") == (50_000, 0)
    for transaction in (came.transaction, "FT-of-nobody"):
        with pytest.raises(UnknownCredit):
            transfers.assign(db, "vietqr", transaction, "driver-3", IN_TIME)
    assert not transfers.receive(db, came, IN_TIME).is_new and has(db, "driver-3") == (50_000, 0)


def test_card_payments_are_not_named_by_transfers(db):
    payment = ask(db, "topup", 50_000)
    db.execute("UPDATE payment SET method = 'card' WHERE id = %s", [payment.id])
    assert transfers.receive(db, credit(payment, 50_000), IN_TIME).note == "unknown_reference"


def test_payments_are_listed_newest_first_page_by_page(db):
    made = [ask(db, "topup", 10_000 + n) for n in range(5)]
    transfers.create(db, Wanted("driver-2", "topup", "vietqr", 1), NOW)
    seen: list[Payment] = []
    while page := transfers.of_client(db, "driver-1", seen[-1].id if seen else None, 2):
        seen += page
    assert {one.id for one in seen} == {one.id for one in made} and len(seen) == 5
    assert [one.created_at for one in seen] == sorted((one.created_at for one in seen), reverse=True)


def test_transfers_of_one_debt_at_once_settle_it_once(db, url):
    session = owe(db, 25_000)
    payments = [ask(db, "session", session_id=session) for _ in range(4)]
    credits = [credit(payment, 25_000) for payment in payments for _ in range(2)]
    ready = threading.Barrier(4)

    def tell(own: list[Credit]) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            ready.wait(10)
            for one in own:
                transfers.receive(connection, one, IN_TIME)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(tell, (credits[n:] + credits[:n] for n in (0, 2, 4, 6))))
    assert has(db) == (25_000 * 7, 0) and ledger.balance(db, "clearing/vietqr") == 25_000 * 8


def test_what_is_owed_is_asked_once_whoever_pays_it_has_done_so(db, url):
    """One who pays a debt holds its wallet: who asks meanwhile what there is to pay waits, and is told what is left."""
    first, second = owe(db, 25_000), owe(db, 10_000)
    payment = ask(db, "session", session_id=first)
    with psycopg.connect(url, autocommit=True) as paying, ThreadPoolExecutor(1) as pool:
        with paying.transaction():
            transfers.receive(paying, credit(payment, 25_000), IN_TIME)
            asked = pool.submit(ask, db, "session", session_id=first)
            while not asked.done() and not is_blocked(paying, db):
                pass
        with pytest.raises(NothingOwed):
            asked.result(10)
    assert ask(db, "session", session_id=second).amount == 10_000


amounts = st.integers(1, 100_000)
sent = st.lists(st.tuples(st.integers(0, 3), amounts, st.integers(0, 60), st.integers(1, 2)), max_size=8)


def asked_for(db: psycopg.Connection, session: UUID, client: str) -> int:
    try:
        return transfers.amount_of(db, Wanted(client, "session", "vietqr", session_id=session))
    except NothingOwed:
        return 0


@given(st.lists(amounts, max_size=3), sent)
@settings(max_examples=20)
def test_no_dong_is_lost_whatever_is_sent(empty_database, debts, sent):
    """Each transfer names one of three payments, or nobody's, comes at some minute, and is told once or twice. What is
    then asked for the sessions, each by itself, is what is owed in all."""
    client = f"driver-{uuid4()}"
    with psycopg.connect(empty_database, autocommit=True) as db:
        sessions = [owe(db, debt, client) for debt in debts]
        payments = [transfers.create(db, Wanted(client, "topup", "vietqr", 50_000), NOW)]
        if debts:
            payments.append(transfers.create(db, Wanted(client, "arrears", "vietqr"), NOW))
            last = Wanted(client, "session", "vietqr", session_id=sessions[-1])
            payments.append(transfers.create(db, last, NOW))
        came = 0
        for which, amount, minute, times in sent:
            payment = payments[which] if which < len(payments) else None
            told = credit(payment, amount, NOW + timedelta(minutes=minute), f"FT-{uuid4()}")
            came += amount if payment else 0
            for _ in range(times):
                transfers.receive(db, told, told.at)
        balance, owed = has(db, client)
        assert balance >= 0 and 0 <= owed <= sum(debts)
        assert came == balance + sum(debts) - owed
        assert sum(transfers.find(db, one.id, client).paid or 0 for one in payments) == came
        assert sum(asked_for(db, session, client) for session in sessions) == owed


# --- VNPay ------------------------------------------------------------------------------------------------------------
def notice(payment: Payment, **change) -> vnpay.Notice:
    return vnpay.Notice(payment.reference, payment.amount, "14226112", True, "00", IN_TIME)._replace(**change)


def test_order_is_confirmed_once(db):
    payment = ask(db, "topup", 50_000, "vnpay")
    answers = [transfers.answer_notice(db, notice(payment), IN_TIME)[0] for _ in range(3)]
    assert answers == ["00", "02", "02"] and state(db, payment) == ("paid", 50_000)
    assert has(db) == (50_000, 0) and ledger.balance(db, "clearing/vnpay") == 50_000


def test_order_that_failed_is_confirmed_once_and_may_still_be_paid(db):
    payment = ask(db, "topup", 50_000, "vnpay")
    failed = notice(payment, is_paid=False, code="24", transaction="0", paid_at=None)
    assert [transfers.answer_notice(db, failed, IN_TIME)[0] for _ in range(2)] == ["00", "02"]
    found = transfers.find(db, payment.id, "driver-1")
    assert (found.state, found.failure) == ("failed", "24")
    assert transfers.answer_notice(db, notice(payment), IN_TIME)[0] == "00"
    assert state(db, payment) == ("paid", 50_000)
    assert transfers.answer_notice(db, failed, IN_TIME)[0] == "02" and state(db, payment) == ("paid", 50_000)


def test_order_that_nobody_knows_or_of_another_amount_is_refused(db):
    payment, transfer = ask(db, "topup", 50_000, "vnpay"), ask(db, "topup", 50_000)
    for unknown in (notice(payment, reference=references.new()), notice(payment, reference="1"), notice(transfer)):
        assert transfers.answer_notice(db, unknown, IN_TIME)[0] == "01"
    for is_paid in (True, False):
        wrong = notice(payment, amount=49_999, is_paid=is_paid)
        assert transfers.answer_notice(db, wrong, IN_TIME)[0] == "04"
    assert state(db, payment) == ("created", None) and has(db) == (0, 0)


def test_order_that_is_paid_late_is_booked(db):
    owe(db, 25_000)
    payment = ask(db, "arrears", method="vnpay")
    transfers.expire(db, payment.expires_at, 10)
    late = notice(payment, paid_at=payment.expires_at)
    assert transfers.answer_notice(db, late, payment.expires_at)[0] == "00"
    assert state(db, payment) == ("paid", 25_000) and has(db) == (0, 0)


def test_second_payment_of_an_order_is_money_too(db):
    payment = ask(db, "topup", 50_000, "vnpay")
    answers = [transfers.answer_notice(db, notice(payment, transaction=n), IN_TIME)[0] for n in ("1", "2", "1")]
    assert answers == ["00", "00", "02"] and has(db) == (100_000, 0)


def test_same_number_at_bank_and_vnpay_is_not_the_same_money(db):
    payment, order = ask(db, "topup", 50_000), ask(db, "topup", 50_000, "vnpay")
    transfers.receive(db, credit(payment, 50_000, transaction="14226112"), IN_TIME)
    assert transfers.answer_notice(db, notice(order), IN_TIME)[0] == "00" and has(db) == (100_000, 0)

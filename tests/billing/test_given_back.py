"""What gateways give back, in any order, by whosever order, failing or not: every đồng has its place."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from billing import calls, given_back, ledger, payments, refunds, refunds_at_gateway, vat, wallets
from billing.audit import Act
from billing.errors import RefundExceedsCharge
from billing.gateways import Refund
from billing.ledger import RECEIVABLE, Posting
from billing.payments import New, Payment
from tests.billing.money import is_blocked

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.fixture
def connection(engine: Engine) -> Iterator[psycopg.Connection]:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


class Desk:
    """A session that was charged, and paid by card; what is done about it, and what must then be so."""

    def __init__(self, connection: psycopg.Connection, charged: int, paid: int, paid_before: int) -> None:
        self.connection, self.charged, self.paid, self.at = connection, charged, paid, NOW
        self.client, self.gateway, self.session = f"driver-{uuid4()}", f"gateway-{uuid4()}", uuid4()
        self.revenue, self.before = f"revenue/{uuid4()}/x", ledger.balance(connection, "refund")
        self.vat_before = ledger.balance(connection, "vat")
        net = vat.net(charged, 800)
        owes = {RECEIVABLE + self.client: charged, self.revenue: -net, "vat": net - charged}
        ledger.post(connection, [Posting("parking", str(self.session), NOW, owes)])
        if paid_before:
            entries = {"bank": paid_before, RECEIVABLE + self.client: -paid_before}
            ledger.post(connection, [Posting("transfer", str(uuid4()), NOW, entries)])
        new = payments.new_id(NOW)
        payments.create(connection, [New(new, self.client, "session", self.session, "card", paid, str(new), NOW)])
        payments.pay(connection, payments.find(connection, new), paid, self.gateway, NOW, f"pi_{new}")
        self.payment: Payment = payments.find(connection, new)
        self.told: dict[str, Refund] = {}

    def left_at_gateway(self) -> int:
        return self.paid - sum(one.amount for one in self.told.values() if one.state != "failed")

    def page(self, amount: int) -> None:
        """Somebody gives back so much, or what is left, on the gateway's page."""
        self._hear(min(amount, self.left_at_gateway()), None)

    def order(self, amount: int) -> None:
        """An operator does, and the gateway carries it out."""
        charge = refunds.charge_of(self.connection, self.session)
        try:
            asked = refunds.request(self.connection, charge, "x", self.at)
        except RefundExceedsCharge:
            return
        act = Act("operator", self.at, "x")
        amount = min(amount, refunds.left_of(self.connection, charge))
        made = refunds.approve(self.connection, asked.id, amount, act)
        assert made.to_gateway <= self.left_at_gateway(), "the gateway would refuse it"
        if made.to_gateway:
            request = {"refund": str(made.id)}
            call = calls.plan(self.connection, self.payment.id, "refund", made.to_gateway, self.at, request=request)
            self._hear(made.to_gateway, call.key)
            refunds_at_gateway.refund_via_gateway(self.connection, lambda _: True, self.at)

    def wait(self, amount: int) -> None:
        """An operator orders it, and the gateway is away."""
        charge = refunds.charge_of(self.connection, self.session)
        try:
            asked = refunds.request(self.connection, charge, "x", self.at)
        except RefundExceedsCharge:
            return
        amount = min(amount, refunds.left_of(self.connection, charge))
        refunds.approve(self.connection, asked.id, amount, Act("operator", self.at, "x"))

    def settle(self) -> None:
        """The gateway is back: it does what it still can, all of a refund or nothing; the others are given up."""
        self.at += timedelta(minutes=1)
        refunds_at_gateway.refund_via_gateway(self.connection, self._ask, self.at)

    def _ask(self, wanted: refunds_at_gateway.AtGateway) -> bool:
        request = {"refund": str(wanted.refund_id)}
        call = calls.plan(self.connection, wanted.payment_id, "refund", wanted.amount, self.at, request=request)
        left = self.left_at_gateway()
        if left >= wanted.amount:
            self._hear(wanted.amount, call.key)
        return left == 0 or left >= wanted.amount

    def _hear(self, amount: int, key: str | None) -> None:
        if amount > 0:
            name = f"re_{len(self.told)}"
            self.told[name] = Refund(name, amount, "paid", key)
            self.tell()

    def fail(self, number: int) -> None:
        """One of the refunds so far fails."""
        if self.told:
            name = f"re_{number % len(self.told)}"
            self.told[name] = self.told[name]._replace(state="failed")
            self.tell()

    def tell(self) -> None:
        """The gateway tells of all, newest first, as an event that came late would."""
        self.at += timedelta(minutes=1)
        for one in reversed(self.told.values()):
            given_back.book(self.connection, self.payment, one, self.gateway, self.at)

    def check_what_waits(self) -> None:
        """Whatever waits: what was ordered and is settled is on the card or in the wallet, once."""
        waits = self.connection.execute(
            "SELECT COALESCE(sum(to_gateway), 0) FROM refund WHERE session_id = %s AND state = 'pending_gateway'",
            (self.session,),
        ).fetchone()
        assert waits is not None
        assert ledger.balance(self.connection, "refund") - self.before >= -waits[0]
        assert refunds_at_gateway.standing(self.connection, self.payment.id).spare >= 0
        assert ledger.balance(self.connection, f"clearing/{self.gateway}") == self.left_at_gateway()
        has = ledger.wallet(self.connection, self.client)
        assert has.balance >= 0 and has.owed >= 0

    def check(self) -> None:
        row = self.connection.execute(
            "SELECT (SELECT COALESCE(sum(amount), 0) FROM refund WHERE session_id = %(session)s), "
            "COALESCE(sum(of_ours) FILTER (WHERE state = 'given'), 0), count(*) "
            "FROM gateway_refund WHERE payment_id = %(payment)s",
            {"session": self.session, "payment": self.payment.id},
        ).fetchone()
        assert row is not None
        refunded, ours, rows = row
        assert 0 <= refunded <= self.charged and rows == len(self.told)
        tax = self.vat_before - ledger.balance(self.connection, "vat")
        earned = -ledger.balance(self.connection, self.revenue)
        assert earned + tax == self.charged - refunded and earned >= 0 and tax >= 0
        assert ledger.balance(self.connection, "refund") - self.before == ours
        assert ledger.balance(self.connection, f"clearing/{self.gateway}") == self.left_at_gateway()
        has = ledger.wallet(self.connection, self.client)
        assert has.balance >= 0 and has.owed >= 0


ACTIONS = st.one_of(
    st.tuples(st.just("page"), st.integers(1, 120_000)),
    st.tuples(st.just("order"), st.integers(1, 120_000)),
    st.tuples(st.just("fail"), st.integers(0, 9)),
    st.tuples(st.just("tell")),
)


@given(
    st.integers(1_000, 100_000), st.integers(1_000, 100_000), st.floats(0, 1), st.lists(ACTIONS, min_size=1, max_size=7)
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_given_back_and_fails_every_dong_is_in_its_place(connection, charged, paid, share, actions):
    desk = Desk(connection, charged, paid, round(share * charged))
    for verb, *values in actions:
        getattr(desk, verb)(*values)
        desk.check()


WAITING = st.one_of(
    st.tuples(st.just("page"), st.integers(1, 120_000)),
    st.tuples(st.just("wait"), st.integers(1, 120_000)),
    st.tuples(st.just("settle")),
)
FAILING = WAITING | st.tuples(st.just("fail"), st.integers(0, 9)) | st.tuples(st.just("tell"))


@given(
    st.integers(1_000, 100_000), st.integers(1_000, 100_000), st.floats(0, 1), st.lists(WAITING, min_size=2, max_size=7)
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_page_and_orders_that_wait_give_the_driver_his_money_once(connection, charged, paid, share, actions):
    desk = Desk(connection, charged, paid, round(share * charged))
    for verb, *values in [*actions, ("settle",)]:
        getattr(desk, verb)(*values)
    assert ledger.balance(connection, "refund") == desk.before, "neither is he short of any, nor is any our loss"
    assert ledger.balance(connection, f"clearing/{desk.gateway}") == desk.left_at_gateway()


@given(
    st.integers(1_000, 100_000), st.integers(1_000, 100_000), st.floats(0, 1), st.lists(FAILING, min_size=3, max_size=9)
)
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_page_and_orders_that_wait_and_fail_leave_nobody_short(connection, charged, paid, share, actions):
    desk = Desk(connection, charged, paid, round(share * charged))
    for verb, *values in [*actions, ("settle",)]:
        getattr(desk, verb)(*values)
        desk.check_what_waits()
    ours = desk.connection.execute(
        "SELECT COALESCE(sum(of_ours - GREATEST(of_orders, 0)), 0) FROM gateway_refund WHERE payment_id = %s",
        (desk.payment.id,),
    ).fetchone()
    short = desk.before - ledger.balance(connection, "refund")
    assert short <= 0 if ours != (0,) else short == 0


def test_refund_of_another_payment_with_our_key_is_not_taken_for_ours(connection):
    desk, other = Desk(connection, 50_000, 50_000, 0), Desk(connection, 50_000, 50_000, 0)
    call = calls.plan(connection, other.payment.id, "refund", 10_000, NOW, request={"refund": str(UUID(int=1))})
    given_back.book(connection, desk.payment, Refund("re_0", 10_000, "paid", call.key), desk.gateway, NOW)
    rows = connection.execute(
        "SELECT of_charge, decided_by FROM gateway_refund JOIN refund ON id = refund_id"
    ).fetchall()
    assert rows == [(10_000, desk.gateway)]


def test_refund_that_was_booked_before_these_rows_were_kept_is_not_booked_again(connection):
    desk = Desk(connection, 50_000, 50_000, 0)
    entries = {"refund": 20_000, f"clearing/{desk.gateway}": -20_000}
    ledger.post(connection, [Posting("refund", f"{desk.gateway}/re_0", NOW, entries)])
    for _ in range(2):
        given_back.book(connection, desk.payment, Refund("re_0", 20_000, "paid"), desk.gateway, NOW)
    assert ledger.balance(connection, f"clearing/{desk.gateway}") == 30_000
    for _ in range(2):
        given_back.book(connection, desk.payment, Refund("re_0", 20_000, "failed"), desk.gateway, NOW)
    assert (
        ledger.balance(connection, f"clearing/{desk.gateway}") == 50_000 and ledger.balance(connection, "refund") == 0
    )
    assert ledger.wallet(connection, desk.client).balance == 0, "it had cost the driver nothing"


def test_who_opens_an_account_while_money_is_given_back_does_not_wait_in_a_circle(connection, engine):
    """Everybody takes accounts first, then wallets: here of a driver who never owed anything."""
    client, new, gateway = f"driver-{uuid4()}", payments.new_id(NOW), f"gateway-{uuid4()}"
    payments.create(connection, [New(new, client, "topup", None, "card", 50_000, str(new), NOW)])
    payments.pay(connection, payments.find(connection, new), 50_000, gateway, NOW, f"pi_{new}")
    spent = {"wallet/" + client: 50_000, "funding": -50_000}
    ledger.post(connection, [Posting("spent", str(uuid4()), NOW, spent)])
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as other, ThreadPoolExecutor(1) as pool:
        paid = payments.find(connection, new)
        with connection.transaction():
            ledger.open_accounts(connection, RECEIVABLE + client)
            given = Refund("re_0", 50_000, "paid")
            booking = pool.submit(given_back.book, other, paid, given, gateway, NOW)
            while not is_blocked(connection, other) and not booking.done():
                pass
            wallets.lock(connection, "wallet/" + client)
        booking.result(20)
    assert ledger.wallet(connection, client) == ledger.Wallet(0, 0, 50_000)

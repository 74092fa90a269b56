"""Orders, a gateway and its page, step by step in any order: ordered, made, lost, failed, parked and given up."""

from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing import calls, given_back, ledger, payments, refunds_at_gateway
from billing.calls import Call, Subject
from billing.check import check
from billing.errors import GatewayUnavailable, PaymentRefused
from billing.gateways import Movement, Refund
from billing.payments import New
from billing.reconcile.healing import heal
from billing.reconcile.kinds import Difference
from tests.billing.test_given_back import NOW, Desk, connection

__all__ = ["connection"]
CHARGED = 60
SETTLED = {"done": True, "refused": False}


class Gateway:
    """One payment at its gateway, as far as money goes back: all of a refund, or none."""

    def __init__(self, paid: int) -> None:
        self.paid = paid
        self.listed: list[Refund] = []
        self.loses_answer = False
        self.refuses = False

    @property
    def left(self) -> int:
        return self.paid - sum(one.amount for one in self.listed if one.state != "failed")

    def refunds(self, _: str) -> list[Refund]:
        return list(self.listed)

    def find(self, gateway_reference: str) -> Movement:
        return Movement(gateway_reference, "paid", self.paid, 0, self.paid)

    def refund(self, _: str, amount: int, key: str) -> Refund:
        if self.refuses:
            raise PaymentRefused("the key is not valid", "refused")
        known = next((one for one in self.listed if one.reference == key), None)
        if known:
            return known._replace(state="paid")  # its first answer
        if self.left == 0:
            raise PaymentRefused("all was given back", calls.ALL_GIVEN_BACK)
        if self.left < amount:
            raise PaymentRefused("so much is not left", "refused")
        made = self.give(amount, key)
        if self.loses_answer:
            raise GatewayUnavailable("connection reset")
        return made

    def give(self, amount: int, key: str | None = None) -> Refund:
        made = Refund(f"re_{len(self.listed)}", amount, "paid", key)
        self.listed.append(made)
        return made

    def fail(self, number: int) -> None:
        self.listed[number] = self.listed[number]._replace(state="failed")


class Counter(Desk):
    """A session of 60 VND that a card paid; each verb is one step of the service, of the gateway, or of somebody."""

    def __init__(self, connection: psycopg.Connection) -> None:
        super().__init__(connection, CHARGED, CHARGED, 0)
        self.there = Gateway(CHARGED)

    def order(self, amount: int) -> None:
        """An operator decides; nobody is asked yet."""
        self.wait(amount)

    def page(self, amount: int) -> None:
        """Somebody gives back so much, or what is left; we are not told."""
        if amount := min(amount, self.there.left):
            self.there.give(amount)

    def fail(self, number: int) -> None:
        """One of the refunds so far fails; we are not told."""
        if self.there.listed:
            self.there.fail(number % len(self.there.listed))

    def hear(self) -> None:
        """We are told of all."""
        self.at += timedelta(minutes=1)
        for one in self.there.listed:
            given_back.book(self.connection, self.payment, one, self.gateway, self.at)

    def job(self) -> None:
        """Calls are planned for orders, and orders settled whose calls are over."""
        self.at += timedelta(minutes=1)
        refunds_at_gateway.refund_via_gateway(self.connection, self._planned, self.at, 10_000)

    def _planned(self, one: refunds_at_gateway.AtGateway) -> bool | None:
        if one.payment_id != self.payment.id:  # another example's
            return None
        state = calls.for_refund(self.connection, one.refund_id)
        if state is None:
            request = {"refund": str(one.refund_id)}
            calls.plan(self.connection, one.payment_id, "refund", one.amount, self.at, request=request)
        return SETTLED.get(state or "")

    def make(self, number: int = 0) -> None:
        """A call that waits is made, and what comes of it booked."""
        self.at += timedelta(minutes=1)
        rows = self.connection.execute(
            "SELECT key, payment_id, verb, amount, request, made_at, tries FROM gateway_call "
            "WHERE payment_id = %s AND state = 'waiting' ORDER BY made_at, key", (self.payment.id,)
        ).fetchall()  # fmt: skip
        if not rows:
            return
        call = Call(*rows[number % len(rows)])
        subject = Subject(self.payment.reference, self.payment.gateway_reference)
        outcome = calls.make(self.there, call, subject, self.at)  # type: ignore[arg-type]
        with self.connection.transaction():
            calls.settle(self.connection, call, outcome, self.at)
            payments.lock(self.connection, self.payment.id)
            for one in outcome.refunds:
                given_back.book(self.connection, self.payment, one, self.gateway, self.at)

    def lose(self, number: int = 0) -> None:
        """A call is made, and its answer is lost."""
        self.there.loses_answer = True
        self.make(number)
        self.there.loses_answer = False

    def refuse(self, number: int = 0) -> None:
        """A call is refused, and parked: a mistake of ours."""
        self.there.refuses = True
        self.make(number)
        self.there.refuses = False

    def give_up(self) -> None:
        for key in self.parked():
            calls.give_up(self.connection, key)

    def retry(self) -> None:
        for key in self.parked():
            calls.retry(self.connection, key, self.at)

    def parked(self) -> list[str]:
        query = "SELECT key FROM gateway_call WHERE payment_id = %s AND state = 'parked' ORDER BY key"
        return [row[0] for row in self.connection.execute(query, (self.payment.id,))]

    def calm(self) -> None:
        """Everybody is told and asked until no order waits; what is parked is given up."""
        self.hear()
        for _ in range(20):
            self.job()
            self.make()
            self.hear()
            if not self.waits():
                return
            self.give_up()
        raise AssertionError("an order waits for ever")

    def waits(self) -> bool:
        query = "SELECT 1 FROM refund WHERE session_id = %s AND state = 'pending_gateway'"
        return self.connection.execute(query, (self.session,)).fetchone() is not None

    def ordered_otherwise(self) -> bool:
        """Whether a part of an order went to the wallet at once: then the page may give more than was ordered of it."""
        query = "SELECT 1 FROM refund WHERE session_id = %s AND to_purse > 0"
        return self.connection.execute(query, (self.session,)).fetchone() is not None

    @property
    def our_loss(self) -> int:
        """VND in the account `refund`; below zero: the driver is short of it."""
        return ledger.balance(self.connection, "refund") - self.before

    @property
    def in_wallet(self) -> int:
        return ledger.wallet(self.connection, self.client).balance


def play(connection: psycopg.Connection, steps: str) -> Counter:
    counter = Counter(connection)
    for step in steps.split(", "):
        verb, *values = step.split()
        getattr(counter, verb)(*map(int, values))
    return counter


AMOUNTS, NUMBERS = st.sampled_from([10, 20, 30, 45, 60]), st.integers(0, 3)
STEPS = st.one_of(
    st.tuples(st.sampled_from(["page", "order"]), AMOUNTS),
    st.tuples(st.sampled_from(["job", "hear", "give_up", "retry"])),
    st.tuples(st.sampled_from(["make", "lose", "refuse", "fail"]), NUMBERS),
)


@given(st.lists(STEPS, min_size=4, max_size=12))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_in_between_the_driver_has_his_money_once(connection, steps):
    counter = Counter(connection)
    for verb, *values in steps:
        getattr(counter, verb)(*values)
    counter.calm()
    assert counter.our_loss >= 0 if counter.ordered_otherwise() else counter.our_loss == 0
    assert ledger.balance(connection, f"clearing/{counter.gateway}") == counter.there.left


@pytest.mark.parametrize(("steps", "wallet"), [
    ("order 60, job, page 60, make, fail 0, hear, job", 60),
    ("order 30, order 30, job, page 30, make 0, make 1, make 0, fail 1, hear, job", 30),
    ("order 60, job, lose, hear, refuse, give_up, job", 0),
    ("order 60, job, page 25, refuse, give_up, job, hear", 35),
    ("page 30, fail 0, hear, order 60, job, make, job", 0),
    ("page 30, fail 0, hear, order 60, page 60, hear, job, make, job", 0),
    ("order 60, page 25, hear, job, make, give_up, job, fail 0, hear", 60),
])  # fmt: skip
def test_what_is_not_on_the_card_is_in_the_wallet(connection, steps, wallet):
    counter = play(connection, steps)
    assert (counter.in_wallet, counter.our_loss, counter.waits()) == (wallet, 0, False)


def test_order_stays_with_the_payment_that_it_was_for(connection):
    """The page gave all of it back; then a larger payment becomes known, of which nothing was ordered."""
    counter = play(connection, "order 60, page 60, hear")
    new, later = payments.new_id(NOW), counter.at + timedelta(minutes=1)
    payments.create(connection, [New(new, counter.client, "session", counter.session, "card", 90, str(new), later)])
    payments.pay(connection, payments.find(connection, new), 90, counter.gateway, later, f"pi_{new}")
    counter.job()
    assert connection.execute("SELECT payment_id FROM gateway_call WHERE payment_id = ANY(%s)",
                              ([new, counter.payment.id],)).fetchall() == [(counter.payment.id,)]  # fmt: skip
    counter.calm()
    assert (counter.our_loss, counter.in_wallet) == (0, 90)


def test_refund_that_is_made_after_it_was_given_up_leaves_the_wallet_again(connection):
    """Nothing that a gateway documents; but its list is what counts. It may even fail behind that."""
    counter = play(connection, "order 60, page 25, hear, job, refuse, give_up, job, fail 0")
    (key,) = connection.execute("SELECT key FROM gateway_call WHERE payment_id = %s", (counter.payment.id,)).fetchone()  # type: ignore[misc]
    assert counter.in_wallet == 35
    counter.there.give(60, key)
    counter.hear()
    assert (counter.in_wallet, counter.our_loss) == (0, 0)
    counter.fail(1)
    counter.hear()
    assert (counter.in_wallet, counter.our_loss) == (60, 0)


def test_reconciliation_that_heals_one_of_two_heals_the_other_first(connection):
    """The page gave it back, that failed, and the page gave it back once more; we heard of the first only."""
    counter = play(connection, "order 60, job, page 60, make, job, fail 0, page 60")

    def difference(number: int, kind: str, theirs: int, ours: int | None) -> Difference:
        name = f"{counter.gateway}/re_{number}"
        return Difference(counter.gateway, "refund", name, kind, theirs, ours, 60, NOW, counter.payment.id,
                          counter.payment.gateway_reference, None, "open", None)  # fmt: skip

    second, failed = difference(1, "refund_at_gateway", -60, None), difference(0, "refund_failed", 0, -60)
    for one in (second, failed):
        assert heal(connection, counter.there, one, counter.at).state == "healed"  # type: ignore[arg-type]
    assert (counter.in_wallet, counter.our_loss, counter.there.left) == (0, 0, 0)


def test_gateway_that_does_not_say_what_was_given_back_is_looked_into(connection, monkeypatch):
    counter = play(connection, "order 60, job, page 60")

    def refuse(_: str) -> list[Refund]:
        raise PaymentRefused("this key may not read refunds", "refused")

    with monkeypatch.context() as away:
        away.setattr(counter.there, "refunds", refuse)
        counter.make()
    assert len(counter.parked()) == 1
    counter.retry()
    counter.calm()
    assert (counter.in_wallet, counter.our_loss) == (0, 0)


def test_refund_that_is_on_the_card_and_in_the_wallet_is_found(connection):
    counter = play(connection, "order 60, job, make, job")
    (refund_id,) = connection.execute("SELECT id FROM refund WHERE session_id = %s", (counter.session,)).fetchone()
    before = {one.name: one.wrong for one in check(connection)}
    with connection.transaction():
        payments.lock(connection, counter.payment.id)
        refunds_at_gateway.to_wallet(connection, UUID(str(refund_id)), 60, counter.at)
    after = {one.name: one.wrong for one in check(connection)}
    assert (before["refund_account"], after["refund_account"]) == (0, 1)

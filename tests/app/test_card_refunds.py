"""Money that a card gets back by an operator's order, and what comes back of it days later."""

import threading
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import Connection

from app import card_jobs, webhooks
from app.resources import Resources
from billing import calls, given_back, ledger, payments
from billing.gateways import Refund
from billing.ledger import Posting
from billing.refunds_at_gateway import AtGateway
from tests.app.carding import (
    BODY,
    INTENTS,
    Real,
    agrees,
    carded,
    client,
    db,
    keep,
    look,
    owed,
    pay,
    real,
    start,
    stop,
    taken,
    work,
)
from tests.app.giving_back import (
    DELIVERIES,
    FEE,
    approve,
    carry_out,
    in_wallet,
    left,
    page,
    proved,
    rows,
    session,
    tell,
)
from tests.conftest import FUNDS, Client, SteppedClock

__all__ = ["carded", "client", "db", "page", "real", "session"]


# --- by an operator's order -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fault", [None, "reset_after", "500_after", "500_before"])
def test_refund_of_ours_is_made_and_booked_once(client, carded, db, real, stripe_server, session, fault):
    approve(client, session, 10_000)
    card_jobs.refund(carded)
    if fault:
        stripe_server.fail("POST", "/v1/refunds", fault)
    card_jobs.settle(carded)
    (state,) = db.execute("SELECT state FROM gateway_call WHERE verb = 'refund'").fetchone()
    assert state == ("waiting" if fault else "done")
    tell(carded, real, stripe_server)
    carry_out(carded, real)
    assert len(stripe_server.books.of("refund")) == 1 and rows(db) == [(10_000, 0, 0, "given")]
    assert left(db) == (55_556 - 9_259, 4_444 - 741, 0) and proved(carded, db, stripe_server)
    assert db.execute("SELECT state, amount FROM refund").fetchall() == [("refunded", 10_000)]


def test_event_before_the_response_is_not_taken_for_a_refund_on_the_page(
    client, carded, db, real, stripe_server, session
):
    approve(client, session, 10_000)
    card_jobs.refund(carded)
    post = stripe_server.hooks.post

    def handled(body: bytes, header: str) -> int:
        answers: list[int] = []

        def run() -> None:
            answers.append(post(body, header))
            webhooks.handle(carded)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(10)
        return answers[0]

    stripe_server.hooks.deliver_all()
    stripe_server.hooks.post, stripe_server.hooks.when = handled, "before"
    card_jobs.settle(carded)
    assert rows(db) == [(10_000, 0, 0, "given")] and left(db)[2] == 0
    carry_out(carded, real)
    assert db.execute("SELECT state FROM refund").fetchall() == [("refunded",)]
    assert proved(carded, db, stripe_server)


def test_more_than_was_paid_is_not_given_back(client, carded, db, real, stripe_server, session):
    approve(client, session)
    db.execute("UPDATE refund SET amount = 60001, charged = 60001, to_gateway = 60001")
    carry_out(carded, real)
    assert db.execute("SELECT state FROM gateway_call WHERE verb = 'refund'").fetchall() == [("parked",)]
    assert rows(db) == [] and taken(stripe_server) == FEE
    assert db.execute("SELECT state FROM refund").fetchall() == [("pending_gateway",)], "for somebody to look at"


class TestOrdered:
    """What an operator gives back to a card, for sessions of 30,000 VND."""

    def refunded(self, client: Client, clock: SteppedClock, carded: Resources, real: Real) -> dict:
        keep(client)
        session = start(client).json
        clock.advance(minutes=30)
        stop(client, session)
        work(carded, real)
        return approve(client, session, 10_000)

    def test_go_back_by_the_gateway_once(self, client, clock, carded, real, db, stripe_server):
        made = self.refunded(client, clock, carded, real)
        assert made["state"] == "pending_gateway" and ledger.balance(db, "refund") == -10_000
        carry_out(carded, real)
        assert db.execute("SELECT state FROM refund").fetchall() == [("refunded",)]
        assert (ledger.balance(db, "refund"), ledger.balance(db, "clearing/stripe")) == (0, 20_000)
        assert taken(stripe_server) == 20_000

    def test_that_get_no_answer_are_asked_for_again_with_the_same_key(
        self, client, clock, carded, real, db, stripe_server
    ):
        self.refunded(client, clock, carded, real)
        stripe_server.fail("POST", "/v1/refunds", "reset_after", times=1)
        carry_out(carded, real)
        assert taken(stripe_server) == 20_000 == ledger.balance(db, "clearing/stripe")
        assert db.execute("SELECT state FROM refund").fetchall() == [("refunded",)]


# --- sessions that two payments by card paid --------------------------------------------------------------------------
@pytest.fixture
def twice(client: Client, carded: Resources, clock: SteppedClock, real: Real) -> dict:
    """A session of 102,000 VND: 30,000 were held and captured, 72,000 are charged at the driver's word."""
    keep(client)
    begun = start(client, BODY | {"minutes": 60}).json
    client.post(f"/v1/sessions/{begun['id']}/extend", json={"minutes": 120}, role="driver")
    clock.advance(minutes=170)
    ended: dict = stop(client, begun).json
    assert ended["fee"]["amount"] == 102_000
    work(carded, real)
    return ended


@pytest.mark.parametrize("call", ["waiting", "parked", "done"])
def test_payment_that_is_known_behind_a_refunds_call_does_not_get_a_second_one(
    client, carded, clock, db, real, stripe_server, twice, call
):
    """The rest is paid at a bank while the charge has no answer; when that has one, it is the larger payment."""
    stripe_server.fail("POST", INTENTS, "reset_after")
    made = pay(client, "session", session=twice["id"]).json
    assert made["state"] == "unknown"
    ledger.post(db, [Posting("transfer", "FT1", clock.now(), {"bank": 72_000, "receivable/driver": -72_000})])
    assert approve(client, twice)["to_card"]["amount"] == 30_000
    right = stripe_server.key
    if call == "parked":
        stripe_server.key = "sk_test_another"
    card_jobs.refund(carded)
    (planned,) = calls_of_refunds(db)
    if call != "waiting":
        take_refunds(carded, db)
    stripe_server.key = right
    assert db.execute("SELECT state FROM gateway_call WHERE key = %s", (planned,)).fetchone() == (call,)
    stripe_server.hooks.deliver_all()
    webhooks.handle(carded)
    assert look(client, made)["paid"]["amount"] == 72_000, "it is in the wallet, for nothing was owed any more"
    carry_out(carded, real)
    assert calls_of_refunds(db) == [planned]
    assert taken(stripe_server) == (102_000 if call == "parked" else 72_000)
    assert db.execute("SELECT state FROM refund").fetchall() == [
        ("pending_gateway",) if call == "parked" else ("refunded",)
    ]
    assert agrees(db, stripe_server)


def test_two_jobs_that_pick_two_payments_plan_one_call(client, carded, db, database_url, stripe_server, twice):
    assert pay(client, "session", session=twice["id"]).json["state"] == "paid"
    refund_id = UUID(approve(client, twice, 10_000)["id"])
    picked = [
        AtGateway(refund_id, one.id, one.gateway_reference, 10_000) for one in payments.of_session(db, twice["id"])
    ]
    ready, answers = threading.Barrier(len(picked)), []

    def ask(one: AtGateway) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            ready.wait(20)
            answers.append(card_jobs._ask_refund(connection, one))

    threads = [threading.Thread(target=ask, args=(one,)) for one in picked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [None, None] and len(calls_of_refunds(db)) == 1


def calls_of_refunds(db: Connection) -> list[str]:
    return [row[0] for row in db.execute("SELECT key FROM gateway_call WHERE verb = 'refund' ORDER BY key")]


def take_refunds(carded: Resources, db: Connection) -> None:
    """Make the calls that wait for refunds, and no other."""
    db.execute("UPDATE gateway_call SET retry_at = retry_at + interval '1 hour' WHERE verb <> 'refund'")
    card_jobs.settle(carded)


def test_what_the_page_gave_back_of_one_payment_leaves_the_other_ones_whole(
    client, carded, db, real, stripe_server, twice
):
    assert pay(client, "session", session=twice["id"]).json["paid"]["amount"] == 72_000
    held = stripe_server.books.of("payment_intent")[0]["id"]
    stripe_server.books.refund({"payment_intent": held})
    tell(carded, real, stripe_server)
    assert rows(db) == [(30_000, 0, 0, "given")]
    assert approve(client, twice)["to_card"]["amount"] == 72_000, "all that the larger payment brought"
    carry_out(carded, real)
    assert (taken(stripe_server), in_wallet(db), left(db)) == (0, FUNDS, (0, 0, 0))
    assert proved(carded, db, stripe_server)


# --- refunds that fail ------------------------------------------------------------------------------------------------
FAILURES = ("refund.failed", "refund.updated", "charge.refund.updated")


@pytest.mark.parametrize("event", FAILURES)
@pytest.mark.parametrize("how", DELIVERIES)
@pytest.mark.parametrize("answered", ["succeeded", "pending"])
def test_refund_of_ours_that_fails_later_is_the_drivers_wallet_money(
    client, carded, db, real, stripe_server, session, event, how, answered
):
    stripe_server.books.refunds_stay = answered
    approve(client, session, 10_000)
    carry_out(carded, real)
    assert db.execute("SELECT state FROM refund").fetchall() == [("refunded",)]
    (made,) = stripe_server.books.of("refund")
    stripe_server.books.fail_refund(made["id"], event)
    tell(carded, real, stripe_server, **DELIVERIES[how])
    assert in_wallet(db) == FUNDS + 10_000 and taken(stripe_server) == FEE
    assert rows(db) == [(10_000, 0, 0, "failed")] and left(db) == (55_556 - 9_259, 4_444 - 741, 0)
    assert proved(carded, db, stripe_server)
    line = client.get("/v1/wallet/entries", role="driver").json["entries"][0]
    assert (line["kind"], line["session"], line["amount"]["amount"]) == ("refund_to_wallet", session["id"], 10_000)


def test_refund_that_is_refused_at_once_is_wallet_money_once(client, carded, db, real, stripe_server, session):
    stripe_server.books.refunds_stay = "failed"
    approve(client, session, 10_000)
    carry_out(carded, real)
    tell(carded, real, stripe_server, times=2)
    carry_out(carded, real)
    assert in_wallet(db) == FUNDS + 10_000 and left(db)[2] == 0
    assert db.execute("SELECT state FROM refund").fetchall() == [("refunded",)]
    assert proved(carded, db, stripe_server)


def test_failure_that_is_told_before_the_answer_to_our_call(client, carded, db, real, stripe_server, session):
    """The answer is lost, the refund fails, and the call is repeated: Stripe says its first answer again."""
    approve(client, session, 10_000)
    card_jobs.refund(carded)
    stripe_server.fail("POST", "/v1/refunds", "reset_after")
    card_jobs.settle(carded)
    (made,) = stripe_server.books.of("refund")
    assert rows(db) == []
    stripe_server.books.fail_refund(made["id"])
    tell(carded, real, stripe_server)
    carry_out(carded, real)
    assert in_wallet(db) == FUNDS + 10_000 and rows(db) == [(10_000, 0, 0, "failed")] and left(db)[2] == 0
    assert len(stripe_server.books.of("refund")) == 1 and proved(carded, db, stripe_server)


def test_failure_pays_what_is_owed_first(client, carded, db, clock, real, stripe_server, session):
    approve(client, session, 10_000)
    carry_out(carded, real)
    ledger.post(db, [Posting("parking", str(uuid4()), clock.now(), {"receivable/driver": 7_000, "vat": -7_000})])
    stripe_server.books.fail_refund(stripe_server.books.of("refund")[0]["id"])
    tell(carded, real, stripe_server)
    assert (in_wallet(db), owed(db)) == (FUNDS + 3_000, 0)


def test_refund_on_the_page_that_fails_is_wallet_money_and_may_be_made_again(
    client, carded, db, real, stripe_server, session, page
):
    stripe_server.books.fail_refund(page(20_000))
    tell(carded, real, stripe_server, backwards=True)
    assert in_wallet(db) == FUNDS, "it was over before we heard of it: nothing was moved"
    assert rows(db) == [(0, 0, 20_000, "failed")] and left(db) == (55_556, 4_444, 0)
    second = page(FEE)
    tell(carded, real, stripe_server)
    assert left(db) == (0, 0, 0)
    stripe_server.books.fail_refund(second)
    tell(carded, real, stripe_server)
    assert in_wallet(db) == FUNDS + FEE and left(db) == (0, 0, 0)
    page(FEE)
    tell(carded, real, stripe_server)
    assert in_wallet(db) == FUNDS, "what came into the wallet leaves it again"
    assert left(db) == (0, 0, 0) and taken(stripe_server) == 0 and proved(carded, db, stripe_server)


@pytest.mark.parametrize("how", DELIVERIES)
@pytest.mark.parametrize("told", ["before our call", "after it"])
def test_page_that_fulfilled_an_order_and_fails_leaves_the_money_in_the_wallet(
    client, carded, db, real, stripe_server, session, page, how, told
):
    approve(client, session)
    made = [page(45_000), page(15_000)]
    if told == "before our call":
        stripe_server.hooks.deliver_all()
        webhooks.handle(carded)
    carry_out(carded, real)
    assert db.execute("SELECT state FROM gateway_call WHERE verb = 'refund'").fetchall() == [("done",)]
    assert db.execute("SELECT state FROM refund").fetchall() == [("refunded",)] and in_wallet(db) == FUNDS
    for number, one in enumerate(made):
        stripe_server.books.fail_refund(one)
        tell(carded, real, stripe_server, **DELIVERIES[how])
        assert in_wallet(db) == FUNDS + (45_000, 60_000)[number] and left(db) == (0, 0, 0)
        assert proved(carded, db, stripe_server)
    page(FEE)
    tell(carded, real, stripe_server)
    assert in_wallet(db) == FUNDS and left(db) == (0, 0, 0), "what came into the wallet leaves it again"
    assert taken(stripe_server) == 0 and proved(carded, db, stripe_server)


def test_page_that_fulfilled_a_part_and_fails_once_the_rest_was_given_up(
    client, carded, db, real, stripe_server, session, page
):
    approve(client, session)
    made = page(25_000)
    tell(carded, real, stripe_server)
    carry_out(carded, real)
    (key,) = db.execute("SELECT key FROM gateway_call WHERE verb = 'refund' AND state = 'parked'").fetchone()
    calls.give_up(db, key)
    carry_out(carded, real)
    assert in_wallet(db) == FUNDS + 35_000 and left(db) == (0, 0, 0)
    stripe_server.books.fail_refund(made)
    tell(carded, real, stripe_server, times=2)
    assert in_wallet(db) == FUNDS + 60_000 and left(db) == (0, 0, 0) and proved(carded, db, stripe_server)


def test_page_that_fails_while_our_call_is_refused_leaves_the_money_in_the_wallet(
    client, carded, db, real, stripe_server, session, page, monkeypatch
):
    """Stripe says that all was given back; by the time that we ask what was, it is not any more."""
    approve(client, session)
    made, ask = page(FEE), carded.card_gateway.refund

    def refused(*asked):
        try:
            return ask(*asked)
        finally:
            stripe_server.books.fail_refund(made)

    monkeypatch.setattr(carded.card_gateway, "refund", refused)
    carry_out(carded, real)
    tell(carded, real, stripe_server)
    assert db.execute("SELECT state FROM gateway_call WHERE verb = 'refund'").fetchall() == [("refused",)]
    assert in_wallet(db) == FUNDS + FEE and left(db) == (0, 0, 0) and proved(carded, db, stripe_server)


def test_page_that_fails_before_the_job_settles_what_our_call_found_done_leaves_the_money_in_the_wallet(
    client, carded, db, real, stripe_server, session, page
):
    approve(client, session)
    made = page(FEE)
    card_jobs.refund(carded)
    card_jobs.settle(carded)
    assert db.execute("SELECT state FROM gateway_call WHERE verb = 'refund'").fetchall() == [("done",)]
    stripe_server.books.fail_refund(made)
    stripe_server.hooks.deliver_all()
    webhooks.handle(carded)
    carry_out(carded, real)
    assert in_wallet(db) == FUNDS + FEE and left(db) == (0, 0, 0) and proved(carded, db, stripe_server)


def test_refund_of_ours_that_was_made_is_not_given_up(client, carded, db, real, stripe_server, session):
    """The answer to our call is lost, its event is heard, and the call is parked when it is made again."""
    approve(client, session)
    card_jobs.refund(carded)
    stripe_server.fail("POST", "/v1/refunds", "reset_after")
    card_jobs.settle(carded)
    stripe_server.hooks.deliver_all()
    webhooks.handle(carded)
    assert rows(db) == [(FEE, 0, 0, "given")]
    right, stripe_server.key = stripe_server.key, "sk_test_another"
    carry_out(carded, real)
    stripe_server.key = right
    (key,) = db.execute("SELECT key FROM gateway_call WHERE verb = 'refund' AND state = 'parked'").fetchone()
    calls.give_up(db, key)
    carry_out(carded, real)
    assert in_wallet(db) == FUNDS and left(db) == (0, 0, 0) and proved(carded, db, stripe_server)


def test_what_was_given_back_is_asked_for_again_while_stripe_is_away(
    client, carded, db, real, stripe_server, session, page
):
    approve(client, session)
    page(FEE)
    card_jobs.refund(carded)
    stripe_server.fail("GET", "/v1/refunds", "reset_after", times=1)
    card_jobs.settle(carded)
    assert db.execute("SELECT state FROM gateway_call WHERE verb = 'refund'").fetchall() == [("waiting",)]
    carry_out(carded, real)
    assert db.execute("SELECT state FROM gateway_call WHERE verb = 'refund'").fetchall() == [("done",)]
    assert rows(db) == [(0, 0, FEE, "given")] and in_wallet(db) == FUNDS and proved(carded, db, stripe_server)


def test_topup_that_was_given_back_and_comes_back_is_in_the_wallet_again(db, clock, carded):
    new = uuid4()
    db.execute(
        "INSERT INTO payment (id, client, purpose, method, amount, paid, state, reference, gateway_reference, "
        "created_at, settled_at) "
        "VALUES (%(id)s, 'd', 'topup', 'card', 50000, 50000, 'paid', %(id)s, 'pi_x', %(at)s, %(at)s)",
        {"id": new, "at": clock.now()},
    )
    ledger.post(db, [Posting("payment", str(new), clock.now(), {"clearing/stripe": 50_000, "wallet/d": -50_000})])
    ledger.post(db, [Posting("spent", "1", clock.now(), {"wallet/d": 30_000, "funding": -30_000})])
    paid = payments.find(db, new)
    for state in ("pending", "paid", "paid"):
        given_back.book(db, paid, Refund("re_x", 50_000, state), "stripe", clock.now())
        assert ledger.wallet(db, "d") == ledger.Wallet(0, 0, 30_000), "what is spent is owed"
    ledger.post(db, [Posting("transfer", "2", clock.now(), {"bank": 30_000, "receivable/d": -30_000})])
    for _ in range(2):
        given_back.book(db, paid, Refund("re_x", 50_000, "failed"), "stripe", clock.now())
        assert ledger.wallet(db, "d") == ledger.Wallet(50_000, 0, 0)
    assert ledger.balance(db, "refund") == 0 and ledger.balance(db, "clearing/stripe") == 50_000

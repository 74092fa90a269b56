"""A session by card, against the fake Stripe: whatever answers come, late or never, session and money agree."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from psycopg import Connection

from app import card_jobs, cards, create_app, webhooks
from app.resources import Resources
from billing import ledger, payments
from billing.webhooks import Times
from tests.conftest import FUNDS, Client, SteppedClock
from tests.fake_stripe import StripeServer

INTENTS = "/v1/payment_intents"
CAPTURE = f"{INTENTS}/[^/]+/capture"
SECRET = "whsec_test"
BODY = {"zone": "HK-001", "plate": "30A-123.45", "vehicle_class": "car", "payment_method": "card"}
BIKE = {"zone": "HK-001", "plate": "29-AB 123.45", "vehicle_class": "motorbike", "payment_method": "card"}
STRIPE_MINIMUM = 13_000


class Real:
    """The real time of gateway and jobs, moved by hand beside the business clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, server: StripeServer) -> None:
        self.ahead, self._server = timedelta(), server
        self._now = cards.real_now
        for module in (cards, card_jobs):
            monkeypatch.setattr(module, "real_now", self.now)
        monkeypatch.setattr(webhooks, "times", lambda held: Times(held.clock.now(), self.now()))

    def now(self):
        return self._now() + self.ahead

    def advance(self, **delta: float) -> None:
        self.ahead += timedelta(**delta)
        self._server.advance(timedelta(**delta).total_seconds())


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch, stripe_server: StripeServer) -> Real:
    return Real(monkeypatch, stripe_server)


@pytest.fixture
def carded(resources: Resources, stripe_server: StripeServer, real: Real) -> Resources:
    """The service's resources with the fake Stripe behind them."""
    stripe = {"stripe_key": stripe_server.key, "stripe_url": stripe_server.url, "stripe_webhook_secrets": (SECRET,)}
    return replace(resources, settings=replace(resources.settings, small_fees="wait", **stripe))


@pytest.fixture
def client(carded: Resources, stripe_server: StripeServer) -> Client:
    app = create_app(carded.settings, carded)
    app.test_client_class = Client
    made: Client = app.test_client()  # type: ignore[assignment]
    stripe_server.hooks.subscribe(
        lambda body, header: app.test_client().post(
            "/v1/webhooks/stripe", data=body, headers={"Stripe-Signature": header, "Content-Type": "application/json"}
        ).status_code
    )  # fmt: skip
    return made


@pytest.fixture
def db(carded: Resources) -> Iterator[Connection]:
    yield carded.connections.get()
    assert ledger_is_balanced(carded.connections.get())


def ledger_is_balanced(db: Connection) -> bool:
    row = db.execute("SELECT COALESCE(sum(amount), 0) FROM ledger_entry").fetchone()
    return row == (0,)


def keep(client: Client, token: str = "pm_card_visa", role: str = "driver") -> Any:
    return client.post("/v1/cards", json={"token": token}, role=role)


def start(client: Client, body: dict = BODY, **more: Any) -> Any:
    return client.post("/v1/sessions", json=body, role="driver", **more)


def stop(client: Client, session: dict) -> Any:
    return client.post(f"/v1/sessions/{session['id']}/stop", json={}, role="driver")


def work(carded: Resources, real: Real, rounds: int = 4) -> None:
    """Let the jobs run, and every pause of theirs pass."""
    for _ in range(rounds):
        card_jobs.look(carded)
        card_jobs.settle(carded)
        webhooks.handle(carded)
        real.advance(minutes=11)
    card_jobs.settle(carded)


def owed(db: Connection, who: str = "driver") -> int:
    return ledger.wallet(db, who).owed


def taken(stripe_server: StripeServer) -> int:
    """VND that Stripe has of us, before its fees."""
    return sum(line["amount"] for line in stripe_server.books.of("balance_transaction"))


def payment(db: Connection, session: dict) -> payments.Payment:
    (found,) = payments.of_session(db, session["id"])
    return found


def agrees(db: Connection, stripe_server: StripeServer) -> bool:
    """Whether the ledger knows all that Stripe took, and nothing else."""
    return ledger.balance(db, "clearing/stripe") == taken(stripe_server)


# --- a card is kept ---------------------------------------------------------------------------------------------------
def test_start_by_card_needs_a_card(client, db):
    answer = start(client)
    assert (answer.status_code, answer.json["code"]) == (409, "no_card")
    assert client.get("/v1/sessions", role="driver").json["sessions"] == []


def test_declined_card_is_not_kept(client, db):
    answer = keep(client, "pm_card_chargeDeclinedInsufficientFunds")
    assert (answer.status_code, answer.json["code"]) == (402, "payment_declined")
    assert "insufficient_funds" in answer.json["detail"]
    assert start(client).json["code"] == "no_card"


def test_another_card_takes_the_place_of_the_first(client, db):
    assert keep(client).status_code == 204
    first = db.execute("SELECT payment_method FROM card").fetchall()
    assert keep(client, "pm_card_mastercard").status_code == 204
    assert db.execute("SELECT payment_method FROM card").fetchall() != first


# --- the ordinary way -------------------------------------------------------------------------------------------------
def test_session_holds_at_its_start_and_takes_its_fee_at_its_end(client, carded, db, clock, real, stripe_server):
    keep(client)
    session = start(client).json
    held = payment(db, session)
    assert (held.state, session["payment"]["state"], held.amount) == ("authorized", "authorized", 144_000)
    assert owed(db) == 0 and taken(stripe_server) == 0
    clock.advance(minutes=61)
    fee = stop(client, session).json["fee"]["amount"]
    assert fee == 60_000 == owed(db)
    work(carded, real)
    paid = payment(db, session)
    assert (paid.state, paid.paid, owed(db), taken(stripe_server)) == ("paid", fee, 0, fee)
    assert agrees(db, stripe_server)


def test_fixed_time_holds_its_own_price(client, db):
    keep(client)
    session = start(client, BODY | {"minutes": 60}).json
    assert payment(db, session).amount == session["fee"]["amount"] == 30_000


def test_fee_above_the_hold_leaves_the_rest_owed_and_collected(client, carded, db, clock, real, stripe_server):
    keep(client)
    session = start(client, BODY | {"minutes": 60}).json
    client.post(f"/v1/sessions/{session['id']}/extend", json={"minutes": 120}, role="driver")
    clock.advance(minutes=170)
    fee = stop(client, session).json["fee"]["amount"]
    work(carded, real)
    assert (payment(db, session).paid, owed(db)) == (30_000, fee - 30_000)
    assert card_jobs.collect(carded) == 1
    work(carded, real)
    assert (owed(db), taken(stripe_server)) == (0, fee) and agrees(db, stripe_server)


def test_free_stay_gives_the_hold_back(client, carded, db, real, stripe_server):
    keep(client)
    session = start(client).json
    db.execute("UPDATE active_session SET fee_amount = array_fill(0::bigint, ARRAY[cardinality(fee_amount)])")
    assert stop(client, session).json["fee"]["amount"] == 0
    work(carded, real)
    assert payment(db, session).state == "void" and taken(stripe_server) == 0


# --- declines and questions -------------------------------------------------------------------------------------------
def test_declined_start_is_taken_back(client, carded, db, stripe_server):
    keep(client, "pm_card_chargeCustomerFail")
    answer = start(client, key="k-1")
    assert (answer.status_code, answer.json["code"]) == (402, "payment_declined")
    assert "generic_decline" in answer.json["detail"]
    again = start(client, key="k-1")
    assert (again.status_code, again.json["code"]) == (402, "payment_declined")
    (session,) = client.get("/v1/sessions", role="driver").json["sessions"]
    assert (session["state"], session["fee"]["amount"]) == ("ended", 0)
    failed = payment(db, session)
    assert (failed.state, failed.failure) == ("failed", "generic_decline")
    assert db.execute("SELECT sum(occupied) FROM zone_occupancy").fetchone() == (0,)
    booked = "SELECT count(*) FROM ledger_transaction WHERE kind <> 'funding'"
    assert owed(db) == 0 and db.execute(booked).fetchone() == (0,)
    keep(client)
    assert start(client).status_code == 201, "the place and the plate are free again"


def test_authentication_step_is_handed_over_and_the_session_stands(client, carded, db, clock, real, stripe_server):
    keep(client, "pm_card_authenticationRequired")
    session = start(client).json
    asked = session["payment"]
    assert asked["state"] == "requires_action" and asked["action"]["kind"] == "client_secret"
    look = client.get(f"/v1/sessions/{session['id']}/payment", role="driver").json
    assert look == asked
    stripe_server.books.authenticate(payment(db, session).gateway_reference)
    stripe_server.hooks.deliver_all()
    webhooks.handle(carded)
    assert client.get(f"/v1/sessions/{session['id']}/payment", role="driver").json["state"] == "authorized"
    clock.advance(minutes=61)
    stop(client, session)
    work(carded, real)
    assert payment(db, session).state == "paid" and agrees(db, stripe_server)


def test_unanswered_question_ends_the_session_after_a_minute(client, carded, db, clock, real, stripe_server):
    keep(client, "pm_card_authenticationRequired")
    session = start(client).json
    clock.advance(seconds=59)
    work(carded, real, 1)
    assert client.get(f"/v1/sessions/{session['id']}", role="driver").json["state"] == "running"
    clock.advance(seconds=2)
    work(carded, real)
    ended = client.get(f"/v1/sessions/{session['id']}", role="driver").json
    assert (ended["state"], ended["fee"]["amount"], payment(db, session).state) == ("ended", 0, "void")
    assert stripe_server.books.of("payment_intent")[0]["status"] == "canceled"


def test_answered_question_whose_webhook_was_lost_is_found_out(client, carded, db, clock, real, stripe_server):
    keep(client, "pm_card_authenticationRequired")
    session = start(client).json
    stripe_server.books.authenticate(payment(db, session).gateway_reference)
    clock.advance(seconds=61)
    work(carded, real)
    assert payment(db, session).state == "authorized"
    assert client.get(f"/v1/sessions/{session['id']}", role="driver").json["state"] == "running"


def test_failed_authentication_ends_the_session(client, carded, db, real, stripe_server):
    keep(client, "pm_card_authenticationRequired")
    session = start(client).json
    stripe_server.books.authenticate(payment(db, session).gateway_reference, succeeds=False)
    stripe_server.hooks.deliver_all()
    work(carded, real)
    assert payment(db, session).state == "failed"
    assert client.get(f"/v1/sessions/{session['id']}", role="driver").json["state"] == "ended"


def test_stop_before_the_question_was_answered_is_owed(client, carded, db, clock, real, stripe_server):
    keep(client, "pm_card_authenticationRequired")
    session = start(client).json
    clock.advance(seconds=30)
    fee = stop(client, session).json["fee"]["amount"]
    work(carded, real)
    assert (payment(db, session).state, owed(db), taken(stripe_server)) == ("void", fee, 0)


def test_mistake_of_ours_is_parked_and_lets_the_session_stand(client, carded, db, clock, real, stripe_server, caplog):
    keep(client)
    stripe_server.key = "sk_test_another"
    session = start(client).json
    assert (session["state"], session["payment"]["state"]) == ("running", "void")
    assert db.execute("SELECT state FROM gateway_call").fetchall() == [("parked",)] and "is parked" in caplog.text
    clock.advance(minutes=61)
    fee = stop(client, session).json["fee"]["amount"]
    work(carded, real)
    assert (owed(db), taken(stripe_server)) == (fee, 0)
    stripe_server.key = "sk_test_fake"
    assert card_jobs.collect(carded) == 1
    work(carded, real)
    assert (owed(db), taken(stripe_server)) == (0, fee)


def test_fee_that_was_paid_at_a_bank_is_not_captured(client, carded, db, clock, real, stripe_server):
    keep(client)
    session = start(client).json
    clock.advance(minutes=61)
    fee = stop(client, session).json["fee"]["amount"]
    entries = {"bank": fee, "receivable/driver": -fee}
    ledger.post(db, [ledger.Posting("transfer", "FT1", clock.now(), entries)])
    work(carded, real)
    assert (payment(db, session).state, owed(db), taken(stripe_server)) == ("void", 0, 0)


# --- no answer --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fault", ["reset_before", "reset_after", "429", "503", "500_before", "500_after"])
def test_hold_without_an_answer_lets_the_session_stand_and_is_made_once(
    client, carded, db, clock, real, stripe_server, fault
):
    keep(client)
    stripe_server.fail("POST", INTENTS, fault)
    session = start(client).json
    assert session["payment"]["state"] == "unknown"
    work(carded, real)
    held = payment(db, session)
    assert held.state == "authorized"
    clock.advance(minutes=61)
    fee = stop(client, session).json["fee"]["amount"]
    work(carded, real)
    assert (taken(stripe_server), owed(db), payment(db, session).state) == (fee, 0, "paid")
    holds = [one for one in stripe_server.books.of("payment_intent") if one["status"] != "succeeded"]
    assert holds == [] and agrees(db, stripe_server)


@pytest.mark.parametrize("fault", ["reset_before", "reset_after", "429", "503", "500_before", "500_after"])
def test_capture_without_an_answer_takes_the_money_once(client, carded, db, clock, real, stripe_server, fault):
    keep(client)
    session = start(client).json
    clock.advance(minutes=61)
    fee = stop(client, session).json["fee"]["amount"]
    stripe_server.fail("POST", CAPTURE, fault)
    work(carded, real, 6)
    assert (taken(stripe_server), owed(db), payment(db, session).state) == (fee, 0, "paid")
    assert agrees(db, stripe_server)


def test_hold_whose_process_died_is_placed_by_the_job(client, carded, db, real, stripe_server, monkeypatch):
    keep(client)

    class Died(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Died

    with monkeypatch.context() as dying:
        dying.setattr(cards, "carry_out", die)
        with pytest.raises(Died):
            start(client)
    (session,) = client.get("/v1/sessions", role="driver").json["sessions"]
    assert payment(db, session).state == "created"
    work(carded, real)
    assert payment(db, session).state == "authorized" and len(stripe_server.books.of("payment_intent")) == 1


def test_card_that_was_replaced_meanwhile_changes_no_call_under_way(client, carded, db, real, stripe_server):
    keep(client)
    stripe_server.fail("POST", INTENTS, "reset_after")
    session = start(client).json
    keep(client, "pm_card_mastercard")
    work(carded, real)
    assert payment(db, session).state == "authorized" and len(stripe_server.books.of("payment_intent")) == 1


def test_key_that_stripe_has_forgotten_is_not_used_again(client, carded, db, real, stripe_server):
    keep(client)
    stripe_server.fail("POST", INTENTS, "reset_after")
    session = start(client).json
    stripe_server.forget_keys()
    real.advance(hours=21)
    work(carded, real)
    assert payment(db, session).state == "authorized" and len(stripe_server.books.of("payment_intent")) == 1


def test_expired_hold_leaves_the_fee_owed(client, carded, db, clock, real, stripe_server):
    keep(client)
    session = start(client).json
    real.advance(days=8)
    clock.advance(minutes=61)
    fee = stop(client, session).json["fee"]["amount"]
    work(carded, real)
    assert (payment(db, session).state, owed(db), taken(stripe_server)) == ("expired", fee, 0)
    assert card_jobs.collect(carded) == 1
    work(carded, real)
    assert (owed(db), taken(stripe_server)) == (0, fee)


# --- small fees -------------------------------------------------------------------------------------------------------
def ride(client: Client, clock: SteppedClock, number: int) -> int:
    """A motorbike's turn, for less than a card takes; its fee."""
    body = BIKE | {"plate": f"29-AB 123.{number:02}"}
    session = start(client, body).json
    assert (session["payment"]["state"], session["payment"]["failure"]) == ("void", "amount_too_small")
    clock.advance(minutes=30)
    fee: int = stop(client, session).json["fee"]["amount"]
    return fee


def test_small_fees_wait_and_are_charged_together(client, carded, db, clock, real, stripe_server):
    keep(client)
    fees = []
    while sum(fees) < STRIPE_MINIMUM:
        assert card_jobs.collect(carded) == 0
        fees.append(ride(client, clock, len(fees)))
    work(carded, real)
    assert owed(db) == sum(fees) and taken(stripe_server) == 0
    assert card_jobs.collect(carded) == 1 and card_jobs.collect(carded) == 0, "not again while that is under way"
    work(carded, real)
    assert (owed(db), taken(stripe_server), len(fees) > 1) == (0, sum(fees), True) and agrees(db, stripe_server)
    assert card_jobs.collect(carded) == 0


@pytest.mark.parametrize(("rule", "drawn"), [("wallet", True), ("wait", False)])
def test_small_fee_draws_on_the_wallet_where_it_may(client, carded, db, clock, stripe_server, rule, drawn):
    keep(client)
    fee = ride(client, clock, 0)
    ruled = replace(carded, settings=replace(carded.settings, small_fees=rule))
    assert card_jobs.collect(ruled) == drawn and card_jobs.collect(ruled) == 0
    assert (ledger.wallet(db, "driver").balance, owed(db)) == ((FUNDS - fee, 0) if drawn else (FUNDS, fee))


def test_declined_collection_is_tried_again_after_a_day_or_with_another_card(
    client, carded, db, clock, real, stripe_server
):
    keep(client)
    for number in range(3):
        ride(client, clock, number)
    (kept,) = db.execute("SELECT payment_method FROM card").fetchone()
    stripe_server.books.cards.decline_from_now_on(kept)
    assert card_jobs.collect(carded) == 1
    work(carded, real)
    assert owed(db) > 0 and card_jobs.collect(carded) == 0
    clock.advance(hours=25)
    assert card_jobs.collect(carded) == 1
    work(carded, real)
    assert card_jobs.collect(carded) == 0
    keep(client, "pm_card_mastercard")
    assert card_jobs.collect(carded) == 1
    work(carded, real)
    assert owed(db) == 0 and agrees(db, stripe_server)


def test_what_is_to_be_paid_in_another_way_is_not_charged_to_the_card(client, carded, db, clock, stripe_server):
    keep(client)
    session = start(client, BODY | {"payment_method": "vietqr"}).json
    clock.advance(minutes=61)
    fee = stop(client, session).json["fee"]["amount"]
    assert owed(db) == fee >= STRIPE_MINIMUM and card_jobs.collect(carded) == 0


# --- webhooks ---------------------------------------------------------------------------------------------------------
ORDERS: dict[str, Callable[[StripeServer], object]] = {
    "late": lambda server: server.hooks.deliver_all(),
    "backwards": lambda server: server.hooks.deliver_all(backwards=True),
    "twice": lambda server: server.hooks.deliver_all(times=2),
    "twice and backwards": lambda server: server.hooks.deliver_all(backwards=True, times=2),
}


@pytest.mark.parametrize("order", ORDERS)
def test_events_change_nothing_that_answers_have_said(client, carded, db, clock, real, stripe_server, order):
    keep(client)
    session = start(client).json
    clock.advance(minutes=61)
    fee = stop(client, session).json["fee"]["amount"]
    work(carded, real)
    before = payment(db, session), db.execute("SELECT count(*) FROM ledger_transaction").fetchone()
    ORDERS[order](stripe_server)
    work(carded, real)
    assert (payment(db, session), db.execute("SELECT count(*) FROM ledger_transaction").fetchone()) == before
    assert (taken(stripe_server), owed(db)) == (fee, 0)
    assert db.execute("SELECT count(*) FROM webhook_event WHERE state = 'parked'").fetchone() == (0,)


@pytest.mark.parametrize("order", ORDERS)
def test_events_alone_are_enough_where_every_answer_was_lost(client, carded, db, clock, real, stripe_server, order):
    keep(client)
    stripe_server.fail("POST", INTENTS, "reset_after")
    session = start(client).json
    ORDERS[order](stripe_server)
    webhooks.handle(carded)
    assert payment(db, session).state == "authorized"
    clock.advance(minutes=61)
    fee = stop(client, session).json["fee"]["amount"]
    real.advance(seconds=5)
    card_jobs.settle(carded)  # the hold is asked for once more, and there
    stripe_server.fail("POST", CAPTURE, "reset_after")
    card_jobs.look(carded)
    card_jobs.settle(carded)
    ORDERS[order](stripe_server)
    webhooks.handle(carded)
    assert (payment(db, session).state, owed(db)) == ("paid", 0)
    work(carded, real)
    assert taken(stripe_server) == fee and agrees(db, stripe_server)


def test_event_before_the_response_agrees_with_it(client, carded, db, clock, real, stripe_server):
    """The event is stored, and handled by another process, while we still wait for the answer."""
    keep(client)
    post = stripe_server.hooks.post
    assert post is not None
    stripe_server.hooks.post = lambda body, header: _in_thread(lambda: post(body, header), carded)
    stripe_server.hooks.when = "before"
    session = start(client).json
    assert session["payment"]["state"] == "authorized"
    clock.advance(minutes=61)
    fee = stop(client, session).json["fee"]["amount"]
    work(carded, real)
    assert (payment(db, session).state, owed(db), taken(stripe_server)) == ("paid", 0, fee)
    assert agrees(db, stripe_server)


def _in_thread(post: Callable[[], int], carded: Resources) -> int:
    """Deliver and handle an event in a thread of its own, as another process would."""
    answers: list[int] = []

    def run() -> None:
        answers.append(post())
        webhooks.handle(carded)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(timeout=10)
    return answers[0]


def test_refund_on_stripes_own_page_is_booked_once(client, carded, db, clock, real, stripe_server):
    keep(client)
    session = start(client).json
    clock.advance(minutes=61)
    fee = stop(client, session).json["fee"]["amount"]
    work(carded, real)
    intent = payment(db, session).gateway_reference
    for amount in (10_000, 5_000):
        stripe_server.books.refund({"payment_intent": intent, "amount": str(amount)})
    stripe_server.hooks.deliver_all(backwards=True, times=2)
    work(carded, real)
    assert ledger.balance(db, "refund") == 15_000 and taken(stripe_server) == fee - 15_000
    assert agrees(db, stripe_server)


@pytest.mark.parametrize("fault", [None, "reset_after", "500_after", "500_before"])
def test_refund_of_ours_is_made_and_booked_once(client, carded, db, clock, real, stripe_server, fault):
    keep(client)
    session = start(client).json
    clock.advance(minutes=61)
    stop(client, session)
    work(carded, real)
    if fault:
        stripe_server.fail("POST", "/v1/refunds", fault)
    outcome = cards.refund(carded, payment(db, session), 10_000)
    assert outcome.state == ("waiting" if fault else "done")
    stripe_server.hooks.deliver_all()
    work(carded, real)
    assert ledger.balance(db, "refund") == 10_000 and agrees(db, stripe_server)


def test_more_than_was_paid_is_not_given_back(client, carded, db, clock, real, stripe_server):
    keep(client)
    session = start(client).json
    clock.advance(minutes=61)
    stop(client, session)
    work(carded, real)
    outcome = cards.refund(carded, payment(db, session), 60_001)
    assert outcome.state == "parked" and ledger.balance(db, "refund") == 0


def test_event_of_a_payment_that_we_do_not_know_is_parked_and_one_that_is_not_ours_is_not(
    client, carded, db, real, stripe_server
):
    for metadata in ({"payment": "nobody's"}, {}):
        stripe_server.hooks.emit("payment_intent.succeeded", {"id": "pi_1", "metadata": metadata})
    stripe_server.hooks.deliver_all()
    work(carded, real, 8)
    rows = db.execute("SELECT state, error FROM webhook_event ORDER BY id").fetchall()
    assert [row[0] for row in rows] == ["parked", "handled"] and "UnknownPayment" in rows[0][1]


def test_starts_at_once_by_card_each_hold_their_own(client, carded, db, stripe_server):
    keep(client)
    answers = []

    def begin(number: int) -> None:
        own = client.application.test_client()
        answers.append(start(own, BODY | {"plate": f"30A-100.{number:02}"}))

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.status_code for one in answers] == [201] * 6
    assert len(stripe_server.books.of("payment_intent")) == 6
    assert all(payment(db, json.loads(one.data)).state == "authorized" for one in answers)


class TestRefunds:
    """What an operator gives back to a card, for sessions of 30,000 VND."""

    def refunded(self, client: Client, clock: SteppedClock, carded: Resources, real: Real) -> dict:
        keep(client)
        session = start(client).json
        clock.advance(minutes=30)
        stop(client, session)
        work(carded, real)
        asked = client.post("/v1/refunds", json={"session": session["id"], "reason": "kéo xe"}, role="driver").json
        return client.post(f"/v1/admin/refunds/{asked['id']}/approve", json={"amount": 10_000}, role="operator").json

    def test_go_back_by_the_gateway_once(self, client, clock, carded, real, db, stripe_server):
        made = self.refunded(client, clock, carded, real)
        assert made["state"] == "pending_gateway" and ledger.balance(db, "refund") == -10_000
        for _ in range(3):
            card_jobs.refund(carded)
            work(carded, real)
        assert db.execute("SELECT state FROM refund").fetchall() == [("refunded",)]
        assert (ledger.balance(db, "refund"), ledger.balance(db, "clearing/stripe")) == (0, 20_000)
        assert taken(stripe_server) == 20_000

    def test_that_get_no_answer_are_asked_for_again_with_the_same_key(
        self, client, clock, carded, real, db, stripe_server
    ):
        self.refunded(client, clock, carded, real)
        stripe_server.fail("POST", "/v1/refunds", "reset_after", times=1)
        for _ in range(3):
            card_jobs.refund(carded)
            work(carded, real)
        assert taken(stripe_server) == 20_000 == ledger.balance(db, "clearing/stripe")
        assert db.execute("SELECT state FROM refund").fetchall() == [("refunded",)]

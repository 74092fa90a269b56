"""Cards, behind the sessions: small fees that are collected, events of the gateway in any order, money given back."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from app import card_jobs, webhooks
from app.resources import Resources
from billing import ledger
from tests.app.carding import (
    BIKE,
    BODY,
    CAPTURE,
    INTENTS,
    STRIPE_MINIMUM,
    agrees,
    carded,
    client,
    db,
    keep,
    owed,
    payment,
    real,
    start,
    stop,
    taken,
    work,
)
from tests.conftest import FUNDS, Client, SteppedClock
from tests.fake_stripe import StripeServer

__all__ = ["carded", "client", "db", "real"]


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

"""A card charged at its driver's word: top-ups and what is owed, whatever the gateway answers, late, twice or never."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from app import card_jobs, cards, create_app, webhooks
from app.charges import ANSWER_TIME
from app.reconcile import run
from billing import ledger
from tests.app.carding import (
    INTENTS,
    STRIPE_MINIMUM,
    TOPUP,
    agrees,
    balance,
    booked,
    carded,
    client,
    db,
    keep,
    look,
    owe,
    owed,
    pay,
    real,
    taken,
    top_up,
    work,
)
from tests.conftest import Client
from tests.fake_stripe import StripeServer

__all__ = ["carded", "client", "db", "real"]
FAULTS = ["reset_before", "reset_after", "429", "503", "500_before", "500_after"]


# --- a top-up ---------------------------------------------------------------------------------------------------------
def test_topup_is_charged_at_once_and_is_in_the_wallet(client, db, stripe_server):
    keep(client)
    answer = top_up(client)
    made = answer.json
    assert (answer.status_code, made["purpose"], made["method"], made["state"]) == (201, "topup", "card", "paid")
    assert made["amount"] == made["paid"] == {"amount": 50_000, "currency": "VND"}
    assert (made["qr"], made["redirect_url"], made["action"], made["failure"]) == (None,) * 4
    assert (balance(db), taken(stripe_server)) == (50_000, 50_000) and agrees(db, stripe_server)
    assert look(client, made) == made
    assert client.get("/v1/payments", role="driver").json["payments"] == [made]
    assert client.get(f"/v1/payments/{made['id']}", role="driver-1").status_code == 404
    line = client.get("/v1/wallet/entries", role="driver").json["entries"][0]
    assert (line["kind"], line["amount"]["amount"], line["reference"]) == ("payment", 50_000, made["reference"])


def test_topup_by_payments_is_the_same_thing(client, db, stripe_server):
    keep(client)
    made = pay(client, "topup", amount=STRIPE_MINIMUM).json
    assert (made["state"], balance(db), taken(stripe_server)) == ("paid", STRIPE_MINIMUM, STRIPE_MINIMUM)


def test_topup_first_pays_what_is_owed(client, clock, db, stripe_server):
    keep(client)
    owe(client, clock)
    assert owed(db) == 60_000 and top_up(client, TOPUP | {"amount": 100_000}).json["state"] == "paid"
    assert (owed(db), balance(db)) == (0, 40_000) and agrees(db, stripe_server)


@pytest.mark.parametrize("path", ["/v1/wallet/topups", "/v1/payments"])
@pytest.mark.parametrize(
    "amount", [STRIPE_MINIMUM - 1, 10_000, 20_000_001, 99_999_999, 100_000_000, 0, -50_000, 50_000.0, "50000", None]
)
def test_amount_that_a_card_does_not_take_is_refused_with_field_and_rule(client, db, stripe_server, amount, path):
    keep(client)
    body = TOPUP | {"amount": amount} | ({"purpose": "topup"} if path == "/v1/payments" else {})
    answer = client.post(path, json=body, role="driver")
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_body")
    (error,) = answer.json["errors"]
    assert error["field"] == "amount" and error["rule"]
    if amount in (STRIPE_MINIMUM - 1, 10_000):
        assert error["rule"] == "by card 13000 VND at least"
    assert stripe_server.asked("POST", INTENTS) == []
    assert client.get("/v1/payments", role="driver").json["payments"] == []


def test_least_and_most_are_charged(client, db, stripe_server):
    keep(client)
    for amount in (STRIPE_MINIMUM, 20_000_000):
        assert top_up(client, TOPUP | {"amount": amount}).json["state"] == "paid"
    assert taken(stripe_server) == balance(db) == STRIPE_MINIMUM + 20_000_000


def test_topup_without_a_card_or_where_cards_are_not_set_up_is_refused(client, resources, db, stripe_server):
    answer = top_up(client, key="k")
    assert (answer.status_code, answer.json["code"]) == (409, "no_card")
    keep(client)
    assert top_up(client, key="k").json["state"] == "paid", "a refusal was not remembered"
    without = create_app(resources.settings, resources)
    without.test_client_class = Client
    answer = top_up(without.test_client())
    assert (answer.status_code, answer.json["code"]) == (409, "method_unavailable")


def test_declined_topup_says_why_each_time_and_another_card_pays(client, carded, db, real, stripe_server):
    keep(client, "pm_card_chargeCustomerFail")
    for _ in range(2):
        answer = top_up(client, key="k-1")
        assert (answer.status_code, answer.json["code"]) == (402, "payment_declined")
        assert "generic_decline" in answer.json["detail"]
    assert len(stripe_server.asked("POST", INTENTS)) == 1
    (failed,) = client.get("/v1/payments", role="driver").json["payments"]
    assert (failed["state"], failed["failure"], failed["paid"]) == ("failed", "generic_decline", None)
    keep(client)
    assert top_up(client, key="k-1").status_code == 402, "the key is of the payment that was declined"
    assert top_up(client, key="k-2").json["state"] == "paid"
    stripe_server.hooks.deliver_all(backwards=True, times=2)
    work(carded, real)
    assert balance(db) == taken(stripe_server) == 50_000 and look(client, failed)["state"] == "failed"


def test_gateways_own_minimum_is_no_decline(client, carded, db, stripe_server):
    """What is US$0.50 in VND moves: ours may lie below Stripe's for a while."""
    lower = create_app(carded.settings, replace(carded, settings=replace(carded.settings, stripe_minimum=1)))
    lower.test_client_class = Client
    keep(client)
    answer = top_up(lower.test_client(), TOPUP | {"amount": 12_000})
    assert (answer.status_code, answer.json["code"]) == (409, "amount_too_small") and balance(db) == 0


# --- one key, and one charge ------------------------------------------------------------------------------------------
def test_same_key_charges_once_and_another_body_is_a_conflict(client, db, stripe_server):
    keep(client)
    first = top_up(client, key="k")
    assert top_up(client, key="k").data == first.data
    other = top_up(client, TOPUP | {"amount": 60_000}, key="k")
    assert (other.status_code, other.json["code"]) == (422, "idempotency_conflict")
    assert balance(db) == taken(stripe_server) == 50_000
    assert top_up(client, key="k2").json["id"] != first.json["id"] and balance(db) == 100_000


def test_same_key_at_once_charges_once(client, carded, db, real, stripe_server):
    keep(client)
    answers, barrier = [], threading.Barrier(6)

    def ask() -> None:
        own = client.application.test_client()
        barrier.wait()
        answers.append(top_up(own, key="k"))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.status_code for one in answers} == {201} and len({one.json["id"] for one in answers}) == 1
    assert {one.json["state"] for one in answers} <= {"paid", "created"} and "paid" in {
        one.json["state"] for one in answers
    }
    work(carded, real)
    assert len(stripe_server.asked("POST", INTENTS)) == 1
    assert balance(db) == taken(stripe_server) == 50_000 and booked(db) == 1
    assert top_up(client, key="k").json["state"] == "paid"


# --- no answer --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fault", FAULTS)
def test_topup_without_an_answer_says_so_and_is_charged_once(client, carded, db, real, stripe_server, fault):
    keep(client)
    stripe_server.fail("POST", INTENTS, fault)
    answer = top_up(client, key="k")
    assert (answer.status_code, answer.json["state"], answer.json["paid"]) == (201, "unknown", None)
    assert top_up(client, key="k").json == answer.json and balance(db) == 0
    work(carded, real)
    assert look(client, answer.json)["state"] == "paid" and balance(db) == taken(stripe_server) == 50_000
    assert booked(db) == 1 and agrees(db, stripe_server)
    keys = {call.key for call in stripe_server.asked("POST", INTENTS)}
    assert len(keys) == (2 if fault == "500_before" else 1), "only a stored failure makes another key"
    assert top_up(client, key="k").json["state"] == "paid"


def test_topup_that_is_long_without_an_answer_is_asked_for_until_there_is_one(client, carded, db, real, stripe_server):
    keep(client)
    stripe_server.fail("POST", INTENTS, "503", times=6)
    made = top_up(client).json
    for _ in range(5):
        real.advance(minutes=11)
        card_jobs.settle(carded)
        assert look(client, made)["state"] == "unknown"
    real.advance(minutes=11)
    card_jobs.settle(carded)
    assert look(client, made)["state"] == "paid" and balance(db) == taken(stripe_server) == 50_000
    assert len({call.key for call in stripe_server.asked("POST", INTENTS)}) == 1


def test_decline_that_was_not_heard_is_found_out(client, carded, db, real, stripe_server):
    keep(client, "pm_card_chargeCustomerFail")
    stripe_server.fail("POST", INTENTS, "reset_after")
    made = top_up(client, key="k").json
    work(carded, real)
    assert (look(client, made)["state"], look(client, made)["failure"]) == ("failed", "generic_decline")
    assert top_up(client, key="k").status_code == 402 and balance(db) == taken(stripe_server) == 0


class Died(BaseException):
    """The process is killed."""


def die(*_: object, **__: object) -> None:
    raise Died


@pytest.mark.parametrize("where", ["before the call", "between call and booking"])
def test_charge_whose_process_died_is_made_and_booked_once(client, carded, db, real, stripe_server, monkeypatch, where):
    keep(client)
    with monkeypatch.context() as dying:
        if where == "before the call":
            dying.setattr(cards, "carry_out", die)
        else:
            dying.setattr(cards, "_note", die)
        with pytest.raises(Died):
            top_up(client, key="k")
    charged = 0 if where == "before the call" else 50_000
    assert (taken(stripe_server), balance(db)) == (charged, 0)
    again = top_up(client, key="k")
    assert (again.status_code, again.json["state"]) == (201, "created")
    work(carded, real)
    assert top_up(client, key="k").json["state"] == "paid"
    assert balance(db) == taken(stripe_server) == 50_000 and booked(db) == 1
    assert len(stripe_server.books.of("payment_intent")) == 1


def test_mistake_of_ours_is_parked_and_said(client, carded, db, real, stripe_server, caplog):
    keep(client)
    stripe_server.key = "sk_test_another"
    for _ in range(2):
        answer = top_up(client, key="k")
        assert (answer.status_code, answer.json["code"]) == (409, "payment_refused")
    (made,) = client.get("/v1/payments", role="driver").json["payments"]
    assert made["state"] == "void" and "is parked" in caplog.text
    assert db.execute("SELECT state FROM gateway_call").fetchall() == [("parked",)]
    stripe_server.key = "sk_test_fake"
    work(carded, real)
    assert balance(db) == taken(stripe_server) == 0


# --- the bank asks ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("by", ["webhook", "job"])
def test_question_is_handed_over_and_its_answer_is_heard(client, carded, db, clock, real, stripe_server, by):
    keep(client, "pm_card_authenticationRequired")
    answer = top_up(client, key="k")
    made = answer.json
    assert (answer.status_code, made["state"], made["action"]["kind"]) == (201, "requires_action", "client_secret")
    assert made["action"]["content"] and look(client, made) == made and top_up(client, key="k").json == made
    (intent,) = stripe_server.books.of("payment_intent")
    stripe_server.books.authenticate(intent["id"])
    if by == "webhook":
        stripe_server.hooks.deliver_all(backwards=True, times=2)
        webhooks.handle(carded)
    else:
        clock.advance(minutes=10)
        work(carded, real)
    paid = look(client, made)
    assert (paid["state"], paid["action"], balance(db), taken(stripe_server)) == ("paid", None, 50_000, 50_000)
    work(carded, real)
    assert booked(db) == 1 and agrees(db, stripe_server)


def test_unanswered_question_is_given_up_after_its_time(client, carded, db, clock, real, stripe_server):
    keep(client, "pm_card_authenticationRequired")
    made = top_up(client, key="k").json
    clock.advance(seconds=ANSWER_TIME.total_seconds() - 1)
    work(carded, real)
    assert look(client, made)["state"] == "requires_action"
    clock.advance(seconds=1)
    work(carded, real)
    assert (look(client, made)["state"], top_up(client, key="k").json["state"]) == ("void", "void")
    assert stripe_server.books.of("payment_intent")[0]["status"] == "canceled" and balance(db) == 0


def test_wrong_answer_fails(client, carded, db, real, stripe_server):
    keep(client, "pm_card_authenticationRequired")
    made = top_up(client).json
    (intent,) = stripe_server.books.of("payment_intent")
    stripe_server.books.authenticate(intent["id"], succeeds=False)
    stripe_server.hooks.deliver_all()
    work(carded, real)
    assert (look(client, made)["state"], balance(db)) == ("failed", 0)


def test_answer_that_meets_the_giving_up_is_booked_once(client, carded, db, clock, real, stripe_server):
    """The job has planned to give up, and the driver answers before it is carried out."""
    keep(client, "pm_card_authenticationRequired")
    made = top_up(client).json
    clock.advance(minutes=11)
    card_jobs.look(carded)
    (intent,) = stripe_server.books.of("payment_intent")
    stripe_server.books.authenticate(intent["id"])
    work(carded, real)
    assert look(client, made)["state"] == "paid" and balance(db) == taken(stripe_server) == 50_000


# --- whoever tells first ----------------------------------------------------------------------------------------------
ORDERS: dict[str, Callable[[StripeServer], object]] = {
    "late": lambda server: server.hooks.deliver_all(),
    "backwards": lambda server: server.hooks.deliver_all(backwards=True),
    "twice and backwards": lambda server: server.hooks.deliver_all(backwards=True, times=2),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("fault", [None, "reset_after"])
def test_events_in_any_order_book_it_once(client, carded, db, real, stripe_server, order, fault):
    keep(client)
    if fault:
        stripe_server.fail("POST", INTENTS, fault)
    made = top_up(client).json
    assert made["state"] == ("unknown" if fault else "paid")
    ORDERS[order](stripe_server)
    webhooks.handle(carded)
    assert look(client, made)["state"] == "paid" and balance(db) == 50_000
    work(carded, real)
    ORDERS[order](stripe_server)
    work(carded, real)
    assert (booked(db), taken(stripe_server), balance(db)) == (1, 50_000, 50_000)
    assert db.execute("SELECT count(*) FROM webhook_event WHERE state = 'parked'").fetchone() == (0,)


def test_event_before_the_response_books_it_once(client, carded, db, real, stripe_server):
    """The event is handled by another process while we still wait for the answer."""
    keep(client)
    post = stripe_server.hooks.post

    def deliver(body: bytes, header: str) -> int:
        answers: list[int] = []
        thread = threading.Thread(target=lambda: (answers.append(post(body, header)), webhooks.handle(carded)))
        thread.start()
        thread.join(timeout=10)
        return answers[0]

    stripe_server.hooks.post, stripe_server.hooks.when = deliver, "before"
    made = top_up(client).json
    assert made["state"] == "paid" and balance(db) == 50_000
    work(carded, real)
    assert (booked(db), taken(stripe_server)) == (1, 50_000) and agrees(db, stripe_server)


def test_reconciliation_books_what_nobody_told(client, carded, db, clock, real, stripe_server):
    keep(client)
    stripe_server.fail("POST", INTENTS, "reset_after")
    made = top_up(client).json
    stripe_server.books.now = lambda: clock.now().timestamp()
    for one in stripe_server.books.of("balance_transaction"):
        one["created"] = int(clock.now().timestamp())
    result = run(carded, clock.now().astimezone().date())
    assert result.as_dict()["healed"] == 1 and balance(db) == 50_000
    work(carded, real)
    assert look(client, made)["state"] == "paid" and (booked(db), balance(db)) == (1, 50_000)
    assert agrees_but_for_fees(db, stripe_server)


def agrees_but_for_fees(db, stripe_server: StripeServer) -> bool:
    return ledger.balance(db, "clearing/stripe") + ledger.balance(db, "fee/stripe") == taken(stripe_server)


def test_time_of_an_answer_is_of_the_payment(client, db, clock, stripe_server):
    keep(client)
    made = top_up(client).json
    row = db.execute("SELECT created_at, expires_at FROM payment WHERE id = %s", (made["id"],)).fetchone()
    assert row == (clock.now(), clock.now() + timedelta(minutes=10)) and made["expires_at"]

"""A session by card, against the fake Stripe: whatever answers come, late or never, session and money agree."""

import psycopg
import pytest

from app import card_jobs, cards, webhooks
from billing import ledger
from billing.ledger import Posting
from tests.app.carding import (
    BODY,
    CAPTURE,
    INTENTS,
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

__all__ = ["carded", "client", "db", "real"]


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


def test_card_is_asked_after_its_start_has_closed_the_plates_last_session(client, carded, db, clock, stripe_server):
    """What is refused before, leaves no trace; a card that is declined afterwards takes back its own start alone."""
    over = client.post("/v1/sessions", json=BODY | {"payment_method": "cash", "minutes": 30}, role="driver-1").json
    clock.advance(minutes=31)
    keep(client, "pm_card_chargeCustomerFail")
    limit = carded.settings.owed_limit + 1
    ledger.post(db, [Posting("test", "debt", clock.now(), {"receivable/driver": limit, "refund": -limit})])
    assert start(client).json["code"] == "owes_too_much"
    running = "SELECT array_agg(id::text), (SELECT count(*)::integer FROM payment) FROM active_session"
    assert db.execute(running).fetchone() == ([over["id"]], 0)
    ledger.post(db, [Posting("test", "paid", clock.now(), {"receivable/driver": -limit, "refund": limit})])
    assert start(client).json["code"] == "payment_declined"
    assert db.execute(running).fetchone() == (None, 1)
    keep(client)
    started = start(client)
    assert started.status_code == 201 and db.execute(running).fetchone() == ([started.json["id"]], 2)


def test_authentication_step_is_handed_over_and_the_session_stands(client, carded, db, clock, real, stripe_server):
    keep(client, "pm_card_authenticationRequired")
    session = start(client).json
    asked = session["payment"]
    assert asked["state"] == "requires_action" and asked["action"]["kind"] == "client_secret"
    look = client.get(f"/v1/sessions/{session['id']}/payment", role="driver").json
    assert {name: look[name] for name in asked} == asked
    assert (look["method"], look["status"], look["held"]["amount"]) == ("card", "open", 0)
    stripe_server.books.authenticate(payment(db, session).gateway_reference)
    stripe_server.hooks.deliver_all()
    webhooks.handle(carded)
    look = client.get(f"/v1/sessions/{session['id']}/payment", role="driver").json
    assert (look["state"], look["status"], look["held"]) == ("authorized", "held", look["amount"])
    clock.advance(minutes=61)
    stop(client, session)
    work(carded, real)
    assert payment(db, session).state == "paid" and agrees(db, stripe_server)
    look = client.get(f"/v1/sessions/{session['id']}/payment", role="driver").json
    assert (look["status"], look["held"]["amount"], look["captured"]) == ("paid", 0, look["fee"])


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


def test_stop_waits_for_nobody_who_notes_what_became_of_the_hold(client, carded, db, clock, database_url):
    """Who notes a decline holds the payment, and then takes the session back, which a stop holds."""
    keep(client)
    session = start(client).json
    clock.advance(minutes=61)
    with psycopg.connect(database_url) as noting:
        noting.execute("UPDATE payment SET state = state")
        assert stop(client, session).status_code == 200


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

"""What a driver owes, paid by card at his word: once, whoever else pays or charges it at the same time."""

import threading

import pytest

from app import card_jobs
from app.api.fields import local
from app.commands.ledger import SESSIONS
from billing import ledger, payments
from billing.check import check
from billing.ledger import Posting
from tests.app.carding import (
    BODY,
    INTENTS,
    STRIPE_MINIMUM,
    agrees,
    balance,
    carded,
    client,
    db,
    keep,
    owe,
    owed,
    pay,
    real,
    start,
    stop,
    taken,
    top_up,
    work,
)
from tests.app.giving_back import approve, tell

__all__ = ["carded", "client", "db", "real"]


def test_arrears_are_paid_by_card_as_a_whole_or_in_part(client, clock, db, stripe_server):
    keep(client)
    owe(client, clock)
    part = pay(client, "arrears", amount=20_000).json
    assert (part["state"], part["paid"]["amount"], owed(db)) == ("paid", 20_000, 40_000)
    rest = pay(client, "arrears", amount=1_000_000).json
    assert (rest["amount"]["amount"], owed(db), balance(db)) == (40_000, 0, 0) and agrees(db, stripe_server)
    answer = pay(client, "arrears")
    assert (answer.status_code, answer.json["code"]) == (409, "nothing_owed")


def test_session_is_paid_by_card_after_its_end(client, carded, clock, db, real, stripe_server):
    keep(client)
    first, second = (owe(client, clock, plate=plate) for plate in ("30A-123.45", "30A-123.46"))
    made = pay(client, "session", session=second["id"]).json
    assert (made["state"], made["session"], made["paid"]["amount"]) == ("paid", second["id"], 60_000)
    debts = client.get("/v1/wallet", role="driver").json["owed_sessions"]
    assert [(one["session"], one["amount"]["amount"]) for one in debts] == [(first["id"], 60_000)]
    assert pay(client, "session", session=second["id"]).json["code"] == "nothing_owed"
    work(carded, real)
    assert card_jobs.collect(carded) == 0, "what is to be paid by VietQR is not charged without being asked"
    assert (owed(db), taken(stripe_server)) == (60_000, 60_000) and agrees(db, stripe_server)


@pytest.mark.parametrize("card", ["pm_card_chargeCustomerFail", "pm_card_authenticationRequired"])
def test_session_whose_payment_fails_stays_as_it_ended(client, carded, clock, db, real, stripe_server, card):
    keep(client, card)
    session = owe(client, clock)
    answer = pay(client, "session", session=session["id"])
    assert answer.status_code == (402 if card == "pm_card_chargeCustomerFail" else 201)
    work(carded, real)
    (made,) = client.get("/v1/payments", role="driver").json["payments"]
    assert made["state"] == ("failed" if answer.status_code == 402 else "requires_action"), "it has its ten minutes"
    clock.advance(minutes=10)
    work(carded, real)
    assert client.get(f"/v1/sessions/{session['id']}", role="driver").json == session
    assert (owed(db), taken(stripe_server)) == (60_000, 0)
    keep(client)
    assert pay(client, "session", session=session["id"]).json["state"] == "paid" and owed(db) == 0


def debts(client) -> list[tuple[str, int]]:
    """For which sessions the wallet says how much is owed."""
    shown = client.get("/v1/wallet", role="driver").json["owed_sessions"]
    return [(one["session"], one["amount"]["amount"]) for one in shown]


@pytest.mark.parametrize("method", ["card", "vietqr"])
def test_session_that_was_paid_as_arrears_is_not_paid_again_out_of_anothers_debt(
    client, clock, db, stripe_server, method
):
    keep(client)
    first, second = owe(client, clock, minutes=150), owe(client, clock, plate="30A-123.46")
    assert pay(client, "arrears", amount=102_000).json["state"] == "paid"
    assert debts(client) == [(second["id"], 60_000)]
    answer = pay(client, "session", session=first["id"], method=method)
    assert (answer.status_code, answer.json["code"]) == (409, "nothing_owed")
    asked = pay(client, "session", session=second["id"], method=method).json
    assert (asked["session"], asked["amount"]["amount"]) == (second["id"], 60_000)
    assert [one for one in check(db, SESSIONS) if one.wrong] == []


@pytest.mark.parametrize("method", ["card", "vietqr"])
def test_session_of_whose_debt_a_part_was_given_back_is_paid_for_the_rest(client, clock, db, stripe_server, method):
    keep(client)
    first, second = (owe(client, clock, plate=plate, minutes=150) for plate in ("30A-123.45", "30A-123.46"))
    approve(client, first, 50_000)
    assert debts(client) == [(first["id"], 52_000), (second["id"], 102_000)]
    asked = pay(client, "session", session=first["id"], method=method).json
    assert asked["amount"]["amount"] == 52_000
    if method == "card":
        assert debts(client) == [(second["id"], 102_000)]
        assert taken(stripe_server) == 52_000 and agrees(db, stripe_server)
    assert [one for one in check(db, SESSIONS) if one.wrong] == []


def test_running_session_owes_nothing_yet(client, db, stripe_server):
    keep(client)
    session = start(client).json
    assert pay(client, "session", session=session["id"]).json["code"] == "nothing_owed"


def test_what_is_owed_is_less_than_a_card_takes(client, clock, db, stripe_server):
    keep(client)
    owe(client, clock)
    assert pay(client, "arrears", amount=50_000).json["state"] == "paid"
    answer = pay(client, "arrears")
    assert (answer.status_code, answer.json["code"], owed(db)) == (409, "amount_too_small", 10_000)
    assert "10000" in answer.json["detail"] and "13000" in answer.json["detail"]
    answer = pay(client, "arrears", amount=10_000)
    assert answer.status_code == 422 and answer.json["errors"][0]["field"] == "amount"


def test_one_charge_of_what_is_owed_at_a_time(client, carded, clock, db, real, stripe_server):
    keep(client)
    session = owe(client, clock)
    stripe_server.fail("POST", INTENTS, "reset_before")
    made = pay(client, "arrears", key="k").json
    assert made["state"] == "unknown"
    for refused in (pay(client, "arrears"), pay(client, "session", session=session["id"])):
        assert (refused.status_code, refused.json["code"]) == (409, "payment_under_way")
    assert pay(client, "arrears", key="k").json == made
    assert top_up(client).json["state"] == "paid", "a top-up pays of it what came, and the charge on its way the rest"
    work(carded, real)
    assert (owed(db), balance(db), taken(stripe_server)) == (0, 50_000, 110_000) and agrees(db, stripe_server)


def test_two_charges_of_what_is_owed_at_once_take_it_once(client, carded, clock, db, real, stripe_server):
    keep(client)
    owe(client, clock)
    answers, barrier = [], threading.Barrier(5)

    def ask() -> None:
        own = client.application.test_client()
        barrier.wait()
        answers.append(pay(own, "arrears"))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    codes = [one.json.get("code", one.json["state"] if one.status_code == 201 else "") for one in answers]
    assert codes.count("paid") == 1 and set(codes) <= {"paid", "payment_under_way", "nothing_owed"}
    work(carded, real)
    assert (owed(db), balance(db), taken(stripe_server)) == (0, 0, 60_000)


def test_charge_that_begins_behind_the_collectors_back_is_seen(client, carded, clock, db, real, stripe_server):
    keep(client)
    session = start(client, BODY | {"minutes": 60}).json
    client.post(f"/v1/sessions/{session['id']}/extend", json={"minutes": 60}, role="driver")
    clock.advance(minutes=110)
    stop(client, session)
    work(carded, real)
    card = db.execute("SELECT customer, payment_method FROM card").fetchone()
    seen = card_jobs.Waiting("driver", owed(db), 0, *card)
    stripe_server.fail("POST", INTENTS, "reset_before")
    assert pay(client, "arrears").json["state"] == "unknown"
    with db.transaction():
        assert card_jobs._collect(carded, db, clock.now(), seen) is False
    work(carded, real)
    assert (owed(db), balance(db)) == (0, 0) and agrees(db, stripe_server)


def test_capture_that_is_on_its_way_is_waited_for(client, carded, clock, db, real, stripe_server):
    keep(client)
    owe(client, clock, method="card")
    assert pay(client, "arrears").json["code"] == "payment_under_way"
    work(carded, real)
    assert (owed(db), taken(stripe_server)) == (0, 60_000)
    assert pay(client, "arrears").json["code"] == "nothing_owed"


def test_hold_of_a_running_session_is_not_in_the_way(client, clock, db, stripe_server):
    keep(client)
    owe(client, clock)
    assert start(client, BODY | {"plate": "30A-123.47"}).status_code == 201
    assert pay(client, "arrears").json["state"] == "paid" and owed(db) == 0


def test_what_a_driver_paid_by_card_for_others_does_not_keep_later_fees_from_being_collected(
    client, carded, clock, db, real, stripe_server
):
    """60,000 of a session by VietQR, paid by card at his word; then 30,000 above a hold, which the card still owes."""
    keep(client)
    owe(client, clock)
    assert pay(client, "arrears").json["state"] == "paid"
    session = start(client, BODY | {"minutes": 60}).json
    client.post(f"/v1/sessions/{session['id']}/extend", json={"minutes": 60}, role="driver")
    clock.advance(minutes=110)
    fee = stop(client, session).json["fee"]["amount"]
    work(carded, real)
    assert owed(db) == fee - 30_000 >= STRIPE_MINIMUM and card_jobs.collect(carded) == 1
    work(carded, real)
    assert owed(db) == 0 and card_jobs.collect(carded) == 0 and taken(stripe_server) == 60_000 + fee


def test_debt_by_card_that_was_paid_otherwise_is_not_collected_from_a_later_one(
    client, carded, clock, db, real, stripe_server
):
    """What was left by card is paid out of the wallet; what is then owed by VietQR is not for the card."""
    keep(client)
    session = start(client, BODY | {"minutes": 60}).json
    client.post(f"/v1/sessions/{session['id']}/extend", json={"minutes": 60}, role="driver")
    clock.advance(minutes=110)
    stop(client, session)
    work(carded, real)
    assert owed(db) == 30_000
    assert client.post("/v1/wallet/pay-owed", json={}, role="driver").json["paid"]["amount"] == 30_000
    owe(client, clock, plate="30A-123.46")
    assert owed(db) == 60_000 and card_jobs.collect(carded) == 0


def test_refund_of_a_session_that_two_payments_by_card_paid_goes_to_the_larger_one(
    client, carded, clock, db, real, stripe_server
):
    keep(client)
    session = start(client, BODY | {"minutes": 60}).json
    client.post(f"/v1/sessions/{session['id']}/extend", json={"minutes": 120}, role="driver")
    clock.advance(minutes=170)
    fee = stop(client, session).json["fee"]["amount"]
    work(carded, real)
    rest = pay(client, "session", session=session["id"]).json["paid"]["amount"]
    assert rest == fee - 30_000 > 30_000 and owed(db) == 0
    asked = client.post("/v1/refunds", json={"session": session["id"], "reason": "x"}, role="driver").json
    client.post(f"/v1/admin/refunds/{asked['id']}/approve", json={}, role="operator")
    for _ in range(3):
        card_jobs.refund(carded)
        work(carded, real)
    assert db.execute("SELECT state FROM refund").fetchall() == [("refunded",)]
    assert (taken(stripe_server), balance(db), ledger.balance(db, "refund")) == (30_000, 30_000, 0)
    assert agrees(db, stripe_server)


def test_topup_that_is_given_back_on_the_page_is_owed_for_no_session(client, carded, clock, db, real, stripe_server):
    """A session by card left 30,000, which the wallet paid; what is owed later is for money that went back."""
    keep(client)
    session = start(client, BODY | {"minutes": 60}).json
    client.post(f"/v1/sessions/{session['id']}/extend", json={"minutes": 60}, role="driver")
    clock.advance(minutes=110)
    stop(client, session)
    work(carded, real)
    assert owed(db) == 30_000
    assert client.post("/v1/wallet/pay-owed", json={}, role="driver").json["paid"]["amount"] == 30_000
    clock.advance(minutes=1)
    made = top_up(client).json
    spent = ledger.wallet(db, "driver").balance
    ledger.post(db, [Posting("spent", "1", clock.now(), {"wallet/driver": spent, "funding": -spent})])
    stripe_server.books.refund({"payment_intent": payments.find(db, made["id"]).gateway_reference, "amount": "40000"})
    clock.advance(minutes=1)
    tell(carded, real, stripe_server)
    assert owed(db) == 40_000
    (debt,) = client.get("/v1/wallet", role="driver").json["owed_sessions"]
    assert (debt["session"], debt["amount"]["amount"], debt["since"]) == (None, 40_000, local(clock.now()))
    assert client.get(f"/v1/sessions/{session['id']}/payment", role="driver").json["owed"]["amount"] == 0
    assert card_jobs.collect(carded) == 0, "what a card got back is not charged to it without its driver's word"
    later = owe(client, clock, plate="30A-123.46")
    debts = client.get("/v1/wallet", role="driver").json["owed_sessions"]
    assert [(one["session"], one["amount"]["amount"]) for one in debts] == [(None, 40_000), (later["id"], 60_000)]
    assert pay(client, "arrears", amount=50_000).json["state"] == "paid"
    (left,) = client.get("/v1/wallet", role="driver").json["owed_sessions"]
    assert (left["session"], left["amount"]["amount"]) == (later["id"], 50_000), "the oldest was paid first"


def test_debts_of_two_topups_given_back_are_each_as_old_as_they_are(client, clock, db, stripe_server):
    entries = {"receivable/driver": 40_000, "refund": -40_000}
    ledger.post(db, [Posting("given_back", "stripe/re_1", clock.now(), entries)])
    clock.advance(minutes=1)
    session = owe(client, clock)
    clock.advance(minutes=1)
    ledger.post(db, [Posting("given_back", "stripe/re_2", clock.now(), entries)])
    debts = client.get("/v1/wallet", role="driver").json["owed_sessions"]
    assert [(one["session"], one["amount"]["amount"]) for one in debts] == [
        (None, 40_000),
        (session["id"], 60_000),
        (None, 40_000),
    ]

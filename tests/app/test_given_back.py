"""Money that somebody gives back on Stripe's own page: whose it was, once, whatever comes at the same time."""

import threading
from uuid import uuid4

import psycopg
import pytest

from app import card_jobs, webhooks
from billing import calls, given_back, ledger
from billing.check import check
from billing.gateways import Refund
from billing.ledger import Posting
from tests.app.carding import agrees, carded, client, db, keep, owed, payment, real, start, stop, taken, work
from tests.app.giving_back import (
    DELIVERIES,
    FEE,
    approve,
    carry_out,
    in_wallet,
    left,
    page,
    parked,
    proved,
    rows,
    session,
    tell,
)
from tests.conftest import FUNDS

__all__ = ["carded", "client", "db", "page", "real", "session"]


# --- on the gateway's own page ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", DELIVERIES)
def test_refund_on_stripes_own_page_takes_the_charge_back(
    client, carded, db, clock, real, stripe_server, session, page, how
):
    page(10_000)
    page(5_000)
    tell(carded, real, stripe_server, **DELIVERIES[how])
    assert taken(stripe_server) == FEE - 15_000 and left(db) == (55_556 - 13_889, 4_444 - 1_111, 0)
    first, second = client.get("/v1/admin/refunds?state=refunded", role="operator").json["refunds"][::-1]
    assert (first["session"], first["client"], first["decided_by"]) == (session["id"], "driver", "stripe")
    assert {one["to_card"]["amount"] for one in (first, second)} == {10_000, 5_000}
    assert "given back on the page of stripe/re_" in first["reason"] and first["kind"] == "refund"
    assert rows(db) == [(10_000, 0, 0, "given"), (5_000, 0, 0, "given")]
    assert proved(carded, db, stripe_server)
    papers = client.get("/v1/receipts", role="driver").json["receipts"]
    assert sorted(paper["total"]["amount"] for paper in papers) == [-10_000, -5_000, FEE]
    assert db.execute("SELECT count(*) FROM einvoice").fetchone() == (3,)
    assert approve(client, session)["amount"]["amount"] == FEE - 15_000, "and no more than what is left of the charge"


def test_pieces_on_the_page_make_the_exact_opposite(client, carded, db, real, stripe_server, session, page):
    for amount in (20_001, 19_998, 1, 20_000):
        page(amount)
        tell(carded, real, stripe_server)
    assert left(db) == (0, 0, 0) and proved(carded, db, stripe_server)
    answer = client.post("/v1/refunds", json={"session": session["id"], "reason": "x"}, role="driver")
    assert answer.json["code"] == "refund_exceeds_charge"


def test_page_that_is_quicker_than_an_operators_order_fulfils_it(
    client, carded, db, real, stripe_server, session, page
):
    approve(client, session)
    assert left(db) == (0, 0, -FEE), "decided, and not made yet"
    page(FEE)
    stripe_server.hooks.deliver_all()
    webhooks.handle(carded)
    assert rows(db) == [(0, 0, FEE, "given")] and left(db) == (0, 0, 0), "what was decided is made"
    carry_out(carded, real)
    assert db.execute("SELECT state FROM gateway_call WHERE verb = 'refund'").fetchall() == [("done",)]
    assert db.execute("SELECT state, amount FROM refund").fetchall() == [("refunded", FEE)]
    assert taken(stripe_server) == 0 and in_wallet(db) == FUNDS and proved(carded, db, stripe_server)


def test_of_a_session_without_a_charge_is_our_loss(carded, db, real, stripe_server, session, page):
    db.execute("UPDATE payment SET session_id = %s WHERE session_id = %s", (uuid4(), session["id"]))
    page(1_000)
    tell(carded, real, stripe_server)
    assert rows(db) == [(0, 0, 1_000, "given")] and left(db) == (55_556, 4_444, 1_000)
    assert db.execute("SELECT count(*) FROM refund").fetchone() == (0,) and proved(carded, db, stripe_server)


def test_what_went_to_the_wallet_leaves_it_first(client, carded, db, clock, real, stripe_server):
    """The fee was paid at a bank while the card was charged for it: so much of the card's money is the driver's."""
    keep(client)
    session = start(client).json
    clock.advance(minutes=61)
    stop(client, session)
    card_jobs.look(carded)  # the capture is planned
    ledger.post(db, [Posting("transfer", "FT1", clock.now(), {"bank": 45_000, "receivable/driver": -45_000})])
    work(carded, real)
    assert (in_wallet(db), taken(stripe_server)) == (FUNDS + 45_000, FEE)
    intent = payment(db, session).gateway_reference
    stripe_server.books.refund({"payment_intent": intent, "amount": "50000"})
    tell(carded, real, stripe_server, times=2)
    assert rows(db) == [(5_000, 45_000, 0, "given")] and in_wallet(db) == FUNDS
    assert left(db) == (55_556 - 4_630, 4_444 - 370, 0) and proved(carded, db, stripe_server)


def test_collection_of_several_sessions_is_our_loss(client, carded, db, clock, real, stripe_server):
    keep(client)
    session = start(client, {"zone": "HK-001", "plate": "30A-123.45", "vehicle_class": "car", "payment_method": "card",
                             "minutes": 60}).json  # fmt: skip
    client.post(f"/v1/sessions/{session['id']}/extend", json={"minutes": 120}, role="driver")
    clock.advance(minutes=170)
    fee = stop(client, session).json["fee"]["amount"]
    work(carded, real)
    card_jobs.collect(carded)
    work(carded, real)
    assert taken(stripe_server) == fee and owed(db) == 0
    intent = stripe_server.books.of("payment_intent")[-1]["id"]
    stripe_server.books.refund({"payment_intent": intent, "amount": "20000"})
    tell(carded, real, stripe_server)
    assert rows(db) == [(0, 0, 20_000, "given")] and left(db)[2] == 20_000 and owed(db) == 0
    assert proved(carded, db, stripe_server) and card_jobs.collect(carded) == 0, "nobody is asked for it again"


def test_told_before_we_know_that_it_was_paid(client, carded, db, clock, real, stripe_server):
    """The answers to hold and capture were lost, and so were their events."""
    keep(client)
    session = start(client).json
    clock.advance(minutes=61)
    stop(client, session)
    stripe_server.fail("POST", "/v1/payment_intents/[^/]+/capture", "reset_after")
    card_jobs.look(carded)
    card_jobs.settle(carded)
    stripe_server.hooks.waiting.clear()
    stripe_server.books.refund({"payment_intent": payment(db, session).gateway_reference})
    assert payment(db, session).state == "authorized"
    tell(carded, real, stripe_server)
    assert payment(db, session).state == "paid" and owed(db) == 0
    assert left(db) == (0, 0, 0) and proved(carded, db, stripe_server)


# --- on the page, while an operator's order waits ---------------------------------------------------------------------
def given_up(carded, db, real) -> None:
    """The order's call is parked, and somebody gives it up."""
    carry_out(carded, real)
    key, state = db.execute("SELECT key, state FROM gateway_call WHERE verb = 'refund'").fetchone()
    assert state == "parked"
    calls.give_up(db, key)
    carry_out(carded, real)
    assert db.execute("SELECT state, amount FROM refund").fetchall() == [("refunded", FEE)]


def test_order_of_which_the_page_gave_a_part_puts_only_the_rest_into_the_wallet(
    client, carded, db, real, stripe_server, session, page
):
    approve(client, session)
    page(25_000)
    stripe_server.hooks.deliver_all()
    webhooks.handle(carded)
    assert rows(db) == [(0, 0, 25_000, "given")] and left(db) == (0, 0, 25_000 - FEE)
    given_up(carded, db, real)
    assert in_wallet(db) == FUNDS + FEE - 25_000 and left(db) == (0, 0, 0)
    page(FEE - 25_000)
    tell(carded, real, stripe_server)
    assert in_wallet(db) == FUNDS and left(db) == (0, 0, 0), "what is given twice leaves the wallet again"
    assert proved(carded, db, stripe_server) and taken(stripe_server) == 0


@pytest.mark.parametrize("told", ["before", "after"])
def test_order_that_the_page_fulfilled_leaves_what_the_payment_put_into_the_wallet(
    client, carded, db, clock, real, stripe_server, told
):
    """The fee was paid twice, at a bank and by card: 60,000 are in the wallet, and 60,000 are ordered back."""
    keep(client)
    session = start(client).json
    clock.advance(minutes=61)
    stop(client, session)
    card_jobs.look(carded)  # the capture is planned
    ledger.post(db, [Posting("transfer", "FT1", clock.now(), {"bank": FEE, "receivable/driver": -FEE})])
    work(carded, real)
    assert in_wallet(db) == FUNDS + FEE and approve(client, session)["to_card"]["amount"] == FEE
    stripe_server.hooks.deliver_all()
    webhooks.handle(carded)
    stripe_server.books.refund({"payment_intent": payment(db, session).gateway_reference})
    if told == "before":
        stripe_server.hooks.deliver_all()
        webhooks.handle(carded)
    carry_out(carded, real)
    tell(carded, real, stripe_server)
    assert db.execute("SELECT state FROM gateway_call WHERE verb = 'refund'").fetchall() == [("done",)]
    assert rows(db) == [(0, 0, FEE, "given")] and in_wallet(db) == FUNDS + FEE and left(db) == (0, 0, 0)
    assert proved(carded, db, stripe_server)


def test_page_that_leaves_enough_for_the_order_is_no_part_of_it(client, carded, db, real, stripe_server, session, page):
    approve(client, session, 20_000)
    page(40_000)
    stripe_server.hooks.deliver_all()
    webhooks.handle(carded)
    carry_out(carded, real)
    tell(carded, real, stripe_server)
    assert rows(db) == [(40_000, 0, 0, "given"), (20_000, 0, 0, "given")] and left(db) == (0, 0, 0)
    assert in_wallet(db) == FUNDS and proved(carded, db, stripe_server)


def test_order_that_was_given_up_and_is_then_given_back_on_the_page_leaves_the_wallet(
    client, carded, db, real, stripe_server, session, page
):
    approve(client, session)
    card_jobs.refund(carded)
    db.execute("UPDATE gateway_call SET state = 'parked', settled_at = made_at, error = 'x' WHERE verb = 'refund'")
    given_up(carded, db, real)
    assert in_wallet(db) == FUNDS + FEE
    page(45_000)
    page(15_000)
    tell(carded, real, stripe_server, times=2)
    assert rows(db) == [(0, 45_000, 0, "given"), (0, 15_000, 0, "given")] and in_wallet(db) == FUNDS
    assert left(db) == (0, 0, 0) and proved(carded, db, stripe_server)


# --- what was only held -----------------------------------------------------------------------------------------------
def test_hold_that_expired_gives_nothing_back(client, carded, db, clock, real, stripe_server):
    """Stripe lists what it never took as a refund; the fee is owed all the same."""
    keep(client)
    session = start(client).json
    clock.advance(minutes=61)
    real.advance(days=8)
    fee = stop(client, session).json["fee"]["amount"]
    work(carded, real)
    (release,) = stripe_server.books.of("refund")
    assert (release["reason"], release["balance_transaction"]) == ("expired_uncaptured_charge", None)
    tell(carded, real, stripe_server, times=2)
    assert payment(db, session).state == "expired" and owed(db) == fee
    assert rows(db) == [] and left(db) == (55_556, 4_444, 0) and proved(carded, db, stripe_server)


def test_what_a_capture_left_was_not_given_back(client, carded, db, real, stripe_server, clock):
    stripe_server.books.releases_are_refunds = True
    keep(client)
    session = start(client).json
    clock.advance(minutes=61)
    stop(client, session)
    work(carded, real)
    tell(carded, real, stripe_server)
    assert len(stripe_server.books.of("refund")) == 1 and rows(db) == [] and left(db) == (55_556, 4_444, 0)
    intent = payment(db, session).gateway_reference
    stripe_server.books.refund({"payment_intent": intent, "amount": "10000"})
    tell(carded, real, stripe_server)
    assert rows(db) == [(10_000, 0, 0, "given")] and left(db)[2] == 0, "the other one is listed again, and is none"
    assert proved(carded, db, stripe_server)


def test_hold_that_is_released_gives_nothing_back(client, carded, db, real, stripe_server, clock):
    stripe_server.books.releases_are_refunds = True
    keep(client)
    session = start(client).json
    clock.advance(minutes=61)
    stop(client, session)
    ledger.post(db, [Posting("transfer", "FT1", clock.now(), {"bank": FEE, "receivable/driver": -FEE})])
    work(carded, real)
    tell(carded, real, stripe_server)
    assert len(stripe_server.books.of("refund")) == 1 and payment(db, session).state == "void"
    assert rows(db) == [] and left(db) == (55_556, 4_444, 0) and proved(carded, db, stripe_server)


def test_of_a_second_charge_is_left_to_the_reconciliation(client, carded, db, real, stripe_server, session):
    first = stripe_server.books.of("payment_intent")[0]
    second = stripe_server.books.create_intent({
        "amount": "60000", "currency": "vnd", "payment_method": "pm_card_visa", "confirm": "true",
        "capture_method": "automatic", "metadata": dict(first["metadata"]),
    })  # fmt: skip
    stripe_server.books.refund({"payment_intent": second["id"]})
    tell(carded, real, stripe_server)
    assert rows(db) == [] and left(db)[2] == 0 and parked(db) == 0
    assert ledger.balance(db, "clearing/stripe") == FEE == taken(stripe_server)


def test_order_that_nobody_fulfilled_is_found(client, carded, db, real, stripe_server, session, page):
    approve(client, session)
    page(FEE)
    tell(carded, real, stripe_server)
    carry_out(carded, real)
    assert proved(carded, db, stripe_server)
    db.execute("UPDATE gateway_refund SET of_orders = of_orders - 1")
    (found,) = [one for one in check(db) if one.name == "refunds_by_card"]
    assert (found.checked, found.wrong) == (1, 1)
    assert found.first == (f"payment {payment(db, session).id}: 60000 settled by the gateway's page, which gave 59999",)


def test_order_that_is_called_done_and_is_not_is_found(client, carded, db, session):
    approve(client, session)
    assert [one.name for one in check(db) if one.wrong] == []
    db.execute("UPDATE refund SET state = 'refunded'")
    assert [one.name for one in check(db) if one.wrong] == ["refunds_by_card"]


def test_two_who_are_told_at_once_book_it_once(carded, db, database_url, clock, stripe_server, session, page):
    made = [Refund(page(20_000), 20_000, "paid"), Refund(page(40_000), 40_000, "paid")]
    paid, ready = payment(db, session), threading.Barrier(6)
    errors: list[Exception] = []

    def hear(number: int) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            ready.wait(20)
            try:
                for one in made[:: 1 if number % 2 else -1]:
                    given_back.book(connection, paid, one, "stripe", clock.now())
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=hear, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and left(db) == (0, 0, 0) and agrees(db, stripe_server)
    assert db.execute("SELECT sum(amount), count(*) FROM refund").fetchone() == (FEE, 2)


def test_page_and_operator_at_once_give_back_no_more_than_the_charge(
    client, carded, db, database_url, clock, stripe_server, session, page
):
    asked = client.post("/v1/refunds", json={"session": session["id"], "reason": "x"}, role="driver").json
    made, paid, ready = Refund(page(40_000), 40_000, "paid"), payment(db, session), threading.Barrier(2)

    def hear() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            ready.wait(20)
            given_back.book(connection, paid, made, "stripe", clock.now())

    thread = threading.Thread(target=hear)
    thread.start()
    ready.wait(20)
    path = f"/v1/admin/refunds/{asked['id']}/approve"
    answer = client.application.test_client().post(path, json={"amount": 40_000}, role="operator")
    thread.join()
    if answer.status_code == 409:
        assert answer.json["code"] == "refund_exceeds_charge" and rows(db) == [(40_000, 0, 0, "given")]
    else:
        assert rows(db) == [(20_000, 0, 20_000, "given")]
    (given,) = db.execute("SELECT sum(amount) FROM refund").fetchone()
    assert given == (40_000 if answer.status_code == 409 else FEE)
    assert [one for one in check(db) if one.wrong] == []


def test_killed_in_the_middle_books_nothing_and_then_all(carded, db, clock, stripe_server, session, page, monkeypatch):
    made, paid = Refund(page(20_000), 20_000, "paid"), payment(db, session)
    before = db.execute("SELECT count(*) FROM ledger_transaction").fetchone()

    class Died(BaseException):
        pass

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as dying:
        dying.setattr(given_back, "_note", die)
        with pytest.raises(Died):
            given_back.book(db, paid, made, "stripe", clock.now())
    assert db.execute("SELECT count(*) FROM ledger_transaction").fetchone() == before and rows(db) == []
    assert db.execute("SELECT count(*) FROM refund").fetchone() == (0,)
    given_back.book(db, paid, made, "stripe", clock.now())
    assert rows(db) == [(20_000, 0, 0, "given")] and agrees(db, stripe_server)

"""A day's reconciliation: whatever went wrong, every difference has a kind, and no đồng is left unexplained."""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import date, datetime, timedelta

import psycopg
import pytest
from psycopg import Connection
from sqlalchemy import Engine

from billing import given_back, ledger, payments, transfers
from billing.errors import GatewayUnavailable
from billing.gateways import Refund
from billing.gateways.stripe import Stripe
from billing.ledger import Posting
from billing.reconcile import Result, lists, reconcile
from billing.reconcile.days import HANOI, least_id, span_of
from billing.transfers import Credit
from tests.billing.payments_of_a_day import FAULTS, Town
from tests.fake_stripe import StripeServer

DEEP = bool(os.environ.get("IPARKING_TEST_DEEP"))
PAYMENTS = 100_000 if DEEP else 2_000
DAY = date(2026, 10, 14)
NOW = datetime(2026, 10, 16, 3, tzinfo=HANOI)


@pytest.fixture
def url(engine: Engine) -> str:
    return engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
def db(url: str) -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection
        (out_of_balance,) = connection.execute("SELECT COALESCE(sum(amount), 0) FROM ledger_entry").fetchone()
        assert out_of_balance == 0


@pytest.fixture
def stripe(stripe_server: StripeServer) -> Stripe:
    return Stripe(stripe_server.key, stripe_server.url)


@pytest.fixture
def town(db: Connection, stripe_server: StripeServer, tmp_path) -> Town:
    return Town(db, stripe_server, tmp_path, DAY)


def run(town: Town, stripe: Stripe, day: date = DAY, now: datetime = NOW, db: Connection | None = None) -> Result:
    """All rails of a day, with their lists."""
    with ExitStack() as stack:
        read = [lists.of_cards(stripe, "stripe", day, now), *lists.of_statement(town.statement, day),
                lists.of_vnpay(town.vnpay, day), lists.of_shifts(day)]  # fmt: skip
        for one in read:
            stack.enter_context(one)
        return reconcile(db or town.db, day, read, stripe, now)


def found(result: Result) -> Counter:
    return Counter((one.gateway, one.kind, one.state) for one in result.differences)


def kinds(result: Result) -> list[tuple[str, str, int]]:
    return [(one.kind, one.state, one.amount) for one in result.differences]


def transactions(db: Connection) -> int:
    return db.execute("SELECT count(*) FROM ledger_transaction").fetchone()[0]


def taken(stripe_server: StripeServer) -> dict[str, int]:
    """What each payment took from its driver's card, by our reference."""
    taken: Counter[str] = Counter()
    for charge in stripe_server.books.of("charge"):
        taken[charge["metadata"]["payment"]] += charge["amount_captured"] - charge["amount_refunded"]
    return taken


def paid_too_much(db: Connection) -> list[str]:
    """Drivers of whom more was taken than they owed: it would lie in a wallet, or below zero among the debts."""
    query = "SELECT owner FROM wallet WHERE kind = 'wallet' AND (balance <> 0 OR owed < 0)"
    return [row[0] for row in db.execute(query)]


def at_stripe(stripe_server: StripeServer) -> int:
    """Stripe's own balance of ours."""
    return sum(line["amount"] - line["fee"] for line in stripe_server.books.of("balance_transaction"))


def open_amount(result: Result, gateway: str) -> int:
    return sum(one.amount for one in result.differences if one.gateway == gateway and one.state == "open")


def with_faults(town: Town, number: int) -> None:
    """Payments over all rails, one in forty with a fault, and each fault at least twice."""
    wanted = [(method, fault) for method, faults in FAULTS.items() for fault in faults for _ in range(2)]
    for n in range(number):
        method = town.random.choices(list(FAULTS), (4, 4, 2, 1))[0]
        fault = town.random.choice(list(FAULTS[method])) if town.random.random() < 1 / 40 else None
        town.pay(*(wanted[n] if n < len(wanted) else (method, fault)))
    town.write()


def test_day_with_every_fault_has_no_dong_unexplained(db, town, stripe, stripe_server):
    with_faults(town, PAYMENTS)
    result = run(town, stripe)
    told = result.as_dict()
    assert found(result) == town.expected
    assert told["unexplained"] == 0 and told["differences"] == town.expected.total()
    assert told["payments"] == PAYMENTS + town.expected["stripe", "doubled", "healed"]
    assert all(took <= town.asked[reference] for reference, took in taken(stripe_server).items())
    assert paid_too_much(db) == []
    assert at_stripe(stripe_server) - ledger.balance(db, "clearing/stripe") == open_amount(result, "stripe")

    before = transactions(db), taken(stripe_server)
    assert run(town, stripe, now=NOW + timedelta(hours=1)).as_dict() == told
    assert (transactions(db), taken(stripe_server)) == before


# --- boundaries -------------------------------------------------------------------------------------------------------
def test_day_begins_and_ends_at_midnight_in_hanoi(db, town, stripe):
    """
    ----13th----|------------14th------------|----15th----
               x|x                          x|x
    """
    span, second = span_of(DAY), timedelta(seconds=1)
    assert span.since.isoformat() == "2026-10-14T00:00:00+07:00"
    for method in FAULTS:
        for at in (span.since - second, span.since, span.until - second, span.until):
            town.pay(method, at=at)
    town.write()
    result = run(town, stripe)
    assert [(one.gateway, one.payments) for one in result.gateways] == [
        ("bank", 0), ("cash", 2), ("stripe", 2), ("vietqr", 2), ("vnpay", 2)
    ]  # fmt: skip
    assert result.differences == []


def test_ids_of_a_day_are_bounded_by_its_instants():
    for at in (datetime(2026, 10, 14, tzinfo=HANOI), datetime(2026, 10, 31, 23, 59, 59, 999_000, tzinfo=HANOI)):
        step = timedelta(milliseconds=1)
        assert payments.new_id(at - step) < least_id(at) <= payments.new_id(at) < least_id(at + step)


def test_line_and_booking_on_two_sides_of_midnight_are_matched(db, town, stripe):
    reference = town.pay("vietqr", "booked_next_day", span_of(DAY).until - timedelta(seconds=2))
    town.pay("vietqr", at=span_of(DAY).until + timedelta(hours=30))  # the statement goes on for two days
    town.write()
    amount = town.asked[reference]
    assert kinds(run(town, stripe)) == [("late", "explained", amount)]
    next_day = run(town, stripe, DAY + timedelta(days=1), NOW + timedelta(days=1))
    assert kinds(next_day)[0] == ("late", "explained", -amount) and next_day.as_dict()["unexplained"] == 0


def test_day_with_nothing_is_reconciled(db, town, stripe):
    town.write()
    told = run(town, stripe).as_dict()
    assert [told[name] for name in ("payments", "differences", "healed", "unexplained")] == [0, 0, 0, 0]
    assert transactions(db) == 0


def test_last_day_of_a_month_is_found_in_the_statement_of_the_month(db, stripe_server, stripe, tmp_path):
    last = date(2026, 10, 31)
    town = Town(db, stripe_server, tmp_path, last)
    for n in range(3):
        town.pay("vietqr", at=datetime(2026, 10, 1 + 15 * n, 23, 59, tzinfo=HANOI))
    town.write()
    result = run(town, stripe, last, datetime(2026, 11, 1, 4, tzinfo=HANOI))
    assert ("vietqr", 1) in [(one.gateway, one.payments) for one in result.gateways] and result.differences == []


def test_statement_of_another_day_is_refused(db, town, stripe):
    town.pay("vietqr")
    town.write()
    with pytest.raises(lists.WrongDay, match="lines from 2026-10-14 to 2026-10-14, and none of"):
        run(town, stripe, DAY + timedelta(days=1))
    assert db.execute("TABLE reconciliation").rowcount == 0


@pytest.mark.parametrize("fault", ["503", "reset_before"])
def test_gateway_that_is_away_leaves_nothing_half_done(db, town, stripe, stripe_server, fault):
    for _ in range(3):
        town.pay("card", "lost_webhook")
    town.write()
    before = transactions(db)
    stripe_server.fail("GET", "/v1/balance_transactions", fault)
    with pytest.raises(GatewayUnavailable):
        run(town, stripe)
    assert db.execute("TABLE reconciliation").rowcount == 0 and transactions(db) == before
    assert found(run(town, stripe)) == town.expected


def test_gateway_that_goes_away_while_healing_is_asked_by_the_next_run(db, town, stripe, stripe_server):
    for _ in range(3):
        town.pay("card", "lost_webhook")
    town.write()
    stripe_server.fail("GET", "/v1/payment_intents/[^/]+", "503")
    first = run(town, stripe)
    assert [one.state for one in first.differences].count("open") == 1 and first.as_dict()["unexplained"] == 0
    assert found(run(town, stripe)) == town.expected


# --- healing ----------------------------------------------------------------------------------------------------------
def test_two_runs_at_once_heal_once(url, db, town, stripe, stripe_server):
    with_faults(town, 60)
    ready = threading.Barrier(2)

    def one(_: int) -> Result:
        with psycopg.connect(url, autocommit=True) as connection:
            ready.wait(20)
            return run(town, stripe, db=connection)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, range(2)))
    result = run(town, stripe)
    assert found(result) == town.expected and result.as_dict()["unexplained"] == 0
    assert at_stripe(stripe_server) - ledger.balance(db, "clearing/stripe") == open_amount(result, "stripe")
    assert all(took <= town.asked[reference] for reference, took in taken(stripe_server).items())


def test_second_charge_that_was_given_back_by_hand_is_only_booked(db, town, stripe, stripe_server):
    reference = town.pay("card", "doubled_charge")
    town.write()
    second = stripe_server.books.of("payment_intent")[-1]
    stripe_server.books.refund({"payment_intent": second["id"]})
    assert ("doubled", "healed", town.asked[reference]) in kinds(run(town, stripe))
    assert len(stripe_server.books.of("refund")) == 1 and at_stripe(stripe_server) == ledger.balance(
        db, "clearing/stripe"
    )


def test_second_charge_is_not_given_back_while_the_first_does_not_stand(db, town, stripe, stripe_server):
    reference = town.pay("card", "doubled_charge")
    town.write()
    stripe_server.books.of("payment_intent")[0]["status"] = "canceled"
    (doubled,) = run(town, stripe).differences
    assert (doubled.kind, doubled.state) == ("doubled", "open") and "the first charge is void" in doubled.error
    assert stripe_server.books.of("refund") == [] and taken(stripe_server)[reference] == 2 * town.asked[reference]


def test_charge_for_nobody_is_listed_with_the_next_step(db, town, stripe, stripe_server):
    town.write()
    stripe_server.books.now = span_of(DAY).since.timestamp
    town._charge("not-a-payment-of-ours", 50_000, span_of(DAY).since)
    (one,) = run(town, stripe).differences
    assert (one.kind, one.state, one.amount) == ("missing_at_us", "open", 50_000)
    assert "find out whose" in one.next_step and "no payment of ours" in one.error


def test_charge_that_is_not_paid_any_more_is_not_booked(db, town, stripe, stripe_server):
    town.pay("card", "lost_webhook")
    town.write()
    stripe_server.books.of("payment_intent")[0]["status"] = "canceled"
    (one,) = run(town, stripe).differences
    assert one.state == "open" and "the gateway says now: void" in one.error
    assert ledger.balance(db, "clearing/stripe") == -one.amount * 34 // 1000


def test_fees_and_payouts_are_booked_once(db, town, stripe, stripe_server):
    for method in ("card", "vietqr", "vnpay"):
        town.pay(method)
    town.write()
    card, transfer, order = town.asked.values()
    stripe_server.books.now = (span_of(DAY).since + timedelta(hours=20)).timestamp
    fee = card * 34 // 1000
    payout = stripe_server.books._book("payout", fee - card, "po_1")
    for hour in range(2):
        assert run(town, stripe, now=NOW + timedelta(hours=hour)).differences == []
        assert ledger.balance(db, "clearing/stripe") == 0 and ledger.balance(db, "fee/stripe") == fee
        assert ledger.balance(db, "bank") == card - fee + transfer  # the statement shows transfers there already
        assert ledger.balance(db, "clearing/vietqr") == 0
        assert ledger.balance(db, "clearing/vnpay") == order - order // 100
    assert db.execute("SELECT FROM ledger_transaction WHERE reference = %s", [f"stripe/{payout['id']}"]).rowcount == 1


def test_line_that_comes_later_is_booked_beside_the_first_ones(db, town, stripe, stripe_server):
    town.pay("card")
    town.write()
    run(town, stripe)
    town._charge(town.pay("card", "lost_response"), 20_000, span_of(DAY).since)
    before = ledger.balance(db, "fee/stripe")
    run(town, stripe)
    assert ledger.balance(db, "fee/stripe") > before
    references = db.execute("SELECT reference FROM ledger_transaction WHERE kind = 'fee' ORDER BY 1").fetchall()
    assert references == [("stripe/2026-10-14",), ("stripe/2026-10-14/2",)]


# --- without a file, and afterwards -----------------------------------------------------------------------------------
def credits_only(db: Connection, now: datetime = NOW) -> Result:
    with lists.of_credits("vietqr", DAY) as told:
        return reconcile(db, DAY, [told], None, now)


def test_without_a_statement_the_credits_that_we_were_told_of_count(db):
    at = span_of(DAY).since
    transfers.receive(db, Credit("vietqr", "FT1", 25_000, at, "cam on"), at)
    result = credits_only(db)
    assert kinds(result) == [("unmatched_credit", "open", 25_000)] and result.gateways[0].source == "credits"
    assert "assign it" in result.differences[0].next_step


def test_credit_that_is_assigned_later_is_explained_by_the_next_run(db):
    at = span_of(DAY).since
    transfers.receive(db, Credit("vietqr", "FT1", 25_000, at, "cam on"), at)
    credits_only(db)
    transfers.assign(db, "vietqr", "FT1", "driver-1", NOW)
    assert kinds(credits_only(db)) == [("late", "explained", 25_000)]


def test_comparison_with_a_file_is_not_replaced_by_one_without(db, town, stripe):
    town.pay("vietqr", "unknown_to_bank")
    town.pay("vietqr")
    town.write()
    told = run(town, stripe)
    again = credits_only(db, NOW + timedelta(days=1))
    assert again.differences == told.differences and again.gateways == told.gateways


def test_difference_that_an_operator_puts_right_is_explained_by_the_next_run(db, town, stripe):
    town.pay("card", "unknown_to_stripe")
    town.write()
    assert found(run(town, stripe)) == town.expected
    (wrong,) = db.execute("SELECT id FROM ledger_transaction WHERE kind = 'payment'").fetchone()
    ledger.reverse(db, wrong, "by-hand", NOW + timedelta(days=9))
    (one,) = run(town, stripe).differences
    assert (one.kind, one.state, one.ours) == ("late", "explained", 0)


def test_payment_row_that_disagrees_with_the_ledger_is_unexplained(db, town, stripe):
    town.pay("card")
    town.write()
    db.execute("UPDATE payment SET paid = paid + 7")
    result = run(town, stripe)
    assert kinds(result) == [("payment_row", "open", 7)] and result.as_dict()["unexplained"] == 7


def test_refund_of_a_topup_that_is_spent_is_owed(db, town, stripe, stripe_server):
    amount = town.asked[town.pay("card", "page_refund")]
    posting = town._postings.pop()
    town._postings.append(replace(posting, entries={"clearing/stripe": amount, "wallet/driver-0": -amount}))
    town.write()
    ledger.post(db, [Posting("spent", "1", NOW, {"wallet/driver-0": amount, "funding": -amount})])
    owed = ledger.wallet(db, "driver-0").owed
    (one,) = run(town, stripe).differences
    assert (one.kind, one.state) == ("refund_at_gateway", "healed")
    assert ledger.wallet(db, "driver-0") == ledger.Wallet(0, 0, owed + amount // 2)
    assert ledger.balance(db, "refund") == 0


def test_refund_that_failed_and_of_which_nobody_told_is_booked_back(db, town, stripe, stripe_server):
    reference = town.pay("card", "page_refund")
    town.write()
    (refund,) = stripe_server.books.of("refund")
    paid, at = payments.find_by_reference(db, reference), span_of(DAY).since
    given_back.book(db, paid, Refund(refund["id"], refund["amount"], "paid"), "stripe", at)
    assert run(town, stripe).differences == []
    failed_on = DAY + timedelta(days=4)
    stripe_server.books.now = (span_of(failed_on).since + timedelta(hours=23)).timestamp
    stripe_server.books.fail_refund(refund["id"])
    for _ in range(2):
        with lists.of_cards(stripe, "stripe", failed_on, NOW + timedelta(days=9)) as listed:
            (one,) = reconcile(db, failed_on, [listed], stripe, NOW + timedelta(days=9)).differences
        assert (one.kind, one.state, one.amount) == ("refund_failed", "healed", refund["amount"])
        assert ledger.balance(db, "refund") == 0 and at_stripe(stripe_server) == ledger.balance(db, "clearing/stripe")

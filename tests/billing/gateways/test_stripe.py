"""The card gateway on the fake Stripe: what is held, taken and given back, and what is known after a failure."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.errors import (
    AmountTooLarge,
    AmountTooSmall,
    GatewayUnavailable,
    HoldGone,
    KeyMisused,
    PaymentDeclined,
    PaymentRefused,
    UnknownPayment,
)
from billing.gateways import Action, Card, CardGateway, Demand, stripe_shapes
from billing.gateways.stripe import MAXIMUM, MINIMUM, Stripe
from tests.fake_stripe import StripeServer
from tests.fake_stripe.fixture import load_check

INTENTS = "/v1/payment_intents"
CAPTURE = "/v1/payment_intents/[^/]+/capture"


@pytest.fixture
def gateway(stripe_server: StripeServer) -> Stripe:
    return Stripe(stripe_server.key, stripe_server.url, timeout=0.5)


@pytest.fixture
def card(gateway: Stripe) -> Card:
    return gateway.keep_card("driver-1", "pm_card_visa", "card-1")


def demand(amount: int = 50_000, key: str = "key-1", reference: str = "payment-1") -> Demand:
    return Demand(reference, key, amount, "30A-123.45, HK-001")


def test_it_is_a_card_gateway(gateway: Stripe):
    held: CardGateway = gateway  # mypy's part; here, that the verbs and their arguments are the protocol's
    for name, verb in inspect.getmembers(CardGateway, inspect.isfunction):
        if not name.startswith("_"):
            assert list(inspect.signature(verb).parameters)[1:] == list(
                inspect.signature(getattr(held, name)).parameters
            )


def test_every_request_is_checked_against_stripes_own_schemas(shared: Path):
    check = load_check(shared)
    with pytest.raises(AssertionError, match="tariff"):
        check("POST", INTENTS, "amount=50000&currency=vnd&tariff=1")


# --- hold, capture, release -------------------------------------------------------------------------------------------
def test_hold_is_captured_in_part_and_the_rest_released(gateway, card, stripe_server):
    held = gateway.hold(demand(345_000), card)
    assert (held.state, held.amount, held.held, held.paid, held.reference) == (
        "authorized", 345_000, 345_000, 0, "payment-1",
    )  # fmt: skip
    taken = gateway.capture(held.gateway_reference, 85_000, "key-2")
    assert (taken.state, taken.held, taken.paid) == ("paid", 0, 85_000)
    assert gateway.find(held.gateway_reference) == taken
    assert [line["net"] for line in stripe_server.books.of("balance_transaction")] == [85_000 - 2_890]


def test_hold_is_released_and_nothing_is_taken(gateway, card, stripe_server):
    held = gateway.hold(demand(), card)
    assert gateway.release(held.gateway_reference, "key-2").state == "void"
    assert stripe_server.books.of("balance_transaction") == []
    with pytest.raises(HoldGone):
        gateway.capture(held.gateway_reference, 50_000, "key-3")


def test_more_than_was_held_cannot_be_captured(gateway, card):
    held = gateway.hold(demand(50_000), card)
    with pytest.raises(AmountTooLarge):
        gateway.capture(held.gateway_reference, 50_001, "key-2")
    assert gateway.find(held.gateway_reference).state == "authorized"


def test_what_was_captured_cannot_be_captured_or_released_again(gateway, card):
    held = gateway.hold(demand(), card)
    gateway.capture(held.gateway_reference, 50_000, "key-2")
    with pytest.raises(HoldGone):
        gateway.capture(held.gateway_reference, 50_000, "key-3")
    with pytest.raises(HoldGone):
        gateway.release(held.gateway_reference, "key-4")


def test_hold_expires_after_a_week(gateway, card, stripe_server):
    held = gateway.hold(demand(), card)
    stripe_server.advance(7 * 86_400)
    with pytest.raises(HoldGone):
        gateway.capture(held.gateway_reference, 50_000, "key-2")
    assert gateway.find(held.gateway_reference).state == "expired"


# --- at once, refunds -------------------------------------------------------------------------------------------------
def test_charge_is_taken_at_once(gateway, card):
    paid = gateway.charge(demand(25_000), card)
    assert (paid.state, paid.paid, paid.held) == ("paid", 25_000, 0)


def test_refunds_are_partial_until_all_is_given_back(gateway, card):
    paid = gateway.charge(demand(25_000), card).gateway_reference
    made = [gateway.refund(paid, 5_000, "refund-1"), gateway.refund(paid, 20_000, "refund-2")]
    assert [(one.amount, one.state) for one in made] == [(5_000, "paid"), (20_000, "paid")]
    assert gateway.refunds(paid) == made
    with pytest.raises(PaymentRefused):
        gateway.refund(paid, 1, "refund-3")


def test_no_more_can_be_given_back_than_was_captured(gateway, card):
    held = gateway.hold(demand(100_000), card).gateway_reference
    gateway.capture(held, 40_000, "key-2")
    with pytest.raises(PaymentRefused):
        gateway.refund(held, 40_001, "refund-1")
    assert gateway.refund(held, 40_000, "refund-2").amount == 40_000


# --- refusals ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("pm_card_chargeDeclined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card"),
    ],
)
def test_card_that_is_declined_is_not_kept(gateway, token, code):
    with pytest.raises(PaymentDeclined) as declined:
        gateway.keep_card("driver-1", token, "card-1")
    assert declined.value.code == code


def test_token_that_stripe_does_not_know_is_refused(gateway):
    with pytest.raises(PaymentRefused) as refused:
        gateway.keep_card("driver-1", "pm_nobodys", "card-1")
    assert refused.value.code == "resource_missing"


@pytest.mark.parametrize("verb", [Stripe.hold, Stripe.charge])
def test_decline_says_why_and_which_intent(gateway, card, stripe_server, verb):
    stripe_server.books.cards.decline_from_now_on(card.payment_method, "insufficient_funds")
    for _ in range(2):  # the same key is told the same
        with pytest.raises(PaymentDeclined) as declined:
            verb(gateway, demand(), card)
        assert declined.value.code == "insufficient_funds"
        found = gateway.find(declined.value.gateway_reference)
        assert (found.state, found.decline, found.paid) == ("failed", "insufficient_funds", 0)
    assert len(stripe_server.books.of("charge")) == 1


def test_authentication_step_hands_over_what_the_phone_needs(gateway, stripe_server):
    card = gateway.keep_card("driver-1", "pm_card_authenticationRequired", "card-1")
    asked = gateway.hold(demand(), card)
    secret = stripe_server.books.objects[asked.gateway_reference]["client_secret"]
    assert (asked.state, asked.held, asked.action) == ("requires_action", 0, Action("client_secret", secret))
    stripe_server.books.authenticate(asked.gateway_reference)
    assert gateway.find(asked.gateway_reference).state == "authorized"


def test_authentication_that_fails_is_a_decline(gateway, stripe_server):
    card = gateway.keep_card("driver-1", "pm_card_authenticationRequired", "card-1")
    asked = gateway.hold(demand(), card)
    stripe_server.books.authenticate(asked.gateway_reference, succeeds=False)
    found = gateway.find(asked.gateway_reference)
    assert (found.state, found.decline) == ("failed", "payment_intent_authentication_failure")


def test_absent_driver_cannot_answer_and_is_declined(gateway):
    card = gateway.keep_card("driver-1", "pm_card_authenticationRequired", "card-1")
    with pytest.raises(PaymentDeclined) as declined:
        gateway.charge(demand(), card, present=False)
    assert declined.value.code == "authentication_required"


@pytest.mark.parametrize(
    ("amount", "error"), [(0, AmountTooSmall), (MINIMUM - 1, AmountTooSmall), (MAXIMUM + 1, AmountTooLarge)]
)
def test_amounts_out_of_bounds_are_refused_before_the_call(gateway, card, stripe_server, amount, error):
    before = len(stripe_server.calls)
    for ask in (lambda: gateway.hold(demand(amount), card), lambda: gateway.capture("pi_1", amount, "key-2")):
        with pytest.raises(error):
            ask()
    assert len(stripe_server.calls) == before


@pytest.mark.parametrize("amount", [MINIMUM, MAXIMUM])
def test_amounts_at_the_bounds_are_taken(gateway, card, amount):
    assert gateway.charge(demand(amount), card).paid == amount


def test_stripes_own_bounds_are_said_in_the_same_words(stripe_server):
    lenient = Stripe(stripe_server.key, stripe_server.url, minimum=1)
    card = lenient.keep_card("driver-1", "pm_card_visa", "card-1")
    with pytest.raises(AmountTooSmall):
        lenient.charge(demand(12_999), card)


def test_wrong_secret_moves_nothing_and_is_no_doubt(stripe_server):
    with pytest.raises(PaymentRefused):
        Stripe("sk_test_wrong", stripe_server.url).charge(demand(), Card("cus_1", "pm_1"))


def test_unknown_payment_is_said(gateway):
    with pytest.raises(UnknownPayment):
        gateway.find("pi_nobodys")


# --- keys and failures ------------------------------------------------------------------------------------------------
def test_same_key_moves_money_once(gateway, card, stripe_server):
    first = gateway.charge(demand(), card)
    assert gateway.charge(demand(), card) == first
    assert len(stripe_server.books.of("balance_transaction")) == 1


def test_key_used_for_something_else_is_our_mistake(gateway, card):
    gateway.charge(demand(50_000), card)
    with pytest.raises(KeyMisused):
        gateway.charge(demand(60_000), card)


@pytest.mark.parametrize("fault", ["reset_before", "reset_after", "hang", "429", "409", "503"])
def test_call_without_an_answer_is_repeated_with_its_key_and_takes_the_money_once(gateway, card, stripe_server, fault):
    stripe_server.silence = 0.7
    stripe_server.fail("POST", INTENTS, fault)
    with pytest.raises(GatewayUnavailable) as doubt:
        gateway.charge(demand(), card)
    assert not doubt.value.replayed
    assert gateway.charge(demand(), card).state == "paid"
    assert [line["amount"] for line in stripe_server.books.of("balance_transaction")] == [50_000]


@pytest.mark.parametrize("fault", ["reset_before", "reset_after", "429", "503"])
def test_capture_and_refund_without_an_answer_happen_once_too(gateway, card, stripe_server, fault):
    held = gateway.hold(demand(), card).gateway_reference
    verbs: list[tuple[str, Callable[[], object]]] = [
        (CAPTURE, lambda: gateway.capture(held, 20_000, "key-2")),
        ("/v1/refunds", lambda: gateway.refund(held, 5_000, "key-3")),
    ]
    for path, ask in verbs:
        stripe_server.fail("POST", path, fault)
        with pytest.raises(GatewayUnavailable):
            ask()
        ask()
    assert [line["amount"] for line in stripe_server.books.of("balance_transaction")] == [20_000, -5_000]


@pytest.mark.parametrize(("fault", "moved"), [("500_before", False), ("500_after", True)])
def test_stored_server_error_is_replayed_and_the_payment_looked_up(gateway, card, stripe_server, fault, moved):
    """Stripe keeps its own failure under the key: a repetition would never learn what happened."""
    begin = datetime.now(UTC) - timedelta(minutes=1)
    stripe_server.fail("POST", INTENTS, fault)
    replayed = []
    for _ in range(2):
        with pytest.raises(GatewayUnavailable) as doubt:
            gateway.charge(demand(), card)
        replayed.append(doubt.value.replayed)
    assert replayed == [False, True]
    found = gateway.find_ours("payment-1", begin, datetime.now(UTC) + timedelta(minutes=1))
    assert (found is not None and found.paid == 50_000) is moved


def test_stripe_away_is_a_doubt():
    with pytest.raises(GatewayUnavailable):
        Stripe("sk_test", "http://127.0.0.1:9").charge(demand(), Card("cus_1", "pm_1"))


def test_stripe_python_repeats_nothing_by_itself(gateway, card, stripe_server):
    stripe_server.fail("POST", INTENTS, "503", times=5)
    with pytest.raises(GatewayUnavailable):
        gateway.charge(demand(), card)
    assert len(stripe_server.asked("POST", INTENTS)) == 1


@pytest.mark.parametrize("forget", [False, True])
def test_ours_is_found_among_many_by_our_reference(gateway, card, stripe_server, monkeypatch, forget):
    monkeypatch.setattr("billing.gateways.stripe.PAGE", 3)
    for number in range(8):
        gateway.charge(demand(20_000 + number, f"key-{number}", f"payment-{number}"), card)
    if forget:
        stripe_server.forget_keys()
    begin, end = datetime.now(UTC) - timedelta(minutes=1), datetime.now(UTC) + timedelta(minutes=1)
    found = gateway.find_ours("payment-2", begin, end)
    assert found is not None and found.paid == 20_002
    assert gateway.find_ours("payment-9", begin, end) is None
    assert gateway.find_ours("payment-2", begin - timedelta(hours=1), begin) is None


# --- the account's own list -------------------------------------------------------------------------------------------
def test_list_names_charges_and_refunds_with_our_reference_between_two_instants(
    gateway, card, stripe_server, monkeypatch
):
    monkeypatch.setattr("billing.gateways.stripe.PAGE", 2)
    paid = [gateway.charge(demand(20_000, f"key-{n}", f"payment-{n}"), card).gateway_reference for n in range(3)]
    stripe_server.advance(3_600)
    middle = datetime.fromtimestamp(int(stripe_server.now()), UTC)
    gateway.refund(paid[1], 7_000, "refund-1")
    held = gateway.hold(demand(90_000, "key-9", "payment-9"), card)
    gateway.capture(held.gateway_reference, 30_000, "key-10")
    later = list(gateway.entries(middle, middle + timedelta(minutes=5)))
    assert [(one.kind, one.amount, one.payment) for one in later] == [
        ("charge", 30_000, held.gateway_reference), ("refund", -7_000, paid[1]),
    ]  # fmt: skip
    earlier = list(gateway.entries(middle - timedelta(hours=2), middle))
    assert [(one.reference, one.amount, one.fee, one.kind) for one in earlier] == [
        (f"payment-{n}", 20_000, 680, "charge") for n in (2, 1, 0)
    ]


# --- what is sent, and what it costs ----------------------------------------------------------------------------------
def test_every_change_carries_a_key_and_no_call_any_telemetry(gateway, card, stripe_server):
    held = gateway.hold(demand(), card).gateway_reference
    gateway.capture(held, 20_000, "key-2")
    gateway.refund(held, 5_000, "key-3")
    gateway.release(gateway.hold(demand(key="key-4"), card).gateway_reference, "key-5")
    keys = [call.key for call in stripe_server.calls if call.method == "POST"]
    assert keys == ["card-1:customer", "card-1:attach", "key-1", "key-2", "key-3", "key-4", "key-5"]
    assert not any("x-stripe-client-telemetry" in call.headers for call in stripe_server.calls)


def test_stripe_is_not_loaded_where_it_is_not_used():
    code = "import sys, app.factory, app.jobs, billing.gateways.stripe_shapes; sys.exit('stripe' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- shapes -----------------------------------------------------------------------------------------------------------
def intent(**fields: object) -> dict:
    return {"id": "pi_1", "status": "succeeded", "amount": 50_000, "metadata": {"payment": "payment-1"}} | fields


CHARGE = {"id": "ch_1", "object": "charge", "amount": 50_000, "amount_refunded": 30_000}


@pytest.mark.parametrize(
    ("fields", "paid"),
    [
        ({"amount_received": 20_000, "latest_charge": "ch_1"}, 20_000),
        ({"amount_received": 20_000, "latest_charge": CHARGE}, 20_000),
        ({"latest_charge": CHARGE}, 20_000),  # localstripe: what a capture leaves is a refund
        ({"latest_charge": "ch_1"}, 50_000),
    ],
)
def test_latest_charge_may_be_an_id_or_an_object(fields, paid):
    assert stripe_shapes.movement(intent(**fields)).paid == paid


@given(st.sampled_from(sorted(stripe_shapes._STATES)), st.integers(MINIMUM, MAXIMUM), st.none() | st.just(CHARGE))
def test_only_a_payment_that_is_over_says_that_money_was_taken(status: str, amount: int, charge: dict | None):
    fields = {"status": status, "amount": amount, "amount_received": amount, "client_secret": "s"}
    read = stripe_shapes.movement(intent(**fields, latest_charge=charge))
    assert (read.paid > 0) == (read.state == "paid") == (status == "succeeded")
    assert (read.held > 0) == (status == "requires_capture") and (read.action is None) == (status != "requires_action")

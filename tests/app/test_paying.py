"""How a session is paid: methods that are not set up are refused before it begins, and all tell how it stands."""

from dataclasses import replace
from typing import Any

import psycopg
import pytest

from app import create_app
from app.resources import Resources
from billing import ledger
from billing.gateways.bank import Account
from billing.ledger import Posting
from billing.rails import Rails
from tests.app.test_fast_path import plain, through_flask
from tests.app.test_quotes import quote, set_free_minutes
from tests.app.test_wallet_lines import books, empty
from tests.conftest import FUNDS, Client, SteppedClock

__all__ = ["books", "plain", "through_flask"]
BODY = {"zone": "HK-001", "plate": "30A-123.45", "vehicle_class": "car", "payment_method": "wallet"}
CARD_FIELDS = ("id", "state", "amount", "paid", "failure", "action")


@pytest.fixture
def banked(resources: Resources) -> Client:
    """A client of the same service with an account that receives transfers."""
    rails = Rails(account=Account("970436", "0011001100110"))
    held = replace(resources, settings=replace(resources.settings, rails=rails))
    app = create_app(held.settings, held)
    app.test_client_class = Client
    return app.test_client()  # type: ignore[return-value]


def start(client: Client, method: str, key: str | None = None, **more: Any):
    return client.post("/v1/sessions", json=BODY | {"payment_method": method} | more, role="driver", key=key)


def stop(client: Client, session: dict) -> dict:
    answer: dict = client.post(f"/v1/sessions/{session['id']}/stop", json={}, role="driver").json
    return answer


def paid(client: Client, session: dict, role: str = "driver") -> dict:
    """How the session is paid; money as plain VND."""
    answer = client.get(f"/v1/sessions/{session['id']}/payment", role=role)
    assert answer.status_code == 200, answer.json
    return {name: value["amount"] if isinstance(value, dict) else value for name, value in answer.json.items()}


def stands(shown: dict) -> tuple:
    return tuple(shown[name] for name in ("status", "fee", "held", "captured", "owed", "refunded"))


# --- methods that are not set up --------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["card", "vnpay"])
def test_method_that_is_not_set_up_is_refused_on_both_paths(
    client: Client, plain: Client, database_url: str, through_flask: list[str], method: str
):
    for minutes in (None, 60):
        fast, slow = (start(one, method, minutes=minutes) for one in (client, plain))
        assert (fast.status_code, fast.json["code"]) == (409, "method_unavailable")
        assert (slow.status_code, slow.data, slow.headers["Content-Type"]) == (
            409,
            fast.data,
            fast.headers["Content-Type"],
        )
    assert client.get("/v1/sessions", role="driver").json["sessions"] == []
    allowed = {
        one["method"]: (one["allowed"], one["reason"]) for one in quote(client, "HK-001", 60).json["payment_methods"]
    }
    assert allowed[method] == (False, "not_set_up"), "as the quote had said"
    assert start(client, "wallet").status_code == 201, "the place is free"


def test_vietqr_needs_an_account_and_a_repeated_key_gets_its_first_answer(
    client: Client, plain: Client, banked: Client
):
    first = start(banked, "vietqr", key="k")
    assert first.status_code == 201
    for later in (client, plain):
        assert start(later, "vietqr", key="k").data == first.data, "though it is not set up any more"
        assert start(later, "cash", key="k").json["code"] == "idempotency_conflict"
        refused = start(later, "vietqr", key="k2", plate="30A-543.21")
        assert (refused.status_code, refused.json["code"]) == (409, "method_unavailable")
    assert start(banked, "vietqr", key="k2", plate="30A-543.21").status_code == 201, "a refusal is not remembered"


def test_every_method_will_do_where_nothing_can_be_owed(client: Client, database_url: str):
    set_free_minutes(database_url, 60)
    try:
        client.application.extensions["iparking"].catalogue.refresh()
        assert start(client, "card", minutes=61).json["code"] == "method_unavailable"
        session = start(client, "card", minutes=60)
        assert session.status_code == 201
        assert paid(client, session.json)["status"] == "open"
        longer = client.post(f"/v1/sessions/{session.json['id']}/extend", json={"minutes": 1}, role="driver")
        assert (longer.status_code, longer.json["code"]) == (409, "method_unavailable")
        stop(client, session.json)
        assert paid(client, session.json)["status"] == "free"
    finally:
        set_free_minutes(database_url, 0)


# --- how it is paid ---------------------------------------------------------------------------------------------------
def test_by_wallet_it_is_put_aside_then_taken_and_given_back(client: Client, clock: SteppedClock):
    session = start(client, "wallet", minutes=60).json
    shown = paid(client, session)
    assert stands(shown) == ("held", 30_000, 30_000, 0, 0, 0) and shown["method"] == "wallet"
    assert {shown[name] for name in CARD_FIELDS} == {None}
    clock.advance(minutes=10)
    stop(client, session)
    assert stands(paid(client, session)) == ("paid", 30_000, 0, 30_000, 0, 0)
    for amount, status in ((10_000, "paid"), (20_000, "refunded")):
        asked = client.post("/v1/refunds", json={"session": session["id"], "reason": "x"}, role="driver").json
        client.post(f"/v1/admin/refunds/{asked['id']}/approve", json={"amount": amount}, role="operator")
        assert paid(client, session)["status"] == status
    assert stands(paid(client, session)) == ("refunded", 30_000, 0, 30_000, 0, 30_000)


def test_what_the_wallet_lacks_and_what_is_paid_later_is_owed(
    client: Client, clock: SteppedClock, books: psycopg.Connection
):
    empty(books, clock, left=40_000)
    session = start(client, "wallet").json
    clock.advance(minutes=150)
    assert stop(client, session)["fee"]["amount"] == 102_000
    assert stands(paid(client, session)) == ("owed", 102_000, 0, 40_000, 62_000, 0)
    asked = client.post("/v1/refunds", json={"session": session["id"], "reason": "x"}, role="driver").json
    client.post(f"/v1/admin/refunds/{asked['id']}/approve", json={"amount": 2_000}, role="operator")
    assert stands(paid(client, session)) == ("owed", 102_000, 0, 40_000, 60_000, 2_000)
    ledger.post(books, [Posting("transfer", "1", clock.now(), {"bank": 60_000, "receivable/driver": -60_000})])
    assert stands(paid(client, session)) == ("paid", 102_000, 0, 100_000, 0, 2_000)


@pytest.mark.parametrize("method", ["vietqr", "cash"])
def test_by_what_is_paid_afterwards_it_is_owed_once_it_is_over(banked: Client, clock: SteppedClock, method: str):
    session = start(banked, method, minutes=60).json
    assert stands(paid(banked, session)) == ("open", 30_000, 0, 0, 0, 0)
    clock.advance(minutes=61)
    assert paid(banked, session)["status"] == "open", "its time is over, and it is charged once no late stop can come"
    other = start(banked, method, plate="30A-543.21").json
    clock.advance(minutes=5)
    stop(banked, other)
    assert stands(paid(banked, other)) == ("owed", 30_000, 0, 0, 30_000, 0)


def test_of_what_was_taken_back_nothing_is_left(client: Client, banked: Client, clock: SteppedClock):
    running, over = start(client, "wallet").json, start(banked, "vietqr", plate="30A-543.21").json
    clock.advance(minutes=5)
    stop(client, over)
    for session in (running, over):
        client.post(f"/v1/admin/sessions/{session['id']}/void", json={"reason": "nhầm"}, role="operator")
    assert stands(paid(client, running)) == ("free", 0, 0, 0, 0, 0)
    assert stands(paid(client, over)) == ("refunded", 30_000, 0, 0, 0, 30_000)
    assert client.get("/v1/wallet", role="driver").json["balance"]["amount"] == FUNDS


def test_only_the_driver_sees_it(client: Client):
    session = start(client, "wallet").json
    assert client.get(f"/v1/sessions/{session['id']}/payment", role="driver-1").status_code == 404
    assert client.get("/v1/sessions/x/payment", role="driver").status_code == 400

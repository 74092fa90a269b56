"""What VNPay and the bank tell us over HTTP: verified, stored as it came, and booked once by whoever comes first."""

import json
import time

import pytest

from app import create_app, webhooks
from app.resources import Resources
from billing import transfers
from billing.gateways import bank
from billing.rails import Rails
from tests.app.paying import ACCOUNT, SECRET, ipn, on_rails, transfer
from tests.conftest import FUNDS, Client


@pytest.fixture
def resources(resources: Resources) -> Resources:
    return on_rails(resources)


def ask(client: Client, method: str) -> dict:
    body = {"purpose": "topup", "method": method, "amount": 50_000}
    return client.post("/v1/payments", json=body, role="driver").json


def wallet(client: Client) -> int:
    return client.get("/v1/wallet", role="driver").json["balance"]["amount"] - FUNDS


def events(resources: Resources) -> list[tuple[str, str, str | None]]:
    """What was stored, and what became of it."""
    rows = resources.connections.get().execute(
        "SELECT gateway, state, error FROM webhook_event ORDER BY received_at, id"
    )
    return rows.fetchall()


# --- VNPay ------------------------------------------------------------------------------------------------------------
def tell(client: Client, query: str) -> str:
    answer = client.get(f"/v1/webhooks/vnpay?{query}")
    assert answer.status_code == 200 and set(answer.json) == {"RspCode", "Message"}
    return answer.json["RspCode"]


def test_order_is_confirmed_once_and_a_replay_is_told_so(resources, client, clock):
    payment = ask(client, "vnpay")
    query = ipn(payment, clock.now())
    assert [tell(client, query) for _ in range(3)] == ["00", "02", "02"]
    assert wallet(client) == 50_000
    paid = client.get(f"/v1/payments/{payment['id']}", role="driver").json
    assert (paid["state"], paid["redirect_url"]) == ("paid", None)
    assert events(resources) == [("vnpay", "waiting", None)], "stored once, as it came"
    webhooks.handle(resources)
    assert events(resources) == [("vnpay", "handled", None)] and wallet(client) == 50_000


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"vnp_TxnRef": "PARK0"}, "01"),
        ({"vnp_Amount": "4999900"}, "04"),
        ({"vnp_Amount": "1"}, "99"),
        ({"vnp_TransactionNo": ""}, "99"),
    ],
)
def test_order_that_cannot_be_confirmed_is_answered_with_its_code(client, clock, change, code):
    query = ipn(ask(client, "vnpay"), clock.now(), **change)
    assert tell(client, query) == code and wallet(client) == 0


def test_cancelled_order_is_failed(client, clock):
    payment = ask(client, "vnpay")
    cancelled = ipn(payment, clock.now(), vnp_ResponseCode="24", vnp_TransactionStatus="02", vnp_TransactionNo="0")
    assert tell(client, cancelled) == "00"
    failed = client.get(f"/v1/payments/{payment['id']}", role="driver").json
    assert (failed["state"], failed["failure"], failed["paid"]) == ("failed", "24", None)


def test_what_vnpay_did_not_sign_is_not_even_stored(resources, client, clock):
    query = ipn(ask(client, "vnpay"), clock.now())
    for forged in ("", "vnp_TxnRef=1", query[:-1], query.replace("5000000", "9000000"), f"{query}&vnp_Amount=1", "đ=ỗ"):
        assert tell(client, forged) == "97"
    assert events(resources) == [] and wallet(client) == 0


def test_order_that_could_not_be_booked_at_once_is_booked_by_the_job(resources, client, clock, monkeypatch):
    payment = ask(client, "vnpay")

    def fail(*_: object) -> None:
        raise transfers.psycopg.OperationalError("the server hung up")

    with monkeypatch.context() as broken:
        broken.setattr(transfers, "answer_notice", fail)
        assert tell(client, ipn(payment, clock.now())) == "99" and wallet(client) == 0
    webhooks.handle(resources)
    assert wallet(client) == 50_000 and events(resources) == [("vnpay", "handled", None)]


def test_vnpay_that_is_not_set_up_is_not_believed(resources, clock):
    app = create_app(resources.settings, on_rails(resources, Rails(ACCOUNT)))
    app.test_client_class = Client
    assert tell(app.test_client(), ipn({"reference": "A", "amount": {"amount": 1}}, clock.now())) == "97"


# --- the bank ---------------------------------------------------------------------------------------------------------
def push(client: Client, secret: str = SECRET, late: int = 0, **change: object):
    credit = {
        "transaction_id": "FT1",
        "account": ACCOUNT.number,
        "amount": 50_000,
        "at": "2026-10-14T08:01:00+07:00",
        "description": "",
    }
    body, stamp = json.dumps(credit | change).encode(), str(int(time.time()) - late)
    headers = {"X-Timestamp": stamp, "X-Signature": bank.sign(secret, stamp, body)}
    return client.post("/v1/webhooks/bank", data=body, headers=headers, content_type="application/json")


def test_credit_is_stored_at_once_and_booked_by_the_job(resources, client):
    payment = ask(client, "vietqr")
    text = f"MBVCB.1.{payment['reference']}.CT tu 0351000646393"
    for repeated in (False, True):
        assert push(client, description=text).json == {"received": True, "repeated": repeated}
    assert wallet(client) == 0
    webhooks.handle(resources)
    assert wallet(client) == 50_000 and events(resources) == [("bank", "handled", None)]
    assert client.get(f"/v1/payments/{payment['id']}", role="driver").json["state"] == "paid"


def test_credit_that_the_statement_told_before_is_booked_once(resources, client):
    payment = ask(client, "vietqr")
    transfer(resources, payment["reference"], 50_000, "FT1")
    push(client, description=payment["reference"])
    webhooks.handle(resources)
    assert wallet(client) == 50_000 and events(resources) == [("bank", "handled", None)]


def test_credit_of_nobody_is_kept_as_unmatched(resources, client):
    push(client, description="chuyen tien")
    webhooks.handle(resources)
    (kept,) = transfers.unmatched(resources.connections.get(), 10)
    assert (kept.transaction, kept.amount, wallet(client)) == ("FT1", 50_000, 0)


@pytest.mark.parametrize(
    ("change", "error"),
    [({"account": "999"}, "account 999 is not the one that receives"), ({"amount": 1}, "with another amount")],
)
def test_credit_that_somebody_must_look_at_waits_with_its_reason(resources, client, change, error):
    transfer(resources, ask(client, "vietqr")["reference"], 50_000, "FT1")
    push(client, **change)
    webhooks.handle(resources)
    ((_, state, why),) = events(resources)
    assert state == "waiting" and error in why and wallet(client) == 50_000


def test_push_that_is_not_signed_or_not_new_is_refused(resources, client):
    for answer in (
        push(client, secret="another"),
        push(client, late=301),
        client.post("/v1/webhooks/bank", data=b"{}", content_type="application/json"),
    ):
        assert (answer.status_code, answer.json["code"]) == (400, "bad_signature")
    answer = push(client, amount="50000")
    assert (answer.status_code, answer.json["code"]) == (400, "malformed_body") and "amount" in answer.json["detail"]
    assert events(resources) == []


def test_bank_that_is_not_set_up_cannot_push(resources):
    app = create_app(resources.settings, on_rails(resources, Rails(ACCOUNT)))
    app.test_client_class = Client
    assert push(app.test_client()).status_code == 404

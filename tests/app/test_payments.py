"""Payments over HTTP: a driver asks where to pay, pays there, and sees it in the wallet and in what is owed."""

from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import pytest

from app import create_app, jobs
from app.resources import Resources
from billing.gateways import vietqr, vnpay
from billing.rails import Rails
from tests.app.paying import ACCOUNT, SECRET, on_rails, transfer
from tests.conftest import FUNDS, Client

TOPUP = {"purpose": "topup", "method": "vietqr", "amount": 50_000}


@pytest.fixture
def resources(resources: Resources) -> Resources:
    return on_rails(resources)


def park(client: Client, clock, minutes: int = 61, plate: str = "30A-123.45") -> str:
    """A session that its driver is to pay by himself, over now."""
    body = {"zone": "HK-001", "plate": plate, "vehicle_class": "car", "payment_method": "vietqr"}
    session = client.post("/v1/sessions", json=body, role="driver").json["id"]
    clock.advance(minutes=minutes)
    assert client.post(f"/v1/sessions/{session}/stop", json={}, role="driver").status_code == 200
    return session


def pay(client: Client, key: str | None = None, role: str = "driver", **body) -> dict:
    answer = client.post("/v1/payments", json=body, role=role, key=key)
    assert answer.status_code == 201, answer.json
    return answer.json


def wallet(client: Client) -> tuple[int, int]:
    """What is in it, and what is owed."""
    held = client.get("/v1/wallet", role="driver").json
    return held["balance"]["amount"], held["owed"]["amount"]


def refused(client: Client, **body) -> tuple[int, str]:
    answer = client.post("/v1/payments", json=body, role="driver")
    return answer.status_code, answer.json["code"]


def test_session_is_paid_by_a_transfer(resources, client, clock):
    session = park(client, clock)
    _, owed = wallet(client)
    payment = pay(client, purpose="session", method="vietqr", session=session)
    assert payment["amount"] == {"amount": owed, "currency": "VND"} and owed > 0
    assert vietqr.parse(payment["qr"]) == (*ACCOUNT, owed, payment["reference"], "QRIBFTTA")
    assert (payment["state"], payment["paid"], payment["redirect_url"]) == ("created", None, None)
    transfer(resources, payment["reference"], owed)
    paid = client.get(f"/v1/payments/{payment['id']}", role="driver").json
    assert (paid["state"], paid["paid"], paid["qr"], paid["qr_svg"]) == ("paid", payment["amount"], None, None)
    assert paid["settled_at"] and wallet(client) == (FUNDS, 0)
    assert refused(client, purpose="session", method="vietqr", session=session) == (409, "nothing_owed")


def test_arrears_of_several_sessions_are_paid_at_once(resources, client, clock):
    for plate in ("30A-123.45", "30A-123.46"):
        park(client, clock, plate=plate)
    _, owed = wallet(client)
    payment = pay(client, purpose="arrears", method="vietqr")
    assert payment["amount"]["amount"] == owed
    transfer(resources, payment["reference"], owed + 1_000)
    assert wallet(client) == (FUNDS + 1_000, 0)


def test_running_session_owes_nothing_yet(client):
    body = {"zone": "HK-001", "plate": "30A-123.45", "vehicle_class": "car", "payment_method": "vietqr"}
    session = client.post("/v1/sessions", json=body, role="driver").json["id"]
    assert refused(client, purpose="session", method="vietqr", session=session) == (409, "nothing_owed")


def test_wallet_is_topped_up_at_vnpay(client, clock):
    payment = pay(client, purpose="topup", method="vnpay", amount=50_000, locale="en")
    url = urlsplit(payment["redirect_url"])
    asked = dict(parse_qsl(url.query))
    assert vnpay.verify(SECRET, url.query) and payment["qr"] is None
    assert (asked["vnp_TxnRef"], asked["vnp_Amount"]) == (payment["reference"], "5000000")
    assert (asked["vnp_Locale"], asked["vnp_IpAddr"]) == ("en", "127.0.0.1")
    assert (asked["vnp_CreateDate"], asked["vnp_ExpireDate"]) == ("20261014080000", "20261014081500")


def test_wallet_asks_where_to_top_it_up(client):
    asked = {"amount": 50_000, "method": "vietqr"}
    made = client.post("/v1/wallet/topups", json=asked, role="driver", key="k")
    assert (made.status_code, made.json["purpose"], made.json["amount"]["amount"]) == (201, "topup", 50_000)
    assert client.post("/v1/wallet/topups", json=asked, role="driver", key="k").json == made.json
    assert client.get(f"/v1/payments/{made.json['id']}", role="driver").json["qr"] == made.json["qr"]
    for wrong in ({"amount": 9_999}, {"amount": 20_000_001}, {"amount": -50_000}, {"method": "gold"}):
        assert client.post("/v1/wallet/topups", json=asked | wrong, role="driver").json["code"] == "invalid_body"


def test_images_are_shown_while_the_payment_waits(resources, client, clock):
    payment = pay(client, **TOPUP)
    svg, png = (client.get(payment[name], role="driver") for name in ("qr_svg", "qr_png"))
    assert (svg.status_code, svg.mimetype, svg.data) == (200, "image/svg+xml", vietqr.svg(payment["qr"]))
    assert (png.status_code, png.mimetype, png.data) == (200, "image/png", vietqr.png(payment["qr"]))
    clock.advance(minutes=30)
    for path in (payment["qr_svg"], payment["qr_png"]):
        answer = client.get(path, role="driver")
        assert (answer.status_code, answer.json["code"]) == (409, "payment_over")
    at_vnpay = pay(client, purpose="topup", method="vnpay", amount=50_000)
    assert client.get(f"/v1/payments/{at_vnpay['id']}/qr.svg", role="driver").status_code == 409


def test_payment_is_expired_the_instant_its_time_is_over_and_noted_by_the_job(resources, client, clock):
    payment = pay(client, **TOPUP)
    clock.advance(minutes=30)
    expired = client.get(f"/v1/payments/{payment['id']}", role="driver").json
    assert (expired["state"], expired["settled_at"], expired["qr"]) == ("expired", None, None)
    assert jobs.expire_payments(resources) == 1
    noted = client.get(f"/v1/payments/{payment['id']}", role="driver").json
    assert (noted["state"], noted["settled_at"]) == ("expired", payment["expires_at"])
    transfer(resources, payment["reference"], 50_000)
    assert wallet(client) == (FUNDS + 50_000, 0)


def test_key_gives_the_first_payment_again(client):
    first = pay(client, "k1", **TOPUP)
    assert pay(client, "k1", **TOPUP) == first and pay(client, "k2", **TOPUP) != first
    answer = client.post("/v1/payments", json=TOPUP | {"amount": 60_000}, role="driver", key="k1")
    assert (answer.status_code, answer.json["code"]) == (422, "idempotency_conflict")


def test_payments_are_the_drivers_own(client):
    payment = pay(client, **TOPUP)
    for path in (f"/v1/payments/{payment['id']}", payment["qr_svg"], f"/v1/payments/{uuid4()}"):
        assert client.get(path, role="driver-1").status_code == 404
    assert client.get("/v1/payments", role="driver-1").json == {"payments": []}
    assert client.get("/v1/payments/x", role="driver").status_code == 400
    assert client.post("/v1/payments", json=TOPUP, role="warden").status_code == 403


def test_payments_are_listed_page_by_page(client, clock):
    made = []
    for _ in range(3):
        made.insert(0, pay(client, **TOPUP)["id"])
        clock.advance(seconds=1)
    first = client.get("/v1/payments?limit=2", role="driver")
    more = first.headers["Link"].partition(">")[0].removeprefix("<")
    second = client.get(more, role="driver")
    assert [one["id"] for one in first.json["payments"] + second.json["payments"]] == made
    assert "Link" not in second.headers


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": None}, "amount"),
        ({"amount": 9_999}, "amount"),
        ({"amount": 20_000_001}, "amount"),
        ({"amount": 50_000.0}, "amount"),
        ({"purpose": "session"}, "amount"),
        ({"purpose": "session", "amount": None}, "session"),
        ({"session": str(uuid4())}, "session"),
        ({"method": "cash"}, "method"),
        ({"method": "gold"}, "method"),
        ({"purpose": "gift"}, "purpose"),
        ({"locale": "vi"}, "locale"),
    ],
)
def test_bad_request_names_its_field(client, change, field):
    answer = client.post("/v1/payments", json=TOPUP | change, role="driver")
    assert answer.status_code == 422 and [error["field"] for error in answer.json["errors"]] == [field]


def test_method_that_is_not_set_up_is_refused(resources, clock):
    app = create_app(resources.settings, on_rails(resources, Rails()))
    app.test_client_class = Client
    for method in ("vietqr", "vnpay"):
        assert refused(app.test_client(), **TOPUP | {"method": method}) == (409, "method_unavailable")

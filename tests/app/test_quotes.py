"""Quotes over HTTP: the golden bills, and that a quote is what the session then costs."""

from dataclasses import replace

import psycopg
import pytest

from app.config import Settings
from app.paying import payment_methods
from app.resources import Resources
from billing.gateways import METHODS
from tests.conftest import Client, SteppedClock


def core_zone(client: Client) -> str:
    features = client.get("/v1/zones?limit=1000").json["features"]
    return next(
        f["id"] for f in features if f["properties"]["rate_area"] == "core" and f["properties"]["kind"] == "kerb"
    )


def quote(
    client: Client, zone: str, minutes: int, start: str = "2026-10-14T08:00:00+07:00", vehicle_class: str = "car"
):
    body = {"zone": zone, "vehicle_class": vehicle_class, "start": start, "minutes": minutes}
    return client.post("/v1/quotes", json=body, role="driver")


@pytest.mark.parametrize(
    ("hours", "total"), [(1, 25_000), (2, 50_000), (3, 85_000), (4, 120_000), (5, 165_000), (8, 300_000), (9, 345_000)]
)
def test_golden_bills(client: Client, hours: int, total: int):
    answer = quote(client, core_zone(client), hours * 60)
    assert answer.json["total"] == {"amount": total, "currency": "VND"}
    assert sum(line["amount"] for line in answer.json["lines"]) == total
    assert answer.json["max_stay_minutes"] == 720


def test_a_night_is_capped(client: Client):
    answer = quote(client, core_zone(client), 720, "2026-10-14T18:00:00+07:00")
    assert answer.json["total"]["amount"] == 150_000


def test_quote_is_what_a_session_of_that_length_costs(client: Client, clock: SteppedClock):
    zone = core_zone(client)
    for n, minutes in enumerate((1, 60, 61, 200, 719, 720)):
        quoted = quote(client, zone, minutes).json
        body = {
            "zone": zone,
            "plate": f"30A-{n:03}.00",
            "vehicle_class": "car",
            "payment_method": "cash",
            "minutes": minutes,
        }
        session = client.post("/v1/sessions", json=body, role="driver").json
        assert (session["fee"], session["rate_version"]) == (quoted["total"], quoted["rate_version"])


def test_longer_than_the_maximum_stay_is_refused(client: Client):
    assert quote(client, core_zone(client), 721).json["code"] == "max_stay_exceeded"


def test_quotes_past_and_future_and_for_motorbikes(client: Client):
    for start in ("2018-01-01T00:00:00+07:00", "2099-06-01T00:00:00+07:00"):
        assert quote(client, "HK-001", 60, start).status_code == 200
    assert quote(client, "HK-001", 60, vehicle_class="motorbike").json["total"]["amount"] == 5_000


def test_key_makes_a_quote_repeatable(client: Client):
    body = {"zone": "HK-001", "vehicle_class": "car", "start": "2026-10-14T08:00:00+07:00", "minutes": 60}
    first = client.post("/v1/quotes", json=body, role="driver", key="q")
    assert client.post("/v1/quotes", json=body, role="driver", key="q").data == first.data
    other = client.post("/v1/quotes", json=body | {"minutes": 61}, role="driver", key="q")
    assert (other.status_code, other.json["code"]) == (422, "idempotency_conflict")


def test_quote_says_all_before_anything_is_paid(client: Client, clock: SteppedClock):
    quoted = quote(client, "HK-001", 180).json
    assert quoted["total"]["amount"] == 102_000
    assert quoted["tax"] == {"amount": {"amount": 7_556, "currency": "VND"}, "basis_points": 800}
    assert (quoted["wallet_hold"]["fixed"]["amount"], quoted["wallet_hold"]["open"]["amount"]) == (102_000, 30_000)
    shown = {one["method"]: one["allowed"] for one in quoted["payment_methods"]}
    assert set(shown) == set(METHODS) and shown["wallet"] and not shown["free"]
    body = {"zone": "HK-001", "plate": "30A-123.45", "vehicle_class": "car", "payment_method": "wallet"}
    for minutes, held in ((180, "fixed"), (None, "open")):
        session = client.post("/v1/sessions", json=body | {"minutes": minutes}, role="driver").json
        assert client.get("/v1/wallet", role="driver").json["held"] == quoted["wallet_hold"][held]
        client.post(f"/v1/sessions/{session['id']}/stop", json={}, role="driver")


def test_card_below_its_minimum_waits_or_draws_on_the_wallet():
    taken = replace(Settings("d", "redis://r"), stripe_key="sk_test_x")
    waits = replace(taken, small_fees="wait")
    facts = {
        amount: payment_methods(taken, amount)["card"] for amount in (0, 1, 12_999, 13_000, 99_999_999, 100_000_000)
    }
    assert facts == {
        0: (True, "nothing_to_pay"),
        1: (True, "small_fee_from_wallet"),
        12_999: (True, "small_fee_from_wallet"),
        13_000: (True, "held_on_card"),
        99_999_999: (True, "held_on_card"),
        100_000_000: (False, "above_card_maximum"),
    }
    assert payment_methods(waits, 12_999)["card"] == (True, "charged_together")
    assert {method: allowed for method, (allowed, _) in payment_methods(taken, 1).items() if not allowed} == {
        "vietqr": False, "vnpay": False, "free": False,
    }  # fmt: skip


def set_free_minutes(database_url: str, minutes: int) -> None:
    """Another rate for the zones of these tests, in place of an import that would stay."""
    with psycopg.connect(database_url) as connection:
        connection.execute("SET LOCAL session_replication_role = replica")  # a rate is never changed otherwise
        query = "UPDATE rate_plan SET free_minutes = %s WHERE version = 'restricted-car-2018-01-01'"
        connection.execute(query, (minutes,))
        connection.execute("UPDATE revision SET value = value + 1 WHERE name = 'rates'")


def test_free_minutes_cost_nothing_and_may_be_had_free(client: Client, resources: Resources, database_url: str):
    """Without a right, `free` is only what the rate asks nothing for."""
    set_free_minutes(database_url, 15)
    try:
        resources.catalogue.refresh()
        body = {"zone": "HK-001", "plate": "30A-123.45", "vehicle_class": "car", "minutes": 15}
        quoted = quote(client, "HK-001", 15).json
        assert quoted["total"]["amount"] == quoted["tax"]["amount"]["amount"] == 0
        assert {one["allowed"] for one in quoted["payment_methods"]} == {True}
        for method in ("free", "wallet"):
            session = client.post("/v1/sessions", json=body | {"payment_method": method}, role="driver").json
            assert session["fee"]["amount"] == 0
            stopped = client.post(f"/v1/sessions/{session['id']}/stop", json={}, role="driver").json
            assert stopped["fee"]["amount"] == 0
        longer = body | {"minutes": 16, "payment_method": "free"}
        assert client.post("/v1/sessions", json=longer, role="driver").json["code"] == "not_free"
        assert [one["kind"] for one in client.get("/v1/wallet/entries", role="driver").json["entries"]] == ["funding"]
    finally:
        set_free_minutes(database_url, 0)

"""Money of sessions paid from the wallet: put aside at the start, taken at the end, to the đồng."""

import psycopg
import pytest

from billing import ledger
from tests.conftest import FUNDS, Client, SteppedClock

ZONE = "HK-001"  # restricted: 30,000 for each of the first two hours, then 42,000


def wallet(client: Client, role: str = "driver") -> dict[str, int]:
    shown = client.get("/v1/wallet", role=role).json
    return {name: shown[name]["amount"] for name in ("balance", "held", "available", "owed")}


def start(client: Client, **more):
    body = {"zone": ZONE, "plate": "30A-123.45", "vehicle_class": "car", "payment_method": "wallet"} | more
    return client.post("/v1/sessions", json=body, role="driver")


def booked(database_url: str) -> dict[str, int]:
    with psycopg.connect(database_url) as connection:
        codes = [row[0] for row in connection.execute("SELECT code FROM ledger_account ORDER BY code")]
        return {code: amount for code in codes if (amount := ledger.balance(connection, code))}


def spend(database_url: str, amount: int) -> None:
    with psycopg.connect(database_url) as connection:
        entries = {"wallet/driver": amount, "bank": -amount}
        ledger.post(
            connection, [ledger.Posting("withdrawal", "x", SteppedClock("2026-10-14T07:00+07:00").now(), entries)]
        )


def test_prepaid_time_is_put_aside_and_what_is_unused_comes_back(
    client: Client, clock: SteppedClock, database_url: str
):
    session = start(client, minutes=180).json
    assert session["fee"]["amount"] == 102_000
    assert wallet(client) == {"balance": FUNDS, "held": 102_000, "available": FUNDS - 102_000, "owed": 0}
    clock.advance(minutes=61)
    assert client.post(f"/v1/sessions/{session['id']}/stop", json={}, role="driver").json["fee"]["amount"] == 60_000
    assert wallet(client) == {"balance": FUNDS - 60_000, "held": 0, "available": FUNDS - 60_000, "owed": 0}
    now = booked(database_url)
    assert (now["revenue/002/iparking"], now["vat"]) == (-55_556, -4_444)


def test_extension_puts_its_price_aside_too(client: Client):
    session = start(client, minutes=60).json
    assert client.post(f"/v1/sessions/{session['id']}/extend", json={"minutes": 60}, role="driver").status_code == 200
    assert wallet(client)["held"] == 60_000


def test_open_session_may_cost_more_than_was_put_aside(client: Client, clock: SteppedClock):
    session = start(client).json
    assert wallet(client)["held"] == 30_000
    clock.advance(hours=3)
    client.post(f"/v1/sessions/{session['id']}/stop", json={}, role="driver")
    assert wallet(client) == {"balance": FUNDS - 102_000, "held": 0, "available": FUNDS - 102_000, "owed": 0}


def test_what_the_wallet_lacks_is_owed_and_stops_the_next_start_only_above_the_limit(
    client: Client, clock: SteppedClock, database_url: str
):
    spend(database_url, FUNDS - 40_000)
    session = start(client).json
    clock.advance(hours=3)
    client.post(f"/v1/sessions/{session['id']}/stop", json={}, role="driver")
    assert wallet(client) == {"balance": 0, "held": 0, "available": 0, "owed": 62_000}
    assert start(client).json["code"] == "insufficient_funds"
    assert start(client, payment_method="cash").status_code == 201
    with psycopg.connect(database_url) as connection:
        entries = {"receivable/driver": 238_001, "revenue/002/iparking": -238_001}
        ledger.post(connection, [ledger.Posting("parking", "x", clock.now(), entries)])
    assert start(client, payment_method="cash", plate="30A-543.21").json["code"] == "owes_too_much"


def test_refused_start_leaves_nothing_held_and_no_session(client: Client, database_url: str):
    spend(database_url, FUNDS - 29_999)
    refused = start(client)
    assert (refused.status_code, refused.json["code"]) == (409, "insufficient_funds")
    assert wallet(client)["held"] == 0
    assert client.get("/v1/sessions", role="driver").json["sessions"] == []
    occupied = client.get(f"/v1/zones/{ZONE}").json["properties"]["availability"]["car"]["occupied"]
    assert occupied == 0


def test_free_is_only_what_costs_nothing(client: Client):
    assert start(client, payment_method="free").json["code"] == "not_free"


@pytest.mark.parametrize(
    "statement", ["UPDATE ledger_entry SET amount = 1", "DELETE FROM ledger_transaction", "TRUNCATE ledger_entry"]
)
def test_what_is_booked_stays(database_url: str, statement: str):
    with psycopg.connect(database_url) as connection, pytest.raises(psycopg.errors.RestrictViolation):
        connection.execute(statement)

"""Cash through an attendant: his float pays at once, and his shift explains every đồng in his hand."""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from flask import Flask

from app import jobs
from app.resources import Resources
from billing.check import check
from billing.reconcile import lists, reconcile
from billing.reconcile.days import HANOI
from tests.app.test_races import apps, together
from tests.app.test_wallet import booked, wallet
from tests.app.test_wallet_lines import books, owe
from tests.conftest import Client, SteppedClock

__all__ = ["apps", "books"]
FLOAT = 100_000


@pytest.fixture(autouse=True)
def reconciled(database_url: str, clock: SteppedClock) -> Iterator[None]:
    """Whatever happened in a test, the day's cash agrees with floats and holds."""
    day = clock.now().astimezone(HANOI).date()
    yield
    with psycopg.connect(database_url, autocommit=True) as connection, lists.of_shifts(day) as shifts:
        found = reconcile(connection, day, [shifts], None, clock.now())
    assert {one.kind for one in found.differences} <= {"shift_open", "cash_difference"}
    (cash,) = found.gateways
    assert (cash.gateway, cash.theirs - cash.ours, cash.unexplained) == ("cash", 0, 0)


def top_up(client: Client, amount: object = FLOAT, attendant: str = "attendant-1", key: str | None = None):
    body = {"amount": amount, "reason": "nộp tại quầy"}
    return client.post(f"/v1/admin/floats/{attendant}/topups", json=body, role="operator", key=key)


def prepaid(client: Client, role: str = "attendant-1") -> dict[str, int]:
    shown = client.get("/v1/attendant/float", role=role).json
    return {name: shown[name]["amount"] for name in ("balance", "held", "available")}


def open_shift(client: Client, counted: object = 500_000, role: str = "attendant-1", key: str | None = None):
    return client.post("/v1/attendant/shifts", json={"counted": counted}, role=role, key=key)


def close_shift(client: Client, shift: dict, counted: object, role: str = "attendant-1", key: str | None = None):
    path = f"/v1/attendant/shifts/{shift['id']}/close"
    return client.post(path, json={"counted": counted}, role=role, key=key)


def start(client: Client, role: str = "attendant-1", key: str | None = None, **more):
    body = {"zone": "HK-001", "plate": "30A-123.45", "vehicle_class": "car", "minutes": 60} | more
    return client.post("/v1/attendant/sessions", json=body, role=role, key=key)


def stop(client: Client, session: dict, role: str = "attendant-1", key: str | None = None):
    return client.post(f"/v1/attendant/sessions/{session['id']}/stop", json={}, role=role, key=key)


def pay(client: Client, session: dict, role: str = "attendant-1", key: str | None = None):
    return client.post("/v1/attendant/payments", json={"session": session["id"]}, role=role, key=key)


@pytest.fixture
def shift(client: Client) -> dict:
    """attendant-1 has a float and an open shift."""
    assert top_up(client).status_code == 200
    return open_shift(client).json


def test_price_leaves_the_float_at_once_and_is_revenue_at_the_end(
    client: Client, clock: SteppedClock, resources: Resources, database_url: str, shift: dict
):
    answer = start(client, key="k", minutes=120)
    assert (answer.status_code, answer.json["cash"]["amount"]) == (201, 60_000)
    session, code = answer.json["session"], answer.json["code"]
    assert (session["payment_method"], session["state"]) == ("cash", "running") and len(code) == 8
    assert start(client, key="k", minutes=120).data == answer.data
    assert prepaid(client) == {"balance": FLOAT, "held": 60_000, "available": FLOAT - 60_000}
    clock.advance(hours=3)
    jobs.release(resources)
    jobs.close(resources)
    assert prepaid(client) == {"balance": FLOAT - 60_000, "held": 0, "available": FLOAT - 60_000}
    now = booked(database_url)
    assert (now["float/attendant-1"], now["revenue/002/iparking"], now["vat"]) == (-40_000, -55_556, -4_444)
    assert "receivable/attendant-1" not in now


def test_early_stop_hands_back_in_cash_what_was_not_used(client: Client, clock: SteppedClock, shift: dict):
    top_up(client, 10_000)
    session = start(client, minutes=180).json["session"]
    clock.advance(minutes=61)
    assert stop(client, session, role="attendant-2").status_code == 404, "who took the cash gives it back"
    stopped = stop(client, session, key="s")
    assert (stopped.json["cash"]["amount"], stopped.json["session"]["fee"]["amount"]) == (-42_000, 60_000)
    assert stop(client, session, key="s").data == stopped.data
    assert prepaid(client)["available"] == FLOAT + 10_000 - 60_000
    shown = client.get(f"/v1/attendant/shifts/{shift['id']}", role="attendant-1").json
    lines = [(one["kind"], one["amount"]["amount"], one["in_hand"]["amount"]) for one in shown["movements"]]
    assert lines == [("start", 102_000, 602_000), ("hand_back", -42_000, 560_000)]
    assert shown["expected"]["amount"] == 560_000 and shown["difference"] is None


def test_no_float_no_start_and_no_shift_no_cash(client: Client, clock: SteppedClock, database_url: str, shift: dict):
    assert start(client, minutes=240).json["code"] == "insufficient_float"
    assert client.get("/v1/zones/HK-001/availability").json["car"]["occupied"] == 0
    assert start(client, minutes=180).json["code"] == "insufficient_float", "102,000 are more than the float"
    session = start(client, minutes=120).json["session"]
    close_shift(client, shift, 560_000)
    assert start(client, plate="30A-000.01").json["code"] == "no_open_shift"
    assert stop(client, session).json["code"] == "no_open_shift"
    assert pay(client, owe(client, clock, plate="30A-000.02")).json["code"] == "no_open_shift"
    assert start(client, role="driver").status_code == 403 and top_up(client, attendant="driver").status_code == 404
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*), sum(amount) FROM cash_movement").fetchone() == (1, 60_000)


def test_cash_for_what_a_session_left_owing(
    client: Client, clock: SteppedClock, database_url: str, books: psycopg.Connection, shift: dict
):
    first, second = owe(client, clock), owe(client, clock)
    paid = pay(client, second, key="p")
    assert (paid.status_code, paid.json["amount"]["amount"]) == (201, 30_000)
    assert pay(client, second, key="p").data == paid.data
    assert pay(client, second).json["code"] == "nothing_owed"
    assert wallet(client)["owed"] == 30_000
    assert client.get("/v1/wallet", role="driver").json["owed_sessions"][0]["session"] == first["id"]
    assert booked(database_url)["float/attendant-1"] == 30_000 - FLOAT
    row = books.execute("SELECT method, state, paid, session_id::text FROM payment").fetchone()
    assert row == ("cash", "paid", 30_000, second["id"])
    third = owe(client, clock, hours=2.5)
    assert pay(client, third).json["code"] == "insufficient_float"
    running = client.post("/v1/sessions", json={"zone": "HK-001", "plate": "30A-1234", "vehicle_class": "car",
                          "payment_method": "cash"}, role="driver").json  # fmt: skip
    assert pay(client, running).json["code"] == "nothing_owed"
    assert pay(client, {"id": str(uuid4())}).status_code == 404


@pytest.mark.parametrize(("counted", "difference"), [(530_000, 0), (531_000, 1_000), (0, -530_000)])
def test_closed_shift_books_over_and_short(
    client: Client, clock: SteppedClock, database_url: str, shift: dict, counted: int, difference: int
):
    start(client)
    clock.advance(hours=1)
    closed = close_shift(client, shift, counted, key="c")
    assert (closed.json["expected"]["amount"], closed.json["difference"]["amount"]) == (530_000, difference)
    assert close_shift(client, shift, counted, key="c").data == closed.data
    assert close_shift(client, shift, counted).json["code"] == "shift_closed"
    now = booked(database_url)
    assert (now.get("cash_difference", 0), now.get("clearing/cash", 0)) == (-difference, difference)
    assert prepaid(client)["available"] == FLOAT - 30_000, "counting makes nobody richer"
    assert client.get(f"/v1/attendant/shifts/{shift['id']}", role="operator").json == closed.json
    assert client.get(f"/v1/attendant/shifts/{shift['id']}", role="attendant-2").status_code == 404
    assert close_shift(client, shift, 0, role="attendant-2").status_code == 404


def test_one_open_shift_an_attendant_and_odd_amounts_are_refused(client: Client, shift: dict):
    assert open_shift(client).json["code"] == "shift_open"
    for counted in (-1, 10**30, 1.5, "1", None):
        assert open_shift(client, counted, role="attendant-2").status_code == 422, counted
    for amount in (0, -1, 10**30, None):
        assert top_up(client, amount).status_code == 422, amount
    assert top_up(client, key="t").data == top_up(client, key="t").data
    assert prepaid(client)["balance"] == 2 * FLOAT
    assert open_shift(client, 0, role="attendant-2").json["expected"]["amount"] == 0
    assert close_shift(client, shift, 500_000).status_code == 200
    assert open_shift(client).status_code == 201


def test_operator_voids_what_was_taken_in_cash(
    client: Client, clock: SteppedClock, database_url: str, books: psycopg.Connection, shift: dict
):
    def void(session: dict):
        path = f"/v1/admin/sessions/{session['id']}/void"
        return client.post(path, json={"reason": "nhầm xe"}, role="operator")

    running = start(client).json["session"]
    assert void(running).json["refund"] is None
    over = start(client, plate="30A-000.01").json["session"]
    clock.advance(minutes=30)
    stop(client, over)
    assert void(over).json["refund"]["amount"]["amount"] == 30_000
    assert prepaid(client) == {"balance": FLOAT, "held": 0, "available": FLOAT}
    assert {code for code in booked(database_url) if code not in ("bank", "funding")} == {
        "float/attendant-1", *(f"wallet/{one}" for one in ["driver", *(f"driver-{n}" for n in range(1, 9))]),
    }  # fmt: skip
    shown = client.get(f"/v1/attendant/shifts/{shift['id']}", role="operator").json
    assert shown["expected"]["amount"] == 500_000 and len(shown["movements"]) == 4
    third = start(client, plate="30A-000.02").json["session"]
    close_shift(client, shift, 530_000)
    assert void(third).json["code"] == "no_open_shift"
    assert prepaid(client)["held"] == 30_000
    assert [proof for proof in check(books) if proof.wrong] == []


class TestAtOnce:
    def test_two_attendants_take_a_debt_once(self, apps: list[Flask], clock: SteppedClock, shift: dict):
        client = apps[0].test_client()
        top_up(client, attendant="attendant-2")
        open_shift(client, role="attendant-2")
        for _ in range(2):
            session = owe(client, clock)
            answers = together(
                *(
                    lambda app=app, role=role, session=session: pay(app.test_client(), session, role=role)
                    for app, role in zip(apps, ("attendant-1", "attendant-2"), strict=True)
                )
            )
            assert sorted(answer.status_code for answer in answers) == [201, 409]
        assert wallet(client)["owed"] == 0
        assert prepaid(client)["balance"] + prepaid(client, "attendant-2")["balance"] == 2 * FLOAT - 60_000

    def test_float_is_never_overdrawn_and_a_closing_shift_counts_every_start(
        self, apps: list[Flask], books: psycopg.Connection, shift: dict
    ):
        starts = [lambda n=n: start(apps[n % 2].test_client(), plate=f"30A-000.{n:02}") for n in range(6)]
        *answers, closed = together(*starts, lambda: close_shift(apps[1].test_client(), shift, 500_000))
        taken = 30_000 * sum(answer.status_code == 201 for answer in answers)
        assert {answer.json["code"] for answer in answers if answer.status_code == 409} <= {
            "insufficient_float", "no_open_shift",
        }  # fmt: skip
        assert closed.json["expected"]["amount"] == 500_000 + taken <= 590_000
        assert prepaid(apps[0].test_client())["held"] == taken

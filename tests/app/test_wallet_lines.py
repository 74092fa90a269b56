"""A wallet explained line by line, what is owed and how it is paid, and money that leaves for a bank account."""

from collections.abc import Iterator
from itertools import pairwise
from uuid import uuid4

import psycopg
import pytest
from flask import Flask

from billing import ledger, wallets
from billing.ledger import Posting
from tests.app.test_races import apps, together
from tests.app.test_wallet import booked, start, wallet
from tests.conftest import FUNDS, Client, SteppedClock

__all__ = ["apps"]
ACCOUNT = {"bin": "970436", "number": "0011001234567", "holder": "NGUYỄN THỊ Đào"}


@pytest.fixture
def books(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def post(books: psycopg.Connection, clock: SteppedClock, kind: str, reference: str = "", **entries: int) -> None:
    codes = {name.replace("__", "/"): amount for name, amount in entries.items()}
    ledger.post(books, [Posting(kind, reference or str(uuid4()), clock.now(), codes)])


def stay(client: Client, clock: SteppedClock, hours: float = 0.5, **more) -> dict:
    """A session that is over; the answer to its stop."""
    session = start(client, **more).json
    clock.advance(hours=hours)
    return client.post(f"/v1/sessions/{session['id']}/stop", json={}, role="driver").json


def lines(client: Client, query: str = "") -> list[dict]:
    return client.get(f"/v1/wallet/entries{query}", role="driver").json["entries"]


def top_up(books: psycopg.Connection, clock: SteppedClock, amount: int) -> int:
    with books.transaction():
        post(books, clock, "topup", clearing__test=amount, wallet__driver=-amount)
        return wallets.settle_owed(books, "driver", clock.now())


def empty(books: psycopg.Connection, clock: SteppedClock, left: int = 0) -> None:
    post(books, clock, "withdrawal", wallet__driver=FUNDS - left, bank=left - FUNDS)


def owe(client: Client, clock: SteppedClock, **more) -> dict:
    return stay(client, clock, payment_method="cash", **more)


class TestLines:
    def test_each_booking_is_a_line_with_the_balance_behind_it(
        self, client: Client, clock: SteppedClock, books: psycopg.Connection
    ):
        session = stay(client, clock)
        clock.advance(minutes=1)
        charge = books.execute("SELECT id FROM ledger_transaction WHERE kind = 'parking'").fetchone()[0]
        ledger.reverse(books, charge, f"{session['id']}/x", clock.now())
        reversal, parking, funding = lines(client)
        shown = [
            (one["kind"], one["amount"]["amount"], one["balance"]["amount"]) for one in (funding, parking, reversal)
        ]
        assert shown == [("funding", FUNDS, FUNDS), ("parking", -30_000, FUNDS - 30_000), ("reversal", 30_000, FUNDS)]
        assert (parking["session"], parking["reference"], parking["at"]) == (
            session["id"], session["id"], "2026-10-14T08:30:00.000+07:00",
        )  # fmt: skip
        assert (parking["reversed_by"], reversal["reverses"]) == (reversal["id"], parking["id"])
        assert reversal["session"] == session["id"] and funding["session"] is None

    def test_pages_hold_every_line_once_and_add_up_to_the_balance(
        self, client: Client, clock: SteppedClock, books: psycopg.Connection
    ):
        for n in range(1, 7):
            post(books, clock, "topup", clearing__test=n * 1_000, wallet__driver=-n * 1_000)  # all of one instant
        found, query = [], "?limit=3"
        while query:
            answer = client.get(f"/v1/wallet/entries{query}", role="driver")
            found += answer.json["entries"]
            query = answer.headers.get("Link", "").partition(">")[0].partition("entries")[2]
        assert len({one["id"] for one in found}) == len(found) == 7
        assert (
            sum(one["amount"]["amount"] for one in found) == wallet(client)["balance"] == found[0]["balance"]["amount"]
        )
        for newer, older in pairwise(found):
            assert newer["balance"]["amount"] - newer["amount"]["amount"] == older["balance"]["amount"]

    def test_lines_are_the_drivers_own(self, client: Client, clock: SteppedClock):
        stay(client, clock)
        assert len(client.get("/v1/wallet/entries", role="driver-1").json["entries"]) == 1
        assert client.get("/v1/wallet/entries?cursor=x", role="driver").status_code == 400


class TestOwed:
    def test_what_is_owed_is_shown_by_session_oldest_first(self, client: Client, clock: SteppedClock):
        first, second = owe(client, clock), owe(client, clock, plate="30A-543.21", hours=2.5)
        shown = client.get("/v1/wallet", role="driver").json
        assert shown["owed"]["amount"] == 132_000
        assert [(one["session"], one["amount"]["amount"], one["since"]) for one in shown["owed_sessions"]] == [
            (first["id"], 30_000, "2026-10-14T08:30:00.000+07:00"),
            (second["id"], 102_000, "2026-10-14T11:00:00.000+07:00"),
        ]

    def test_top_up_pays_what_is_owed_first_and_oldest_first(
        self, client: Client, clock: SteppedClock, books: psycopg.Connection
    ):
        empty(books, clock)
        owe(client, clock)
        second = owe(client, clock)
        assert top_up(books, clock, 45_000) == 45_000
        assert wallet(client) == {"balance": 0, "held": 0, "available": 0, "owed": 15_000}
        (left,) = client.get("/v1/wallet", role="driver").json["owed_sessions"]
        assert (left["session"], left["amount"]["amount"]) == (second["id"], 15_000)
        assert [one["kind"] for one in lines(client)][:2] == ["arrears", "topup"]
        assert top_up(books, clock, 20_000) == 15_000
        assert wallet(client) == {"balance": 5_000, "held": 0, "available": 5_000, "owed": 0}

    def test_payment_for_one_session_is_taken_off_that_one(
        self, client: Client, clock: SteppedClock, books: psycopg.Connection
    ):
        first, second = owe(client, clock), owe(client, clock)
        books.execute(
            "INSERT INTO payment (id, client, purpose, session_id, method, amount, paid, state, reference, created_at, "
            "settled_at) VALUES (%(p)s, 'driver', 'session', %(s)s, 'vietqr', 30000, 30000, 'paid', 'r', %(t)s, %(t)s)",
            {"p": uuid4(), "s": second["id"], "t": clock.now()},
        )
        post(books, clock, "transfer", clearing__vietqr=30_000, receivable__driver=-30_000)
        (left,) = client.get("/v1/wallet", role="driver").json["owed_sessions"]
        assert (left["session"], left["amount"]["amount"]) == (first["id"], 30_000)

    def test_what_is_owed_for_nothing_known_is_shown_too(
        self, client: Client, clock: SteppedClock, books: psycopg.Connection
    ):
        post(books, clock, "fine", receivable__driver=7_000, fee__test=-7_000)
        (left,) = client.get("/v1/wallet", role="driver").json["owed_sessions"]
        assert (left["session"], left["amount"]["amount"], left["since"]) == (None, 7_000, None)

    def test_driver_pays_what_is_owed_from_the_wallet(
        self, client: Client, clock: SteppedClock, books: psycopg.Connection
    ):
        def pay(key: str | None = None):
            return client.post("/v1/wallet/pay-owed", json={}, role="driver", key=key)

        assert pay().json["code"] == "nothing_owed"
        owe(client, clock)
        empty(books, clock)
        assert pay().json["code"] == "insufficient_funds"
        post(books, clock, "topup", clearing__test=50_000, wallet__driver=-50_000)
        paid = pay("k")
        assert (paid.status_code, paid.json["paid"]["amount"]) == (200, 30_000)
        assert paid.json["wallet"]["owed"]["amount"] == 0 and paid.json["wallet"]["balance"]["amount"] == 20_000
        assert pay("k").data == paid.data
        assert pay().json["code"] == "nothing_owed"

    def test_money_that_is_put_aside_pays_no_debt(self, client: Client, clock: SteppedClock, books: psycopg.Connection):
        owe(client, clock)
        empty(books, clock, left=30_000)
        start(client, plate="30A-000.01", minutes=60)
        assert client.post("/v1/wallet/pay-owed", role="driver").json["code"] == "insufficient_funds"
        assert wallet(client) == {"balance": 30_000, "held": 30_000, "available": 0, "owed": 30_000}


def withdraw(client: Client, amount: object, key: str | None = None, **more):
    body = {"amount": amount, "bank_account": ACCOUNT} | more
    return client.post("/v1/wallet/withdrawals", json=body, role="driver", key=key)


def decide(client: Client, made: dict, verb: str, key: str | None = None, **body):
    return client.post(f"/v1/admin/withdrawals/{made['id']}/{verb}", json=body, role="operator", key=key)


class TestWithdrawals:
    def test_money_leaves_the_wallet_at_once_and_the_bank_when_it_is_paid(
        self, client: Client, clock: SteppedClock, database_url: str
    ):
        made = withdraw(client, 4_000_000, "k")
        assert (made.status_code, made.json["state"]) == (201, "requested")
        assert made.json["bank_account"] == ACCOUNT
        assert withdraw(client, 4_000_000, "k").data == made.data
        assert wallet(client)["balance"] == FUNDS - 4_000_000
        assert booked(database_url)["clearing/bank"] == -4_000_000
        clock.advance(hours=1)
        paid = decide(client, made.json, "pay", bank_reference="FT26287001")
        assert (paid.json["state"], paid.json["bank_reference"], paid.json["client"]) == (
            "paid",
            "FT26287001",
            "driver",
        )
        now = booked(database_url)
        assert now["bank"] == -4_000_000 and "clearing/bank" not in now
        assert decide(client, made.json, "reject", reason="x").json["code"] == "already_decided"
        assert client.get("/v1/wallet/withdrawals", role="driver").json["withdrawals"][0]["state"] == "paid"
        assert client.get("/v1/wallet/withdrawals", role="driver-1").json["withdrawals"] == []

    def test_rejected_money_is_back_in_the_wallet_and_pays_what_is_owed_first(
        self, client: Client, clock: SteppedClock, database_url: str
    ):
        made = withdraw(client, FUNDS).json
        owe(client, clock)
        rejected = decide(client, made, "reject", key="r", reason="Tên không khớp")
        assert rejected.json["state"] == "rejected"
        assert decide(client, made, "reject", key="r", reason="Tên không khớp").data == rejected.data
        assert wallet(client) == {"balance": FUNDS - 30_000, "held": 0, "available": FUNDS - 30_000, "owed": 0}
        with psycopg.connect(database_url) as connection:
            acts = connection.execute("SELECT actor, action, subject, reason FROM audit_log").fetchall()
        assert acts == [("operator", "withdrawal.reject", made["id"], "Tên không khớp")]

    def test_never_more_than_is_free_and_what_is_owed_is_paid_first(self, client: Client, clock: SteppedClock):
        start(client, plate="30A-000.01", minutes=60)
        owe(client, clock)
        assert withdraw(client, FUNDS - 59_999).json["code"] == "insufficient_funds"
        assert wallet(client)["owed"] == 30_000, "what was refused changed nothing"
        assert withdraw(client, FUNDS - 60_000).status_code == 201
        assert wallet(client) == {"balance": 30_000, "held": 30_000, "available": 0, "owed": 0}
        assert [one["kind"] for one in lines(client)] == ["withdrawal", "arrears", "funding"]

    def test_odd_amounts_and_accounts_are_refused(self, client: Client):
        for amount in (0, -1, 1_000_000_001, 10**30, 1.5, "5", None, True):
            assert withdraw(client, amount).status_code == 422, amount
        odd = {"bin": ("97043", "٩٧٠٤٣٦"), "number": ("1234\n", "x" * 20), "holder": (" ", "a\x00"), "iban": ("x",)}
        for account in ({name: value} for name, values in odd.items() for value in values):
            assert withdraw(client, 1, bank_account=ACCOUNT | account).status_code == 422, account
        assert wallet(client)["balance"] == FUNDS

    def test_unknown_withdrawal(self, client: Client):
        assert decide(client, {"id": uuid4()}, "pay", bank_reference="x").status_code == 404
        assert decide(client, {"id": "x"}, "pay", bank_reference="x").status_code == 400

    def test_two_at_once_never_take_more_than_there_is(self, apps: list[Flask]):
        calls = [lambda app=app: withdraw(app.test_client(), FUNDS * 2 // 3) for app in apps * 3]
        assert sorted(answer.status_code for answer in together(*calls)) == [201, *[409] * 5]
        assert wallet(apps[0].test_client())["balance"] == FUNDS - FUNDS * 2 // 3

"""Money that goes back: refunds that operators decide, and mistakes that they void; to the đồng, and never twice."""

from itertools import pairwise
from uuid import uuid4

import psycopg
import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from billing import calls, given_back, payments, refunds, refunds_at_gateway
from billing.audit import Act
from billing.check import check
from billing.gateways import Refund
from billing.refunds import Charge
from billing.refunds_at_gateway import AtGateway
from tests.app.test_races import apps, together
from tests.app.test_wallet import booked, start, wallet
from tests.app.test_wallet_lines import books, empty, lines, owe, post, stay
from tests.conftest import FUNDS, Client, SteppedClock

__all__ = ["apps", "books"]
FULL = {"balance": FUNDS, "held": 0, "available": FUNDS, "owed": 0}


def ask(client: Client, session: dict, role: str = "driver", key: str | None = None, reason: object = "Xe bị kéo đi ☂"):
    return client.post("/v1/refunds", json={"session": session["id"], "reason": reason}, role=role, key=key)


def decide(client: Client, refund: dict, verb: str = "approve", key: str | None = None, **body):
    return client.post(f"/v1/admin/refunds/{refund['id']}/{verb}", json=body, role="operator", key=key)


def void(client: Client, session: dict, key: str | None = None):
    return client.post(f"/v1/admin/sessions/{session['id']}/void", json={"reason": "nhầm"}, role="operator", key=key)


def earned(database_url: str) -> dict[str, int]:
    """What is left of revenue and tax, and in the accounts of money on its way."""
    now = booked(database_url)
    return {code: amount for code, amount in now.items() if not code.startswith(("wallet", "funding", "bank"))}


def acts(database_url: str) -> list[tuple[str, str, str]]:
    with psycopg.connect(database_url) as connection:
        return connection.execute("SELECT actor, action, subject FROM audit_log ORDER BY id").fetchall()


@given(st.integers(1, 10**12), st.integers(0, 10_000), st.lists(st.floats(0, 1), max_size=6))
def test_pieces_of_a_refund_make_the_exact_opposite(gross: int, basis_points: int, shares: list[float]):
    tax = gross - (gross * 20_000 + 10_000 + basis_points) // (2 * (10_000 + basis_points))
    charge = Charge(uuid4(), uuid4(), {"wallet/a": gross, "revenue/002/iparking": tax - gross, "vat": -tax})
    cuts = sorted({0, gross, *(round(share * gross) for share in shares)})
    taxes = [charge.tax(end) - charge.tax(begin) for begin, end in pairwise(cuts)]
    assert sum(taxes) == tax
    for part, (begin, end) in zip(taxes, pairwise(cuts), strict=True):
        assert 0 <= part <= end - begin
        assert abs(part - tax * (end - begin) / gross) <= 1


class TestRefunds:
    def test_driver_asks_and_operator_gives_back_a_part_and_then_the_rest(
        self, client: Client, clock: SteppedClock, database_url: str
    ):
        session = stay(client, clock, hours=2.5)  # 102,000: 94,444 and tax of 7,556
        asked = ask(client, session, key="k")
        assert (asked.status_code, asked.json["state"], asked.json["amount"]) == (201, "requested", None)
        assert ask(client, session, key="k").data == asked.data
        assert ask(client, session).json["code"] == "already_requested"
        clock.advance(minutes=1)
        part = decide(client, asked.json, amount=1_000, key="a")
        assert (part.json["state"], part.json["to_wallet"]["amount"]) == ("refunded", 1_000)
        assert decide(client, asked.json, amount=1_000, key="a").data == part.data
        assert decide(client, asked.json, amount=1_000).json == part.json, "also without the key"
        assert earned(database_url) == {"revenue/002/iparking": -(94_444 - 926), "vat": -(7_556 - 74)}
        assert decide(client, asked.json, amount=999).json["code"] == "already_decided"
        clock.advance(minutes=1)
        again = ask(client, session, reason="phần còn lại").json
        assert decide(client, again, amount=101_001).json["code"] == "refund_exceeds_charge"
        assert decide(client, again).json["amount"]["amount"] == 101_000
        assert earned(database_url) == {} and wallet(client) == FULL
        assert ask(client, session).json["code"] == "refund_exceeds_charge"
        assert [(one["kind"], one["session"]) for one in lines(client)][:3] == [
            ("refund", session["id"]), ("refund", session["id"]), ("parking", session["id"]),
        ]  # fmt: skip
        assert acts(database_url)[0] == ("operator", "refund.approve", asked.json["id"])
        listed = client.get("/v1/admin/refunds?state=refunded&limit=1", role="operator")
        assert listed.json["refunds"][0]["client"] == "driver" and "cursor" in listed.headers["Link"]

    def test_rejected_gives_nothing_back(self, client: Client, clock: SteppedClock, database_url: str):
        asked = ask(client, stay(client, clock)).json
        assert decide(client, asked, "reject", reason="ở đủ giờ").json["decision"] == "ở đủ giờ"
        assert decide(client, asked).json["code"] == "already_decided"
        assert wallet(client)["balance"] == FUNDS - 30_000
        assert client.get("/v1/refunds", role="driver").json["refunds"][0]["state"] == "rejected"

    def test_only_of_ones_own_session_that_was_charged(self, client: Client, clock: SteppedClock):
        over = stay(client, clock)
        assert ask(client, over, role="driver-1").status_code == 404
        assert ask(client, {"id": str(uuid4())}).status_code == 404
        assert ask(client, start(client).json).json["code"] == "nothing_charged"
        for reason in ("", "  ", "x" * 501, "a\x00", None, 5):
            assert ask(client, over, reason=reason).status_code == 422, reason
        asked = ask(client, over).json
        for amount in (0, -1, 10**30, "1"):
            assert decide(client, asked, amount=amount).status_code == 422, amount
        assert decide(client, {"id": uuid4()}).status_code == 404

    def test_what_is_still_owed_is_given_back_first(
        self, client: Client, clock: SteppedClock, books: psycopg.Connection, database_url: str
    ):
        empty(books, clock, left=40_000)
        other = owe(client, clock)  # 30,000, by cash
        session = stay(client, clock, hours=2.5, plate="30A-543.21")  # 40,000 of 102,000 from the wallet
        assert wallet(client)["owed"] == 92_000
        given = decide(client, ask(client, session).json, amount=70_000).json
        assert (given["to_debt"]["amount"], given["to_wallet"]["amount"]) == (62_000, 8_000)
        assert wallet(client) == {"balance": 0, "held": 0, "available": 0, "owed": 22_000}, "it paid the other debt"
        (left,) = client.get("/v1/wallet", role="driver").json["owed_sessions"]
        assert (left["session"], left["amount"]["amount"]) == (other["id"], 22_000)
        assert earned(database_url).keys() == {"receivable/driver", "revenue/002/iparking", "vat"}

    def test_card_money_goes_back_by_its_gateway_or_to_the_wallet(
        self, client: Client, clock: SteppedClock, books: psycopg.Connection, database_url: str
    ):
        sessions = [stay(client, clock, payment_method="cash", plate=f"30A-000.0{n}") for n in (1, 2)]
        for n, session in enumerate(sessions):
            books.execute(
                "INSERT INTO payment (id, client, purpose, session_id, method, amount, paid, state, reference, "
                "gateway_reference, created_at, settled_at) VALUES (%(p)s, 'driver', 'session', %(s)s, 'card', 30000, "
                "30000, 'paid', %(r)s, %(r)s, %(t)s, %(t)s)",
                {"p": uuid4(), "s": session["id"], "r": f"pi_{n}", "t": clock.now()},
            )
            post(books, clock, "payment", f"pi_{n}", clearing__stripe=30_000, receivable__driver=-30_000)
        given = [decide(client, ask(client, session).json).json for session in sessions]
        assert {one["state"] for one in given} == {"pending_gateway"}
        assert earned(database_url) == {"clearing/stripe": 60_000, "refund": -60_000}
        asked: list[AtGateway] = []

        def unknown(one: AtGateway) -> None:
            asked.append(one)

        assert refunds_at_gateway.refund_via_gateway(books, unknown, clock.now()) == 0
        assert {(one.gateway_reference, one.amount) for one in asked} == {("pi_0", 30_000), ("pi_1", 30_000)}

        def made(one: AtGateway) -> bool:
            if one.gateway_reference != "pi_0":
                return False
            request = {"refund": str(one.refund_id)}
            call = calls.plan(books, one.payment_id, "refund", one.amount, clock.now(), request=request)
            given = Refund("re_1", one.amount, "paid", call.key)
            given_back.book(books, payments.find(books, one.payment_id), given, "stripe", clock.now())
            return True

        assert refunds_at_gateway.refund_via_gateway(books, made, clock.now()) == 2
        assert refunds_at_gateway.refund_via_gateway(books, lambda one: True, clock.now()) == 0
        assert earned(database_url) == {"clearing/stripe": 30_000}
        assert wallet(client)["balance"] == FUNDS + 30_000


class TestVoid:
    def test_of_a_running_session_ends_it_for_nothing(self, client: Client, clock: SteppedClock, database_url: str):
        session = start(client, minutes=60).json
        clock.advance(minutes=5)
        voided = void(client, session, key="v")
        assert (voided.status_code, voided.json) == (200, {"session": session["id"], "refund": None})
        assert void(client, session, key="v").data == voided.data
        assert wallet(client) == FULL and earned(database_url) == {}
        shown = client.get(f"/v1/sessions/{session['id']}", role="driver").json
        assert (shown["state"], shown["fee"]["amount"], shown["ended_at"]) == (
            "ended", 0, "2026-10-14T08:05:00.000+07:00",
        )  # fmt: skip
        assert client.get("/v1/zones/HK-001/availability").json["car"]["occupied"] == 0
        assert client.post(f"/v1/sessions/{session['id']}/stop", role="driver").json["code"] == "session_ended"
        assert start(client).status_code == 201, "the plate is free again"
        assert acts(database_url) == [("operator", "session.void", session["id"])]

    def test_of_an_ended_session_is_the_exact_opposite_of_its_charge(
        self, client: Client, clock: SteppedClock, books: psycopg.Connection, database_url: str
    ):
        session = stay(client, clock)
        clock.advance(minutes=1)
        voided = void(client, session)
        assert (voided.json["refund"]["kind"], voided.json["refund"]["amount"]["amount"]) == ("void", 30_000)
        assert void(client, session).json == voided.json
        assert wallet(client) == FULL and earned(database_url) == {}
        kinds = books.execute("SELECT kind FROM ledger_transaction WHERE kind <> 'funding' ORDER BY id").fetchall()
        assert kinds == [("parking",), ("reversal",)]
        assert ask(client, session).json["code"] == "refund_exceeds_charge"
        assert acts(database_url) == [("operator", "session.void", session["id"])]

    def test_what_was_paid_of_the_debt_goes_to_who_paid_it(
        self, client: Client, clock: SteppedClock, books: psycopg.Connection, database_url: str
    ):
        session, other = owe(client, clock), owe(client, clock)
        empty(books, clock, left=45_000)
        assert client.post("/v1/wallet/pay-owed", role="driver").json["paid"]["amount"] == 45_000
        voided = void(client, other).json["refund"]  # 15,000 of its 30,000 were paid
        assert (voided["to_debt"]["amount"], voided["to_wallet"]["amount"]) == (15_000, 15_000)
        assert wallet(client) == {"balance": 15_000, "held": 0, "available": 15_000, "owed": 0}
        assert void(client, session).json["refund"]["to_wallet"]["amount"] == 30_000
        assert wallet(client) == {"balance": 45_000, "held": 0, "available": 45_000, "owed": 0}
        assert earned(database_url) == {}
        assert [proof for proof in check(books) if proof.wrong] == []

    def test_not_of_what_was_refunded_or_never_charged(self, client: Client, clock: SteppedClock):
        session = stay(client, clock)
        decide(client, ask(client, session).json, amount=1)
        assert void(client, session).json["code"] == "refund_exceeds_charge"
        assert void(client, {"id": str(uuid4())}).status_code == 404
        assert void(client, {"id": "x"}).status_code == 400
        running = start(client).json
        void(client, running)
        assert void(client, running).json["code"] == "nothing_charged"


class TestAtOnce:
    ROUNDS = 4

    def test_refunds_and_a_void_give_back_no_more_than_was_charged(
        self, apps: list[Flask], clock: SteppedClock, books: psycopg.Connection, database_url: str
    ):
        client = apps[0].test_client()
        for n in range(self.ROUNDS):
            session = stay(client, clock, plate=f"30A-{n:03}.00")
            asked = ask(client, session).json
            answers = together(
                lambda asked=asked: decide(apps[0].test_client(), asked, amount=20_000),
                lambda asked=asked: decide(apps[1].test_client(), asked, amount=25_000),
                lambda session=session: void(apps[1].test_client(), session),
                lambda asked=asked: decide(apps[1].test_client(), asked, amount=20_000),
            )
            assert {answer.status_code for answer in answers} == {200, 409}
            given = books.execute("SELECT sum(amount) FROM refund WHERE session_id = %s", (session["id"],)).fetchone()[
                0
            ]
            assert given in (20_000, 25_000, 30_000)
        assert wallet(client)["owed"] == 0
        total = books.execute("SELECT sum(amount) FROM refund").fetchone()[0]
        assert wallet(client)["balance"] == FUNDS - 30_000 * self.ROUNDS + total
        assert sum(earned(database_url).values()) == total - 30_000 * self.ROUNDS

    def test_void_that_races_a_stop_leaves_one_of_two_outcomes(self, apps: list[Flask], clock: SteppedClock):
        client = apps[0].test_client()
        for n in range(self.ROUNDS):
            session = start(client, plate=f"30A-{n:03}.00", minutes=60).json
            stopped, voided = together(
                lambda session=session: client.application.test_client().post(
                    f"/v1/sessions/{session['id']}/stop", role="driver"
                ),
                lambda session=session: void(apps[1].test_client(), session),
            )
            assert voided.status_code == 200
            was_stopped_first = voided.json["refund"] is not None
            assert stopped.status_code == (200 if was_stopped_first else 409)
            assert wallet(client) == FULL


def test_void_once_more_by_another_is_the_first_one(client: Client, clock: SteppedClock, books: psycopg.Connection):
    session = stay(client, clock)
    charge = refunds.charge_of(books, session["id"])
    first, is_new = refunds.void(books, charge, Act("a", clock.now(), "x"))
    again, is_again_new = refunds.void(books, charge, Act("b", clock.now(), "y"))
    assert (is_new, is_again_new) == (True, False) and first == again
    with pytest.raises(psycopg.errors.CheckViolation):
        books.execute("UPDATE refund SET amount = charged + 1")

"""Settling: what is due is charged once, outside every transaction, and what has no answer is asked again."""

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID

import pytest
from psycopg import Connection, pq
from psycopg.rows import dict_row
from sqlalchemy import event

from app import settlement
from app.config import Settings
from app.resources import Resources, make_gateways
from billing import payments
from billing.errors import GatewayUnavailable, PaymentDeclined
from tests.conftest import SteppedClock

METHODS = ("wallet", "card", "vietqr")


class Gateway:
    """Answers as told, and remembers what it was asked."""

    def __init__(self, resources: Resources) -> None:
        self.held: Counter[int] = Counter()  # connections of the engine by thread
        event.listen(resources.engine, "checkout", lambda *_: self.held.update([threading.get_ident()]))
        event.listen(resources.engine, "checkin", lambda *_: self.held.subtract([threading.get_ident()]))
        self.calls: list[tuple[str, str, int]] = []
        self.declined: set[str] = set()
        self.silent: set[str] = set()

    def charge(self, reference: str, method: str, amount: int) -> str:
        assert self.held[threading.get_ident()] == 0, "a transaction may be open over the call"
        self.calls.append((reference, method, amount))
        if reference in self.silent:
            raise GatewayUnavailable(f"no answer to {reference}")
        if reference in self.declined:
            raise PaymentDeclined(f"{reference} was declined")
        return f"ours-{reference}"


@pytest.fixture
def gateway(resources: Resources) -> Gateway:
    return Gateway(resources)


@pytest.fixture
def settling(resources: Resources, gateway: Gateway) -> Resources:
    """The service's resources with one gateway for all methods but cash."""
    return replace(resources, gateways=dict.fromkeys(METHODS, gateway))


RECORD_DUE = """SELECT payment_id FROM record_due(
    ARRAY[gen_random_uuid()], '{driver}', ARRAY[%s::text], ARRAY[%s::bigint], ARRAY[%s::timestamptz])"""


@pytest.fixture
def db(resources: Resources) -> Iterator[Connection]:
    connection = resources.connections.get()
    yield connection
    assert connection.info.transaction_status == pq.TransactionStatus.IDLE


def owe(db: Connection, clock: SteppedClock, method: str = "card", amount: int = 25_000) -> str:
    """A session that has just ended; the id of its payment."""
    clock.advance(seconds=1)
    row = db.execute(RECORD_DUE, (method, amount, clock.now())).fetchone()
    assert row is not None
    return str(row[0])


def payment(db: Connection, payment_id: str) -> dict:
    row = db.cursor(row_factory=dict_row).execute("SELECT * FROM payment WHERE id = %s", [payment_id]).fetchone()
    assert row is not None
    return row


def states(db: Connection, *ids: str) -> list[str]:
    return [payment(db, each)["state"] for each in ids]


@pytest.mark.parametrize("method", METHODS)
def test_due_payment_is_charged_and_paid(settling, gateway, db, clock, method):
    due = owe(db, clock, method, 85_000)
    clock.advance(minutes=1)
    assert settlement.settle(settling) == 1
    paid = payment(db, due)
    assert gateway.calls == [(due, method, 85_000)]
    assert (paid["state"], paid["gateway_reference"]) == ("paid", f"ours-{due}")
    assert paid["settled_at"] == clock.now() > paid["created_at"]


def test_settled_payment_is_not_asked_for_again(settling, gateway, db, clock):
    owe(db, clock)
    settlement.settle(settling)
    assert settlement.settle(settling) == 0 and len(gateway.calls) == 1


def test_declined_payment_fails_for_good(settling, gateway, db, clock):
    due = owe(db, clock)
    gateway.declined.add(due)
    assert settlement.settle(settling) == 1
    failed = payment(db, due)
    assert (failed["state"], failed["gateway_reference"], failed["settled_at"]) == ("failed", None, clock.now())
    assert settlement.settle(settling) == 0 and len(gateway.calls) == 1


def test_cash_stays_due(settling, gateway, db, clock):
    cash, card = owe(db, clock, "cash"), owe(db, clock, "card")
    assert settlement.settle(settling) == 1
    assert states(db, cash, card) == ["due", "paid"] and [call[0] for call in gateway.calls] == [card]


def test_free_session_owes_nothing(settling, gateway, db, clock):
    row = db.execute(RECORD_DUE, ("card", 0, clock.now())).fetchone()
    assert row is None and settlement.settle(settling) == 0 and not gateway.calls


def test_payment_without_an_answer_stays_due_and_is_asked_with_the_same_reference(settling, gateway, db, clock):
    due, other = owe(db, clock), owe(db, clock)
    gateway.silent.add(due)
    assert settlement.settle(settling) == 1, "one without an answer holds up no other"
    assert states(db, due, other) == ["due", "paid"]
    gateway.silent.clear()
    assert settlement.settle(settling) == 1
    assert [call for call in gateway.calls if call[0] == due] == [(due, "card", 25_000)] * 2
    assert states(db, due) == ["paid"]


def test_silent_gateway_is_left_alone_and_holds_up_no_other_method(settling, gateway, db, clock):
    cards = [owe(db, clock, "card") for _ in range(settlement.PATIENCE + 4)]
    wallet = owe(db, clock, "wallet")
    gateway.silent.update(cards)
    assert settlement.settle(settling) == 1
    assert sorted(call[0] for call in gateway.calls) == sorted([*cards[: settlement.PATIENCE], wallet])
    gateway.silent.clear()
    assert settlement.settle(settling) == len(cards) and set(states(db, *cards)) == {"paid"}


def test_more_than_a_batch_is_settled_oldest_first(settling, gateway, db, clock, monkeypatch):
    monkeypatch.setattr(settlement, "BATCH", 2)
    due = [owe(db, clock, method) for method in ("card", "cash", "card", "cash", "card", "vietqr", "card")]
    assert settlement.settle(settling) == 5
    assert [call[0] for call in gateway.calls if call[1] == "card"] == [due[0], due[2], due[4], due[6]]


def test_round_ends_when_its_time_is_over(settling, gateway, db, clock, monkeypatch):
    owe(db, clock)
    monkeypatch.setattr(settlement, "LONGEST_ROUND", 0.0)
    assert settlement.settle(settling) == 0 and not gateway.calls


def test_process_that_dies_after_the_charge_asks_again(settling, gateway, db, clock, monkeypatch):
    due = owe(db, clock)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(payments, "mark_paid", die)
        with pytest.raises(KeyboardInterrupt):
            settlement.settle(settling)
    assert states(db, due) == ["due"]
    assert settlement.settle(settling) == 1 and states(db, due) == ["paid"]
    assert gateway.calls == [(due, "card", 25_000)] * 2


def test_two_jobs_that_settle_the_same_payment_agree(settling, gateway, db, clock, monkeypatch):
    """The other process settles between our charge and our record."""
    due, charge = owe(db, clock), gateway.charge

    def settled_meanwhile(reference: str, method: str, amount: int) -> str:
        answer = charge(reference, method, amount)
        with settling.engine.begin() as connection:
            payments.mark_paid(connection, UUID(reference), answer, clock.now())
        return answer

    monkeypatch.setattr(gateway, "charge", settled_meanwhile)
    settlement.settle(settling)
    assert payment(db, due)["gateway_reference"] == f"ours-{due}"


def test_contradiction_of_a_gateway_is_logged_and_changes_nothing(settling, gateway, db, clock, monkeypatch, caplog):
    due, other = owe(db, clock), owe(db, clock)
    charge = gateway.charge

    def contradicted(reference: str, method: str, amount: int) -> str:
        if reference == due:
            with settling.engine.begin() as connection:
                payments.mark_failed(connection, UUID(reference), clock.now())
        return charge(reference, method, amount)

    monkeypatch.setattr(gateway, "charge", contradicted)
    assert settlement.settle(settling) == 1
    assert states(db, due, other) == ["failed", "paid"] and "contradicts itself" in caplog.text


def test_stopped_session_is_settled_with_its_own_method_and_fee(settling, client, db, clock):
    body = {"zone": "HK-001", "plate": "30A-123.45", "vehicle_class": "car", "payment_method": "vietqr"}
    session = client.post("/v1/sessions", json=body, role="driver").json
    clock.advance(minutes=61)
    stopped = client.post(f"/v1/sessions/{session['id']}/stop", json={}, role="driver").json
    assert settlement.settle(settling) == 1
    query = "SELECT method, amount, state FROM payment WHERE session_id = %s"
    assert db.execute(query, [session["id"]]).fetchall() == [("vietqr", stopped["fee"]["amount"], "paid")]


@pytest.mark.parametrize(("environment", "warned"), [("production", True), ("test", False)])
def test_simulated_payments_are_said_in_production(environment, warned, caplog):
    gateways = make_gateways(Settings("postgresql:///x", "redis://x", None, environment))
    assert set(gateways) == set(METHODS)
    assert ("payments are simulated" in caplog.text) is warned

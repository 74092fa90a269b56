"""Payments: due once when a session ends, settled once, whatever is repeated."""

from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from billing import payments
from billing.errors import GatewayUnavailable, PaymentAlreadySettled, PaymentDeclined, UnknownPayment
from billing.gateways import METHODS, Gateway
from billing.gateways.fake import FakeGateway
from tests.billing.rate_examples import hanoi

NOW = hanoi("2026-11-23T12:00")
RECORD_DUE = text(
    "SELECT payment_id "
    "FROM record_due(ARRAY[:id], '{driver-1}', ARRAY[:method], ARRAY[CAST(:amount AS bigint)], ARRAY[:at])"
)


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.begin() as connection:
        yield connection


def record_due(connection: Connection, amount: int = 25_000, method: str = "wallet", minutes: int = 0) -> UUID | None:
    values = {"id": uuid4(), "method": method, "amount": amount, "at": NOW + timedelta(minutes=minutes)}
    return connection.execute(RECORD_DUE, values).scalar_one_or_none()


def state(connection: Connection, payment_id: UUID | None) -> tuple[object, ...]:
    query = text("SELECT state, settled_at, gateway_reference FROM payment WHERE id = :id")
    return tuple(connection.execute(query, {"id": payment_id}).one())


@pytest.mark.parametrize("method", METHODS)
def test_what_a_session_owes_is_due(connection: Connection, method: str):
    payment_id = record_due(connection, 85_000, method)
    (due,) = payments.due(connection, method, 10)
    assert (due.id, due.client, due.method, due.amount, due.created_at) == (payment_id, "driver-1", method, 85_000, NOW)


def test_a_free_stay_leaves_nothing_due(connection: Connection):
    assert record_due(connection, 0) is None
    assert payments.due(connection, "wallet", 10) == []


def test_a_session_is_charged_once(engine: Engine):
    values = {"id": uuid4(), "method": "cash", "amount": 1, "at": NOW}
    with engine.begin() as connection:
        connection.execute(RECORD_DUE, values)
    with pytest.raises(IntegrityError, match="payment_session_id_key"), engine.begin() as connection:
        connection.execute(RECORD_DUE, values)


def test_of_many_sessions_each_owes_its_own(connection: Connection):
    sessions, amounts = [uuid4() for _ in range(3)], [25_000, 0, 85_000]
    statement = text("SELECT * FROM record_due(:ids, :clients, :methods, :amounts, :at)")
    values = {"ids": sessions, "clients": ["a", "b", "c"], "methods": ["card"] * 3, "amounts": amounts, "at": [NOW] * 3}
    recorded = dict(connection.execute(statement, values).tuples().all())
    assert set(recorded) == {sessions[0], sessions[2]}
    due = {due.session_id: (due.id, due.client, due.amount) for due in payments.due(connection, "card", 10)}
    assert due == {
        sessions[0]: (recorded[sessions[0]], "a", 25_000),
        sessions[2]: (recorded[sessions[2]], "c", 85_000),
    }


@pytest.mark.parametrize(("method", "amount"), [("credit", 1), ("", 1)])
def test_an_unknown_method_is_refused_by_the_database(engine: Engine, method: str, amount: int):
    with pytest.raises(IntegrityError, match="payment_method_check"), engine.begin() as connection:
        record_due(connection, amount, method)


def test_due_payments_come_oldest_first_page_by_page(connection: Connection):
    ids = [record_due(connection, minutes=minutes) for minutes in (3, 1, 2, 1, 0)]
    seen: list[payments.Due] = []
    while page := payments.due(connection, "wallet", 2, seen[-1] if seen else None):
        assert len(page) <= 2
        seen += page
    assert [due.created_at for due in seen] == sorted(due.created_at for due in seen)
    assert {due.id for due in seen} == set(ids) and len(seen) == len(ids)


def test_a_paid_payment_is_no_longer_due_and_paying_again_changes_nothing(connection: Connection):
    payment_id = record_due(connection)
    assert payment_id is not None
    payments.mark_paid(connection, payment_id, "ref-1", NOW)
    payments.mark_paid(connection, payment_id, "ref-1", NOW + timedelta(hours=1))
    assert payments.due(connection, "wallet", 10) == []
    assert state(connection, payment_id) == ("paid", NOW, "ref-1")


def test_a_settled_payment_cannot_be_settled_in_another_way(connection: Connection):
    paid, failed = record_due(connection), record_due(connection)
    assert paid is not None and failed is not None
    payments.mark_paid(connection, paid, "ref-1", NOW)
    payments.mark_failed(connection, failed, NOW)
    payments.mark_failed(connection, failed, NOW)
    with pytest.raises(PaymentAlreadySettled):
        payments.mark_paid(connection, paid, "ref-2", NOW)
    with pytest.raises(PaymentAlreadySettled):
        payments.mark_failed(connection, paid, NOW)
    with pytest.raises(PaymentAlreadySettled):
        payments.mark_paid(connection, failed, "ref-3", NOW)
    assert (state(connection, paid)[0], state(connection, failed)) == ("paid", ("failed", NOW, None))


def test_an_unknown_payment_is_refused(connection: Connection):
    with pytest.raises(UnknownPayment):
        payments.mark_paid(connection, uuid4(), "ref-1", NOW)
    with pytest.raises(UnknownPayment):
        payments.mark_failed(connection, uuid4(), NOW)


def test_the_fake_gateway_gives_the_same_reference_the_same_answer():
    gateway: Gateway = FakeGateway()
    first = gateway.charge("p-1", "card", 85_000)
    assert gateway.charge("p-1", "card", 85_000) == first == FakeGateway().charge("p-1", "card", 85_000)
    assert gateway.charge("p-2", "card", 85_000) != first


def test_the_fake_gateway_declines_for_good_and_times_out_for_a_while():
    gateway = FakeGateway()
    gateway.decline("p-1")
    gateway.time_out("p-2", times=2)
    for _ in range(2):
        with pytest.raises(PaymentDeclined):
            gateway.charge("p-1", "card", 1)
        with pytest.raises(GatewayUnavailable):
            gateway.charge("p-2", "card", 1)
    assert gateway.charge("p-2", "card", 1) == FakeGateway().charge("p-2", "card", 1)

"""Webhooks: stored once, handled once, tried again when they fail, parked when they keep failing."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import Engine

from billing import webhooks
from billing.errors import GatewayUnavailable, UnknownEvent
from billing.webhooks import LEASE, LONGEST_PAUSE, MAX_TRIES, Event, Handlers, Times

REAL = datetime(2026, 11, 26, 12, tzinfo=UTC)
NOW = datetime(2026, 10, 14, 1, tzinfo=UTC)  # business time, simulated
PAID = Event("stripe", "evt_1", "payment_intent.succeeded", b'{"id": "evt_1"}')


def at(seconds: float = 0.0) -> Times:
    return Times(NOW + timedelta(seconds=seconds), REAL + timedelta(seconds=seconds))


@pytest.fixture
def connection(engine: Engine) -> Iterator[psycopg.Connection]:
    """In autocommit, as the service's own are."""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def by(handle: Callable[[Event], None]) -> Handlers:
    return {("stripe", PAID.kind): handle}


def state(connection: psycopg.Connection, id_: str = PAID.id) -> tuple:
    query = "SELECT state, tries, settled_at, retry_at, error FROM webhook_event WHERE id = %s"
    row = connection.execute(query, [id_]).fetchone()
    assert row is not None
    return row


def fail(_: Event) -> None:
    raise ValueError("no such payment")


def test_event_is_stored_as_it_came_and_a_repeated_one_changes_nothing(connection):
    assert webhooks.store(connection, PAID, at())
    assert not webhooks.store(connection, PAID._replace(body=b"other", kind="other"), at(60))
    rows = connection.execute("SELECT kind, body, received_at FROM webhook_event").fetchall()
    assert rows == [(PAID.kind, PAID.body, NOW)]


def test_same_id_of_another_gateway_is_another_event(connection):
    assert webhooks.store(connection, PAID, at()) and webhooks.store(connection, PAID._replace(gateway="vnpay"), at())


def test_event_is_handled_once(connection):
    seen: list[Event] = []
    webhooks.store(connection, PAID, at())
    assert webhooks.handle_next(connection, by(seen.append), at(1))
    assert not webhooks.handle_next(connection, by(seen.append), at(3_600))
    assert not webhooks.store(connection, PAID, at(3_601))
    assert not webhooks.handle_next(connection, by(seen.append), at(7_200))
    assert seen == [PAID] and state(connection)[:3] == ("handled", 1, NOW + timedelta(seconds=1))


def test_events_are_handled_in_the_order_they_came(connection):
    seen: list[Event] = []
    events = [PAID._replace(id=f"evt_{number}") for number in range(5)]
    for number, event in enumerate(events):
        webhooks.store(connection, event, at(number))
    while webhooks.handle_next(connection, by(seen.append), at(10)):
        pass
    assert seen == events


def test_no_transaction_is_open_while_an_event_is_handled(connection):
    def look(_: Event) -> None:
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE

    webhooks.store(connection, PAID, at())
    webhooks.handle_next(connection, by(look), at())
    assert state(connection)[0] == "handled"


def test_kind_without_a_handler_is_kept_and_can_be_handled_once_it_has_one(connection):
    webhooks.store(connection, PAID, at())
    assert webhooks.handle_next(connection, {}, at())
    assert state(connection)[0] == "unknown" and not webhooks.handle_next(connection, {}, at(60))
    seen: list[Event] = []
    webhooks.retry(connection, "stripe", PAID.id, REAL)
    webhooks.handle_next(connection, by(seen.append), at(60))
    assert seen == [PAID]


def test_poison_is_tried_later_and_later_then_parked_and_holds_up_nobody(connection):
    seen: list[Event] = []
    webhooks.store(connection, PAID, at())
    webhooks.store(connection, PAID._replace(id="evt_2", kind="charge.refunded"), at(0.5))
    known = {**by(fail), ("stripe", "charge.refunded"): seen.append}
    tried: list[float] = []
    for second in range(120):
        while webhooks.handle_next(connection, known, at(second)):
            tried.append(second)
    assert len(seen) == 1 and tried == [0, 1, 2, 6, 14, 30]  # evt_2 among them, in the second 1
    parked, tries, settled_at, _, error = state(connection)
    assert (parked, tries, settled_at) == ("parked", MAX_TRIES, NOW + timedelta(seconds=30))
    assert error == "ValueError: no such payment"
    assert [one.id for one in webhooks.listed(connection, ["parked"], 10)] == [PAID.id]


def test_silent_gateway_is_no_failure_of_the_event(connection):
    def silent(_: Event) -> None:
        raise GatewayUnavailable("no answer")

    webhooks.store(connection, PAID, at())
    for hour in range(3 * MAX_TRIES):
        assert webhooks.handle_next(connection, by(silent), at(3_600 * hour))
    assert state(connection)[:2] == ("waiting", 0)
    assert state(connection)[3] <= REAL + timedelta(hours=3 * MAX_TRIES) + LONGEST_PAUSE


def test_parked_event_is_handled_again_when_somebody_says_so(connection):
    webhooks.store(connection, PAID, at())
    for hour in range(MAX_TRIES):
        webhooks.handle_next(connection, by(fail), at(3_600 * hour))
    assert state(connection)[0] == "parked"
    seen: list[Event] = []
    webhooks.retry(connection, "stripe", PAID.id, REAL)
    webhooks.handle_next(connection, by(seen.append), at(100_000))
    assert seen == [PAID] and state(connection)[0] == "handled"
    with pytest.raises(UnknownEvent):
        webhooks.retry(connection, "stripe", PAID.id, REAL)


def test_event_of_a_process_that_died_is_taken_by_the_next(connection):
    class Died(BaseException):
        pass

    def die(_: Event) -> None:
        raise Died

    webhooks.store(connection, PAID, at())
    with pytest.raises(Died):
        webhooks.handle_next(connection, by(die), at())
    seen: list[Event] = []
    almost = LEASE.total_seconds() - 1
    assert not webhooks.handle_next(connection, by(seen.append), at(almost)), "it may still be at work"
    assert webhooks.handle_next(connection, by(seen.append), at(almost + 1)) and seen == [PAID]


def test_two_jobs_at_once_handle_each_event_once(connection, engine: Engine):
    seen: list[str] = []
    for number in range(40):
        webhooks.store(connection, PAID._replace(id=f"evt_{number}"), at())
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)

    def work() -> None:
        with psycopg.connect(url, autocommit=True) as own:
            while webhooks.handle_next(own, by(lambda event: seen.append(event.id)), at(1)):
                pass

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(seen) == sorted(f"evt_{number}" for number in range(40))


def test_what_was_handled_long_ago_is_forgotten_and_what_is_parked_is_not(connection):
    for number in range(3):
        webhooks.store(connection, PAID._replace(id=f"evt_{number}"), at())
    webhooks.handle_next(connection, by(lambda _: None), at())
    for hour in range(1, 2 * MAX_TRIES + 1):
        webhooks.handle_next(connection, by(fail), at(3_600 * hour))
    assert webhooks.forget(connection, NOW + webhooks.MEMORY) == 0
    assert webhooks.forget(connection, NOW + webhooks.MEMORY + timedelta(days=1)) == 1
    assert len(webhooks.listed(connection, ["parked"], 10)) == 2

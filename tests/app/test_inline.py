"""Stripe asked by requests: by few at a time, by one while it is silent; what nobody may ask is the job's, at once."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest

from app import card_jobs, inline
from app.inline import Bulkhead, InlineStripe
from app.resources import Resources
from app.stack.processes import wait_until
from billing.errors import BillingError, GatewayNotAsked, GatewayUnavailable, PaymentDeclined
from tests.app.carding import (
    INTENTS,
    agrees,
    balance,
    carded,
    client,
    db,
    keep,
    look,
    payment,
    real,
    start,
    taken,
    top_up,
)

__all__ = ["carded", "client", "db", "real"]
PATIENCE = 10.0


def is_let_in(bulkhead: Bulkhead, error: Exception | None = None) -> bool:
    """Whether somebody may ask, who gets this error or, without one, an answer."""
    try:
        with bulkhead.waiting():
            if error:
                raise error
    except BillingError as raised:
        return raised is error
    return True


@contextmanager
def crowd(bulkhead: Bulkhead) -> Iterator[int]:
    """As many wait as may; their number."""
    with ExitStack() as waiting:
        seats = 0
        while True:
            try:
                waiting.enter_context(bulkhead.waiting())
            except GatewayNotAsked:
                break
            seats += 1
        yield seats


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> GatewayUnavailable:
    """What counts as a wait in vain however soon it comes; and a short rest after it."""
    monkeypatch.setattr(inline, "IN_VAIN_SECONDS", 0.0)
    monkeypatch.setattr(inline, "REST_SECONDS", 0.5)
    return GatewayUnavailable("time-out")


# --- who may ask ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("threads", "seats"), [(1, 1), (4, 1), (8, 2), (16, 4)])
def test_a_quarter_of_the_threads_may_wait(threads: int, seats: int):
    bulkhead = InlineStripe("sk_test", None, 1, threads).bulkhead
    for _ in range(2):
        with crowd(bulkhead) as waiting:
            assert waiting == seats
    assert is_let_in(bulkhead), "who was turned away took no seat"


def test_while_it_is_silent_one_tries_for_all(silent: GatewayUnavailable):
    bulkhead = Bulkhead(3)
    for _ in range(2):  # the second failure is that of the try
        began = time.monotonic()
        assert wait_until(lambda: is_let_in(bulkhead, silent), PATIENCE)
        assert not is_let_in(bulkhead)
    assert time.monotonic() - began >= 0.4, "between two tries nobody asks"
    with ExitStack() as trying:
        assert wait_until(lambda: enters(trying, bulkhead), PATIENCE)
        assert not is_let_in(bulkhead), "somebody tries"
    with crowd(bulkhead) as seats:
        assert seats == 3, "it answers again"


def enters(stack: ExitStack, bulkhead: Bulkhead) -> bool:
    try:
        stack.enter_context(bulkhead.waiting())
    except GatewayNotAsked:
        return False
    return True


def test_a_decline_is_an_answer(silent: GatewayUnavailable):
    bulkhead = Bulkhead(1)
    assert is_let_in(bulkhead, silent) and not is_let_in(bulkhead)
    assert wait_until(lambda: is_let_in(bulkhead, PaymentDeclined("no")), PATIENCE)
    assert is_let_in(bulkhead)


def test_what_fails_at_once_is_no_reason_to_rest():
    bulkhead = Bulkhead(1)
    assert is_let_in(bulkhead, GatewayUnavailable("connection refused")) and is_let_in(bulkhead)


# --- who may not ------------------------------------------------------------------------------------------------------
def others_wait(carded: Resources) -> AbstractContextManager[int]:
    assert isinstance(carded.inline_card_gateway, InlineStripe)
    return crowd(carded.inline_card_gateway.bulkhead)


def test_start_that_may_not_wait_is_the_jobs_at_once(client, carded, db, real, stripe_server):
    keep(client)
    with others_wait(carded):
        answer = start(client, key="k")
        assert (answer.status_code, answer.json["payment"]["state"]) == (201, "unknown")
        assert start(client, key="k").json == answer.json and stripe_server.asked("POST", INTENTS) == []
        assert card_jobs.settle(carded) == 1, "the job asks, whoever waits"
    assert payment(db, answer.json).state == "authorized"
    assert len(stripe_server.asked("POST", INTENTS)) == len(stripe_server.books.of("payment_intent")) == 1
    assert start(client, key="k").json["payment"]["state"] == "authorized"


def test_declined_card_that_nobody_could_ask_ends_the_session(client, carded, db, real, stripe_server):
    keep(client, "pm_card_chargeCustomerFail")
    with others_wait(carded):
        session = start(client, key="k").json
    assert card_jobs.settle(carded) == 1 and payment(db, session).state == "failed"
    assert client.get(f"/v1/sessions/{session['id']}", role="driver").json["state"] == "ended"
    assert start(client, key="k").status_code == 402


def test_charge_that_may_not_wait_is_the_jobs_at_once(client, carded, db, real, stripe_server):
    keep(client)
    with others_wait(carded):
        answer = top_up(client, key="k")
        assert (answer.status_code, answer.json["state"], answer.json["paid"]) == (201, "unknown", None)
        assert top_up(client, key="k").json == answer.json and stripe_server.asked("POST", INTENTS) == []
        assert card_jobs.settle(carded) == 1
    assert look(client, answer.json)["state"] == "paid" and len(stripe_server.asked("POST", INTENTS)) == 1
    assert balance(db) == taken(stripe_server) == 50_000 and agrees(db, stripe_server)


def test_card_that_may_not_wait_is_kept_later(client, carded, db, real, stripe_server):
    with others_wait(carded):
        answer = keep(client)
        assert (answer.status_code, answer.json["code"]) == (503, "gateway_unavailable")
        assert answer.headers["Retry-After"] == "1" and stripe_server.calls == []
        assert start(client).json["code"] == "no_card"
    assert keep(client).status_code == 204 and start(client).status_code == 201


def test_question_is_shown_once_it_can_be_asked_for(client, carded, db, real, stripe_server):
    keep(client, "pm_card_authenticationRequired")
    session, charge = start(client).json, top_up(client).json
    paths = (f"/v1/sessions/{session['id']}/payment", f"/v1/payments/{charge['id']}")
    with others_wait(carded):
        for path in paths:
            shown = client.get(path, role="driver")
            assert (shown.status_code, shown.json["state"], shown.json["action"]) == (200, "requires_action", None)
    for path, made in zip(paths, (session["payment"], charge), strict=True):
        assert made["action"] and client.get(path, role="driver").json["action"] == made["action"]

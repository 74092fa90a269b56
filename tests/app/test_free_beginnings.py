"""A stay that begins free and then costs something: nothing is held at its start, and its money is not forgotten."""

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import Connection

from app import card_jobs
from app.commands.ledger import SESSIONS
from app.resources import Resources
from billing import ledger
from billing.check import check
from billing.ledger import Posting
from tests.app.carding import (
    BODY,
    agrees,
    carded,
    client,
    db,
    keep,
    owed,
    payment,
    real,
    start,
    stop,
    taken,
    work,
)
from tests.app.test_quotes import set_free_minutes
from tests.conftest import Client, SteppedClock

__all__ = ["carded", "client", "db", "real"]
FREE = 15
LONG = 198_000  # five hours behind the free minutes
STRICT = "HK-043"


@pytest.fixture(autouse=True)
def free_minutes(carded: Resources, database_url: str, db: Connection) -> Iterator[None]:
    """The first quarter of an hour costs nothing; whatever happened in a test, the ledger holds."""
    set_free_minutes(database_url, FREE)
    carded.catalogue.refresh()
    try:
        yield
        assert [proof for proof in check(db, SESSIONS) if proof.wrong] == []
    finally:
        set_free_minutes(database_url, 0)


def begin(client: Client, method: str, **more: Any) -> dict:
    answer = start(client, BODY | {"payment_method": method, "minutes": FREE} | more)
    assert (answer.status_code, answer.json["fee"]["amount"]) == (201, 0), answer.json
    session: dict = answer.json
    return session


def extend(client: Client, session: dict, minutes: int, **more: Any) -> Any:
    return client.post(f"/v1/sessions/{session['id']}/extend", json={"minutes": minutes}, role="driver", **more)


def put(db: Connection, clock: SteppedClock, amount: int, account: str = "wallet", reference: str = "1") -> None:
    """Move money into the wallet (below 0: out of it), or take it off the debt."""
    ledger.post(db, [Posting("test", reference, clock.now(), {f"{account}/driver": -amount, "funding": amount})])


# --- by card ----------------------------------------------------------------------------------------------------------
def test_start_by_card_for_which_nothing_is_held_says_what_runs(client, db, stripe_server):
    keep(client)
    first = start(client, BODY | {"minutes": FREE}, key="k")
    assert first.status_code == 201 and "payment" not in first.json
    (running,) = client.get("/v1/sessions", role="driver").json["sessions"]
    assert running == first.json and running["state"] == "running"
    assert start(client, BODY | {"minutes": FREE}, key="k").data == first.data
    shown = client.get(f"/v1/sessions/{running['id']}/payment", role="driver").json
    assert (shown["status"], shown["id"], shown["state"]) == ("open", None, None)
    assert stop(client, running).json["fee"]["amount"] == 0
    assert client.get(f"/v1/sessions/{running['id']}/payment", role="driver").json["status"] == "free"
    assert db.execute("SELECT FROM payment").rowcount == 0 and stripe_server.books.of("payment_intent") == []


def collected(carded: Resources, real: Any, db: Connection, fee: int) -> int:
    """What is left owed once the jobs have looked after it."""
    work(carded, real)
    assert owed(db) == fee
    assert card_jobs.collect(carded) == 1
    work(carded, real)
    assert card_jobs.collect(carded) == 0
    return owed(db)


def test_free_beginning_that_is_extended_is_collected_from_the_card(client, carded, clock, db, real, stripe_server):
    keep(client)
    session = begin(client, "card")
    assert extend(client, session, 300).json["fee"]["amount"] == LONG
    clock.advance(minutes=FREE + 299)
    assert stop(client, session).json["fee"]["amount"] == LONG
    never = payment(db, session)
    assert (never.state, never.amount, never.paid, never.failure) == ("void", LONG, None, None)
    shown = client.get(f"/v1/sessions/{session['id']}/payment", role="driver").json
    assert (shown["status"], shown["owed"]["amount"], shown["state"]) == ("owed", LONG, "void")
    assert collected(carded, real, db, LONG) == 0
    assert taken(stripe_server) == LONG and agrees(db, stripe_server)


def test_free_beginning_that_is_overstayed_is_collected_from_the_card(client, carded, clock, db, real, stripe_server):
    """In a strict zone the vehicle is taken to stand there until it is stopped."""
    keep(client)
    session = begin(client, "card", zone=STRICT)
    clock.advance(minutes=FREE + 61)
    fee = stop(client, session).json["fee"]["amount"]
    assert fee > 0 and collected(carded, real, db, fee) == 0
    assert taken(stripe_server) == fee and agrees(db, stripe_server)


def test_hours_that_are_held_for_nothing_are_collected_once_they_are_over(
    client, carded, clock, db, real, stripe_server, database_url
):
    """A stay without an end holds the price of its first hours; here they are free, and the next ones are not."""
    set_free_minutes(database_url, carded.settings.card_hold_minutes)
    carded.catalogue.refresh()
    keep(client)
    session = start(client).json
    assert "payment" not in session
    clock.advance(minutes=carded.settings.card_hold_minutes + 60)
    fee = stop(client, session).json["fee"]["amount"]
    assert fee > 0 and collected(carded, real, db, fee) == 0 and taken(stripe_server) == fee


def test_fee_of_a_free_beginning_that_is_too_small_waits_for_others(client, carded, clock, db, real, stripe_server):
    keep(client)
    session = begin(client, "card")
    extend(client, session, 60)
    clock.advance(minutes=FREE + 1)
    fee = stop(client, session).json["fee"]["amount"]
    put(db, clock, fee - 12_999, "receivable")
    work(carded, real)
    assert owed(db) == 12_999 and card_jobs.collect(carded) == 0
    put(db, clock, -1, "receivable", "2")
    assert card_jobs.collect(carded) == 1
    work(carded, real)
    assert (owed(db), taken(stripe_server)) == (0, 13_000) and agrees(db, stripe_server)

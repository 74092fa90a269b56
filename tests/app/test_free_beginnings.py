"""A stay that begins free and then costs something: nothing is held at its start, and its money is not forgotten."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Connection

from app import card_jobs
from app.commands.ledger import SESSIONS
from app.resources import Resources
from app.starts import HOLD_MARGIN
from billing import ledger
from billing.check import check
from billing.ledger import Posting
from tests.app.carding import (
    BODY,
    STRIPE_MINIMUM,
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
from tests.app.test_quotes import quote, set_free_minutes
from tests.conftest import FUNDS, Client, SteppedClock

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


def find(client: Client, session: dict) -> dict:
    found: dict = client.get(f"/v1/sessions/{session['id']}", role="driver").json
    return found


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


# --- by wallet --------------------------------------------------------------------------------------------------------
def test_extension_of_a_free_beginning_is_put_aside(client, clock, db):
    session = begin(client, "wallet")
    assert ledger.wallet(db, "driver").held == 0
    assert extend(client, session, 300).json["fee"]["amount"] == LONG
    assert ledger.wallet(db, "driver").held == LONG
    assert extend(client, session, 60).status_code == 200
    held = ledger.wallet(db, "driver").held
    shown = client.get(f"/v1/sessions/{session['id']}/payment", role="driver").json
    assert held > LONG and (shown["status"], shown["held"]["amount"]) == ("held", held)
    (longest,) = db.execute("SELECT max_over_at FROM active_session").fetchone()
    made = db.execute("SELECT id::text, owner, kind, created_at, expires_at FROM hold").fetchall()
    assert made == [(session["id"], "driver", "wallet", clock.now(), longest + HOLD_MARGIN)]
    clock.advance(minutes=FREE + 359)
    assert stop(client, session).json["fee"]["amount"] == held
    assert ledger.wallet(db, "driver") == ledger.Wallet(FUNDS - held, 0, 0)


def test_extension_that_the_wallet_does_not_cover_is_refused_also_where_it_began_free(client, clock, db):
    put(db, clock, LONG - 1 - FUNDS)
    session = begin(client, "wallet")
    refused = extend(client, session, 300, key="k")
    assert (refused.status_code, refused.json["code"]) == (409, "insufficient_funds")
    assert find(client, session) == session and ledger.wallet(db, "driver").held == 0, "nothing of it was done"
    put(db, clock, 1, reference="2")
    assert extend(client, session, 300, key="k").status_code == 200
    assert ledger.wallet(db, "driver").available == 0


def test_who_owes_too_much_puts_nothing_more_aside_where_it_began_free(client, carded, clock, db):
    session = begin(client, "wallet")
    put(db, clock, -carded.settings.owed_limit - 1, "receivable")
    refused = extend(client, session, 300)
    assert (refused.status_code, refused.json["code"]) == (409, "owes_too_much")
    assert find(client, session) == session
    put(db, clock, 1, "receivable", "2")
    assert extend(client, session, 300).json["fee"]["amount"] == LONG


def test_free_beginning_that_is_extended_within_what_is_free_puts_nothing_aside(client, db):
    session = begin(client, "wallet", minutes=5)
    assert extend(client, session, 10).json["fee"]["amount"] == 0
    assert db.execute("SELECT FROM hold").rowcount == 0


# --- whatever comes ---------------------------------------------------------------------------------------------------
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["wallet", "card"]),
    st.sampled_from([5, FREE, FREE + 1]),
    st.lists(st.sampled_from([1, FREE, 60, 300]), min_size=1, max_size=2),
    st.sampled_from([0.1, 0.5, 0.999]),
    st.sampled_from([0, 30_000, LONG, 2 * LONG]),
)
def test_no_dong_of_a_stay_is_forgotten_however_it_begins_and_is_extended(
    client, carded, clock, db, real, stripe_server, method, minutes, longer, stayed, funds
):
    """What a wallet does not cover is refused, and owed by nobody; a card pays all but what is too little for it."""
    keep(client)
    if change := funds - ledger.wallet(db, "driver").balance:
        put(db, clock, change, reference=str(uuid4()))
    owes, took = owed(db), taken(stripe_server)
    session, whole = None, 0
    for more in (minutes, *longer):
        price = quote(client, "HK-001", whole + more, clock.now().isoformat()).json["total"]["amount"]
        if session is None:
            answer = start(client, BODY | {"payment_method": method, "minutes": more})
        else:
            answer = extend(client, session, more)
        if method == "wallet" and price > funds:
            assert answer.json["code"] == "insufficient_funds"
            continue
        assert answer.status_code in (200, 201) and answer.json["fee"]["amount"] == price, answer.json
        session, whole = answer.json, whole + more
        assert ledger.wallet(db, "driver").held == (price if method == "wallet" else 0)
    if session is None:
        return
    clock.advance(minutes=whole * stayed)
    fee = stop(client, session).json["fee"]["amount"]
    work(carded, real)
    card_jobs.collect(carded)
    work(carded, real)
    by_wallet = fee if method == "wallet" else 0
    assert ledger.wallet(db, "driver").balance == funds - by_wallet
    assert owed(db) + taken(stripe_server) == owes + took + fee - by_wallet
    assert owed(db) < STRIPE_MINIMUM and agrees(db, stripe_server)
    clock.advance(minutes=1)

"""A stay that begins free and then costs something: nothing is held at its start, and its money is not forgotten."""

from collections.abc import Iterator

import pytest
from psycopg import Connection

from app.commands.ledger import SESSIONS
from app.resources import Resources
from billing.check import check
from tests.app.carding import (
    BODY,
    carded,
    client,
    db,
    keep,
    real,
    start,
    stop,
)
from tests.app.test_quotes import set_free_minutes

__all__ = ["carded", "client", "db", "real"]
FREE = 15


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

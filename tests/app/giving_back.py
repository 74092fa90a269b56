"""What the tests of money that a card gets back share: a session that a card paid, and what became of its money."""

from collections.abc import Callable
from uuid import UUID

import pytest
from psycopg import Connection

from app import card_jobs, receipts
from app.resources import Resources
from billing import ledger
from billing.check import check
from billing.receipts import store
from tests.app.carding import Real, agrees, keep, payment, start, stop, work
from tests.conftest import Client, SteppedClock
from tests.fake_stripe import StripeServer

FEE = 60_000
# How the events come.
DELIVERIES: dict[str, dict] = {
    "once": {},
    "twice": {"times": 2},
    "twice and backwards": {"times": 2, "backwards": True},
}


@pytest.fixture
def session(client: Client, carded: Resources, clock: SteppedClock, real: Real) -> dict:
    """One that was paid by card: 60,000 VND, of which 4,444 are tax."""
    keep(client)
    session: dict = start(client).json
    clock.advance(minutes=61)
    assert stop(client, session).json["fee"]["amount"] == FEE
    work(carded, real)
    return session


@pytest.fixture
def page(db: Connection, session: dict, stripe_server: StripeServer) -> Callable[[int], str]:
    """Somebody gives an amount back on Stripe's own page; Stripe's id of it."""
    intent = payment(db, session).gateway_reference

    def give_back(amount: int) -> str:
        made: str = stripe_server.books.refund({"payment_intent": intent, "amount": str(amount)})["id"]
        return made

    return give_back


def tell(carded: Resources, real: Real, stripe_server: StripeServer, **how: object) -> None:
    stripe_server.hooks.deliver_all(**how)  # type: ignore[arg-type]
    work(carded, real)


def approve(client: Client, session: dict, amount: int | None = None) -> dict:
    asked = client.post("/v1/refunds", json={"session": session["id"], "reason": "kéo xe"}, role="driver").json
    given = client.post(f"/v1/admin/refunds/{asked['id']}/approve", json={"amount": amount}, role="operator")
    assert given.status_code == 200, given.json
    answer: dict = given.json
    return answer


def carry_out(carded: Resources, real: Real) -> None:
    """The jobs have the gateway give back what operators approved."""
    for _ in range(3):
        card_jobs.refund(carded)
        work(carded, real)


def left(db: Connection) -> tuple[int, int, int]:
    """What is left of revenue and of tax, and what is in the account of money on its way."""
    return -ledger.balance(db, "revenue/002/iparking"), -ledger.balance(db, "vat"), ledger.balance(db, "refund")


def rows(db: Connection) -> list[tuple]:
    return db.execute("SELECT of_charge, of_wallet, of_ours, state FROM gateway_refund ORDER BY reference").fetchall()


def parked(db: Connection) -> int:
    (number,) = db.execute("SELECT count(*) FROM webhook_event WHERE state = 'parked'").fetchone() or (0,)
    return int(number)


def in_wallet(db: Connection) -> int:
    return ledger.wallet(db, "driver").balance


def all_receipts_are_due(db: Connection) -> None:
    """Whatever is booked must have its receipt now, not only what is older than a minute."""
    store.advance(db, UUID(int=2**128 - 1))


def proved(carded: Resources, db: Connection, stripe_server: StripeServer) -> bool:
    """Whether ledger, receipts and Stripe agree, and no event was left behind."""
    receipts.issue(carded)
    all_receipts_are_due(db)
    assert [one for one in check(db) if one.wrong] == [] and parked(db) == 0
    return agrees(db, stripe_server)

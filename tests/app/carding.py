"""What the tests of cards share: the service with the fake Stripe behind it, and what its driver does."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from psycopg import Connection

from app import card_jobs, cards, create_app, webhooks
from app.resources import Resources
from billing import ledger, payments
from billing.gateways.bank import Account
from billing.rails import Rails
from billing.webhooks import Times
from tests.conftest import FUNDS, Client, SteppedClock
from tests.fake_stripe import StripeServer

INTENTS = "/v1/payment_intents"
CAPTURE = f"{INTENTS}/[^/]+/capture"
SECRET = "whsec_test"
BODY = {"zone": "HK-001", "plate": "30A-123.45", "vehicle_class": "car", "payment_method": "card"}
BIKE = {"zone": "HK-001", "plate": "29-AB 123.45", "vehicle_class": "motorbike", "payment_method": "card"}
STRIPE_MINIMUM = 13_000
TOPUP = {"amount": 50_000, "method": "card"}


class Real:
    """The real time of gateway and jobs, moved by hand beside the business clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, server: StripeServer) -> None:
        self.ahead, self._server = timedelta(), server
        self._now = cards.real_now
        for module in (cards, card_jobs):
            monkeypatch.setattr(module, "real_now", self.now)
        monkeypatch.setattr(webhooks, "times", lambda held: Times(held.clock.now(), self.now()))

    def now(self):
        return self._now() + self.ahead

    def advance(self, **delta: float) -> None:
        self.ahead += timedelta(**delta)
        self._server.advance(timedelta(**delta).total_seconds())


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch, stripe_server: StripeServer) -> Real:
    return Real(monkeypatch, stripe_server)


@pytest.fixture
def carded(resources: Resources, stripe_server: StripeServer, real: Real) -> Resources:
    """The service's resources with the fake Stripe behind them."""
    stripe = {"stripe_key": stripe_server.key, "stripe_url": stripe_server.url, "stripe_webhook_secrets": (SECRET,)}
    rails = Rails(account=Account("970436", "0011001100110"))
    threads = 32  # so that all who start at once in a test may ask at once
    settings = replace(resources.settings, small_fees="wait", rails=rails, threads=threads, **stripe)
    return replace(resources, settings=settings)


@pytest.fixture
def client(carded: Resources, stripe_server: StripeServer) -> Client:
    app = create_app(carded.settings, carded)
    app.test_client_class = Client
    made: Client = app.test_client()  # type: ignore[assignment]
    stripe_server.hooks.subscribe(
        lambda body, header: app.test_client().post(
            "/v1/webhooks/stripe", data=body, headers={"Stripe-Signature": header, "Content-Type": "application/json"}
        ).status_code
    )  # fmt: skip
    return made


@pytest.fixture
def db(carded: Resources) -> Iterator[Connection]:
    yield carded.connections.get()
    assert ledger_is_balanced(carded.connections.get())


def ledger_is_balanced(db: Connection) -> bool:
    row = db.execute("SELECT COALESCE(sum(amount), 0) FROM ledger_entry").fetchone()
    return row == (0,)


def keep(client: Client, token: str = "pm_card_visa", role: str = "driver") -> Any:
    return client.post("/v1/cards", json={"token": token}, role=role)


def start(client: Client, body: dict = BODY, **more: Any) -> Any:
    return client.post("/v1/sessions", json=body, role="driver", **more)


def stop(client: Client, session: dict) -> Any:
    return client.post(f"/v1/sessions/{session['id']}/stop", json={}, role="driver")


def work(carded: Resources, real: Real, rounds: int = 4) -> None:
    """Let the jobs run, and every pause of theirs pass."""
    for _ in range(rounds):
        card_jobs.look(carded)
        card_jobs.settle(carded)
        webhooks.handle(carded)
        real.advance(minutes=11)
    card_jobs.settle(carded)


def owed(db: Connection, who: str = "driver") -> int:
    return ledger.wallet(db, who).owed


def taken(stripe_server: StripeServer) -> int:
    """VND that Stripe has of us, before its fees."""
    return sum(line["amount"] for line in stripe_server.books.of("balance_transaction"))


def payment(db: Connection, session: dict) -> payments.Payment:
    (found,) = payments.of_session(db, session["id"])
    return found


def agrees(db: Connection, stripe_server: StripeServer) -> bool:
    """Whether the ledger knows all that Stripe took, and nothing else."""
    return ledger.balance(db, "clearing/stripe") == taken(stripe_server)


def top_up(client: Client, body: dict = TOPUP, **more: Any) -> Any:
    return client.post("/v1/wallet/topups", json=body, role="driver", **more)


def pay(client: Client, purpose: str, key: str | None = None, **more: Any) -> Any:
    return client.post("/v1/payments", json={"purpose": purpose, "method": "card"} | more, role="driver", key=key)


def look(client: Client, made: dict) -> dict:
    found: dict = client.get(f"/v1/payments/{made['id']}", role="driver").json
    return found


def balance(db: Connection) -> int:
    """What is in the wallet beside what every driver of a test is given, in VND."""
    return ledger.wallet(db, "driver").balance - FUNDS


def owe(
    client: Client, clock: SteppedClock, method: str = "vietqr", plate: str = "30A-123.45", minutes: int = 61
) -> dict:
    """A session that is over, and whose fee of 60,000 VND nobody has paid."""
    session = start(client, BODY | {"payment_method": method, "plate": plate}).json
    clock.advance(minutes=minutes)
    ended: dict = stop(client, session).json
    return ended


def booked(db: Connection, kind: str = "payment") -> int:
    row = db.execute("SELECT count(*) FROM ledger_transaction WHERE kind = %s", (kind,)).fetchone()
    assert row is not None
    return int(row[0])

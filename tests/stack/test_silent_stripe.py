"""Stripe accepts and says nothing: the real server goes on with all else, and no card is charged twice or forgotten."""

import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from app.inline import READ_SECONDS
from app.stack import Server, Stack
from app.stack.ports import choose_free
from app.stack.processes import wait_until
from tests.app.carding import INTENTS
from tests.app.test_database_away import Valve
from tests.fake_stripe import StripeServer

THREADS = 4
# One card each: more starts at once than there are threads.
CARDS = 2 * THREADS
# Real seconds: so fast is answered who does not wait for Stripe, and so who does.
FAST, PATIENT = 2.0, READ_SECONDS + 2.0
# Until the jobs have made every call, once Stripe is back.
SETTLED = 45.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a driver was told, and after how many seconds."""

    status: int
    body: Any
    retry_after: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Driver:
    """One with a key of his own."""

    url: str
    key: str

    def post(self, path: str, body: dict[str, Any]) -> Answer:
        began = time.monotonic()
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        seconds = time.monotonic() - began
        return Answer(answer.status, json.loads(content) if content else None, answer.headers["Retry-After"], seconds)

    def start(self, number: int, method: str = "card") -> Answer:
        plate = f"30A-{number // 100:03}.{number % 100:02}"
        body = {"zone": "HK-001", "plate": plate, "vehicle_class": "car", "payment_method": method}
        return self.post("/v1/sessions", body)

    def keep(self) -> Answer:
        return self.post("/v1/cards", {"token": "pm_card_visa"})


@pytest.fixture
def way(stripe_server: StripeServer) -> Iterator[Valve]:
    """The way to the fake Stripe: shut, what is sent is taken, and arrives when it is opened again."""
    parts = urlsplit(stripe_server.url)
    assert parts.hostname is not None and parts.port is not None
    way = Valve(parts.hostname, parts.port)
    yield way
    way.close()


@pytest.fixture
def server(
    own_database: str, redis_url: str, stripe_server: StripeServer, way: Valve, tmp_path: Path
) -> Iterator[Server]:
    """One process of few threads, and its jobs."""
    stack = Stack(tmp_path / ".iparking", {"IPARKING_DATABASE_URL": own_database, "IPARKING_REDIS_URL": redis_url})
    environment = {
        "IPARKING_ENV": "test",
        "IPARKING_STRIPE_KEY": stripe_server.key,
        "IPARKING_STRIPE_URL": f"http://127.0.0.1:{way.port}",
    }
    server = Server(stack, port=choose_free(), workers=1, threads=THREADS, environment=environment, drivers=CARDS + 1)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def drivers(server: Server) -> list[Driver]:
    return [Driver(server.url, key) for key in json.loads(server.keys_path.read_text())["drivers"]]


def test_silent_stripe_holds_up_nobody_else_and_charges_each_card_once(
    own_database: str, drivers: list[Driver], stripe_server: StripeServer, way: Valve
) -> None:
    other, *by_card = drivers
    assert [driver.keep().status for driver in by_card] == [204] * CARDS
    way.open.clear()
    with psycopg.connect(own_database, autocommit=True) as database, ThreadPoolExecutor(CARDS) as at_once:
        asked = [at_once.submit(driver.start, number) for number, driver in enumerate(by_card)]
        assert wait_until(lambda: count(database, "gateway_call") >= THREADS, PATIENT), "as many as there are threads"
        wallet = other.start(CARDS, "wallet")
        started = [one.result() for one in asked]
        assert wallet.status == 201 and wallet.seconds < FAST
        assert [(one.status, one.body["payment"]["state"]) for one in started] == [(201, "unknown")] * CARDS
        *others, waited = sorted(one.seconds for one in started)
        assert READ_SECONDS <= waited < PATIENT and max(others) < FAST, "a quarter of the threads waits"

        resting, kept = by_card[0].start(CARDS + 1), by_card[0].keep()
        assert (resting.status, resting.body["payment"]["state"]) == (201, "unknown") and resting.seconds < FAST
        assert (kept.status, kept.body["code"]) == (503, "gateway_unavailable") and kept.seconds < FAST
        assert kept.retry_after == "1"

        assert count(database, "payment", "state <> 'unknown'") == 0
        way.open.set()
        assert wait_until(lambda: count(database, "payment", "state = 'authorized'") == CARDS + 1, SETTLED)
        assert count(database, "gateway_call", "state <> 'done'") == 0
    sessions = {one.body["id"] for one in [*started, resting]}
    held = stripe_server.books.of("payment_intent")
    assert {one["metadata"]["payment"] for one in held} == sessions and len(held) == len(sessions)
    assert {one["status"] for one in held} == {"requires_capture"}
    assert len(stripe_server.asked("POST", INTENTS)) >= len(sessions)
    more = (by_card[1].start(number) for number in range(CARDS + 2, 1000))
    assert wait_until(lambda: next(more).body["payment"]["state"] == "authorized", SETTLED), "it is asked inline again"


def count(database: psycopg.Connection, table: str, where: str = "true") -> int:
    row = database.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()
    assert row is not None
    return int(row[0])

"""E-invoices on their way: pending, sent, accepted or rejected, tried until there is an answer, one document each."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Lock
from uuid import UUID

import psycopg
import pytest

from app import receipts
from app.resources import Resources
from billing.einvoices import Answer, store
from billing.einvoices.folder import Folder
from billing.errors import ProviderUnavailable
from billing.seller import FAKE
from tests.app.test_receipts import park, plates
from tests.conftest import Client, SteppedClock


class ProviderOfTests:
    """Accepts what it is given, but for what the test says; keeps every document that it saw."""

    def __init__(self) -> None:
        self.seen: dict[UUID, list[bytes]] = {}
        self.answers: dict[UUID, Answer] = {}
        self.before: Callable[[], None] = lambda: None  # may fail: it never arrived
        self.after: Callable[[], None] = lambda: None  # may fail: the answer was lost
        self.refusal: str | None = None
        self._lock = Lock()

    def submit(self, invoice_id: UUID, name: str, document: bytes) -> Answer:
        self.before()
        with self._lock:
            self.seen.setdefault(invoice_id, []).append(document)
            answer = Answer(None, self.refusal) if self.refusal else Answer(f"mtt-{name}")
            answer = self.answers.setdefault(invoice_id, answer)
        self.after()
        return answer


@pytest.fixture
def provider() -> ProviderOfTests:
    return ProviderOfTests()


@pytest.fixture
def sending(resources: Resources, provider: ProviderOfTests) -> Resources:
    """The resources of a service that has a seller and a provider."""
    return replace(resources, einvoices=provider, settings=replace(resources.settings, seller=FAKE))


@pytest.fixture
def issued(client: Client, resources: Resources, clock: SteppedClock) -> Callable[[int], None]:
    """Makes so many receipts."""

    def make(count: int) -> None:
        for plate in plates(count):
            park(client, clock, plate)
        receipts.issue(resources)

    return make


def rows(resources: Resources, *columns: str) -> list[tuple]:
    query = f"SELECT {', '.join(columns)} FROM einvoice ORDER BY sign, number"
    return resources.connections.get().execute(query).fetchall()


def away() -> None:
    raise ProviderUnavailable("no answer in 20 s")


def test_pending_invoices_are_sent_once_and_accepted(sending: Resources, provider: ProviderOfTests, issued: Callable):
    issued(3)
    assert rows(sending, "state", "tries", "document") == [("pending", 0, None)] * 3
    assert receipts.send_einvoices(sending) == 3 and receipts.send_einvoices(sending) == 0
    assert rows(sending, "state", "tries", "next_try_at") == [("accepted", 1, None)] * 3
    assert rows(sending, "provider_reference") == [(f"mtt-1C26MAC-{n:08}",) for n in (1, 2, 3)]
    assert [len(documents) for documents in provider.seen.values()] == [1, 1, 1]


def test_no_answer_is_tried_again_later_and_later(
    sending: Resources, provider: ProviderOfTests, clock: SteppedClock, issued: Callable
):
    issued(1)
    provider.before = away
    for tries, minutes in enumerate([1, 2, 4, 8], 1):
        assert receipts.send_einvoices(sending) == 0
        (row,) = rows(sending, "state", "tries", "next_try_at", "last_error")
        assert row == ("sent", tries, clock.now() + timedelta(minutes=minutes), "no answer in 20 s")
        clock.advance(minutes=minutes, milliseconds=-1)
        provider.before = lambda: pytest.fail("too early")
        receipts.send_einvoices(sending)
        provider.before = away
        clock.advance(milliseconds=1)
    provider.before = lambda: None
    assert receipts.send_einvoices(sending) == 1
    assert rows(sending, "state", "tries", "last_error") == [("accepted", 5, None)]


def test_waits_grow_to_six_hours():
    waits = [store.wait_after(tries) for tries in range(1, 40)]
    assert waits == sorted(waits) and waits[-1] == timedelta(hours=6)


def test_a_lost_answer_is_asked_for_with_the_very_same_document(
    sending: Resources, provider: ProviderOfTests, clock: SteppedClock, issued: Callable
):
    issued(1)
    provider.after = away
    receipts.send_einvoices(sending)
    provider.after = lambda: None
    moved = replace(sending, settings=replace(sending.settings, seller=FAKE._replace(address="Elsewhere")))
    clock.advance(minutes=1)
    assert receipts.send_einvoices(moved) == 1
    ((first, second),) = provider.seen.values()
    assert first == second
    assert rows(sending, "state") == [("accepted",)]


def test_a_process_that_dies_before_the_answer_loses_nothing(
    sending: Resources, provider: ProviderOfTests, clock: SteppedClock, issued: Callable
):
    issued(1)
    provider.after = lambda: (_ for _ in ()).throw(SystemExit)
    with pytest.raises(SystemExit):
        receipts.send_einvoices(sending)
    provider.after = lambda: None
    clock.advance(minutes=1)
    assert receipts.send_einvoices(sending) == 1
    ((first, second),) = provider.seen.values()
    assert first == second and rows(sending, "state") == [("accepted",)]


def test_a_rejected_invoice_rests_until_it_is_made_anew(
    sending: Resources, provider: ProviderOfTests, clock: SteppedClock, issued: Callable
):
    issued(1)
    provider.refusal = "the address is unknown"
    assert receipts.send_einvoices(sending) == 1
    ((invoice_id, state, error),) = rows(sending, "id", "state", "last_error")
    assert (state, error) == ("rejected", "the address is unknown")
    clock.advance(hours=24)
    assert receipts.send_einvoices(sending) == 0

    provider.refusal = None
    provider.answers.clear()
    put_right = replace(sending, settings=replace(sending.settings, seller=FAKE._replace(address="Số 1, Hà Nội")))
    assert store.make_anew(sending.connections.get(), [invoice_id], clock.now()) == 1
    assert receipts.send_einvoices(put_right) == 1
    assert "Số 1, Hà Nội".encode() in provider.seen[invoice_id][-1]
    assert rows(sending, "state", "last_error") == [("accepted", None)]
    assert store.make_anew(sending.connections.get(), [invoice_id], clock.now()) == 0, "what is accepted stays"


def test_many_senders_at_once_send_each_invoice_once(sending: Resources, provider: ProviderOfTests, issued: Callable):
    issued(20)
    with ThreadPoolExecutor(6) as threads:
        drained = threads.map(lambda _: sum(iter(lambda: receipts.send_einvoices(sending), 0)), range(6))
        assert sum(drained) == 20
    assert len(provider.seen) == 20 and all(len(documents) == 1 for documents in provider.seen.values())
    assert set(rows(sending, "state")) == {("accepted",)}


def test_a_silent_provider_is_left_alone_for_the_round(sending: Resources, provider: ProviderOfTests, issued: Callable):
    issued(3)
    calls = []
    provider.before = lambda: (calls.append(1), away())
    receipts.send_einvoices(sending)
    assert len(calls) == 1


@pytest.mark.parametrize("without", [{"seller": None}, {"einvoices": None}])
def test_without_seller_or_provider_invoices_wait(sending: Resources, issued: Callable, without: dict):
    issued(1)
    seller = without.get("seller", FAKE)
    waiting = replace(
        sending, settings=replace(sending.settings, seller=seller), **({"einvoices": None} if seller else {})
    )
    assert receipts.send_einvoices(waiting) == 0
    assert rows(sending, "state") == [("pending",)]


def test_a_folder_gets_a_file_an_invoice(sending: Resources, tmp_path: Path, issued: Callable):
    issued(2)
    assert receipts.send_einvoices(replace(sending, einvoices=Folder(tmp_path))) == 2
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["1C26MAC-00000001.xml", "1C26MAC-00000002.xml"]
    assert b"<MCCQT>M1-26-00000-00000000002</MCCQT>" in files[1].read_bytes()
    assert rows(sending, "provider_reference") == [(file.name,) for file in files]


@pytest.mark.parametrize(
    "change", ["state = 'pending', document = NULL", "document = 'x'", "number = 7", "state = 'accepted'"]
)
def test_the_database_lets_an_accepted_invoice_be(sending: Resources, issued: Callable, change: str):
    issued(1)
    receipts.send_einvoices(sending)
    with pytest.raises(psycopg.errors.CheckViolation):
        sending.connections.get().execute(f"UPDATE einvoice SET {change}")

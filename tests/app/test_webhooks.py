"""POST /v1/webhooks/stripe: verified, stored first, answered at once; a job handles what was stored."""

import json
import time
from dataclasses import replace

import pytest
from click.testing import CliRunner

from app import create_app, webhooks
from app.resources import Resources
from billing.webhooks import Event
from tests.conftest import Client
from tests.fake_stripe import sign

SECRET = "whsec_ours"
URL = "/v1/webhooks/stripe"


@pytest.fixture
def taking(resources: Resources) -> Resources:
    """The service's resources where Stripe's webhooks are set up; its business clock stands in October."""
    return replace(resources, settings=replace(resources.settings, stripe_webhook_secrets=(SECRET,)))


@pytest.fixture
def hooked(taking: Resources) -> Client:
    app = create_app(taking.settings, taking)
    app.test_client_class = Client
    return app.test_client()  # type: ignore[misc]


def event(id_: str = "evt_1", kind: str = "charge.refunded") -> bytes:
    return json.dumps({"id": id_, "object": "event", "type": kind, "data": {"object": {"id": "ch_1"}}}).encode()


def send(client: Client, body: bytes, secret: str = SECRET, at: float | None = None):
    header = sign(body, secret, at or time.time())
    return client.post(URL, data=body, headers={"Stripe-Signature": header, "Content-Type": "application/json"})


def stored(resources: Resources) -> list[tuple]:
    query = "SELECT id, kind, body, state, received_at FROM webhook_event ORDER BY id"
    return resources.connections.get().execute(query).fetchall()


def test_event_is_stored_and_answered_and_so_is_a_repeated_one(hooked, taking, clock):
    body = event()
    answers = [send(hooked, body) for _ in range(3)]
    assert [(one.status_code, one.json["repeated"]) for one in answers] == [(200, False), (200, True), (200, True)]
    assert stored(taking) == [("evt_1", "charge.refunded", body, "waiting", clock.now())]


def test_wrong_signature_stores_nothing(hooked, taking):
    for answer in (send(hooked, event(), "whsec_other"), hooked.post(URL, data=event())):
        assert (answer.status_code, answer.json["code"]) == (400, "bad_signature")
    assert stored(taking) == []


def test_tolerance_is_real_time_whatever_the_business_clock_says(hooked, clock):
    clock.advance(days=300)
    assert send(hooked, event()).status_code == 200
    old = send(hooked, event("evt_2"), at=time.time() - 301)
    assert (old.status_code, old.json["code"]) == (400, "bad_signature")


def test_signed_nonsense_is_refused(hooked):
    answer = send(hooked, b"[]")
    assert (answer.status_code, answer.json["code"]) == (400, "malformed_body")


def test_nobody_is_listened_to_where_stripe_is_not_set_up(client):
    assert send(client, event()).status_code == 404


def test_job_handles_what_was_stored_once(hooked, taking, monkeypatch):
    seen: list[Event] = []
    monkeypatch.setattr(webhooks, "handlers", lambda _: {("stripe", "charge.refunded"): seen.append})
    for id_ in ("evt_1", "evt_2", "evt_1"):
        send(hooked, event(id_))
    send(hooked, event("evt_3", "radar.early_fraud_warning.created"))
    assert webhooks.handle(taking) == 3 and webhooks.handle(taking) == 0
    assert [one.id for one in seen] == ["evt_1", "evt_2"]
    assert [(row[0], row[3]) for row in stored(taking)] == [
        ("evt_1", "handled"), ("evt_2", "handled"), ("evt_3", "unknown"),
    ]  # fmt: skip


def test_commands_list_what_is_parked_and_let_it_be_tried_again(hooked, taking, monkeypatch, database_url):
    from contextlib import contextmanager

    from app import archiving
    from app.commands.webhooks import webhooks as command

    send(hooked, event())
    connection = taking.connections.get()
    connection.execute(
        "UPDATE webhook_event SET state = 'parked', error = 'ValueError: no', tries = 5, settled_at = received_at"
    )

    @contextmanager
    def opened(_: str):
        yield connection

    monkeypatch.setattr(archiving, "opened", opened)
    listed = CliRunner().invoke(command, ["list", "--parked", "--json"])
    (found,) = json.loads(listed.stdout)["events"]
    assert (found["id"], found["kind"], found["error"]) == ("evt_1", "charge.refunded", "ValueError: no")
    assert CliRunner().invoke(command, ["retry", "evt_1"]).exit_code == 0
    assert stored(taking)[0][3] == "waiting"
    assert CliRunner().invoke(command, ["retry", "evt_1"]).exit_code == 1
    assert json.loads(CliRunner().invoke(command, ["list", "--parked", "--json"]).stdout) == {"events": []}

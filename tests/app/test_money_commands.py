"""`./iparking calls` and `einvoices`: what a gateway or the tax authority would not do, listed and tried once more."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from uuid import uuid4

import click
import psycopg
import pytest
from click.testing import CliRunner, Result

from app import archiving, card_jobs, charges, receipts
from app.commands.calls import calls as calls_command
from app.commands.einvoices import einvoices as invoices_command
from app.resources import Resources
from billing import ledger
from billing.ledger import Posting
from billing.transfers import Wanted
from tests.app.carding import INTENTS, carded, client, db, keep, pay, real, start, stop, taken, work
from tests.app.giving_back import FEE, approve, carry_out, in_wallet, session
from tests.app.test_einvoices import issued, provider, sending
from tests.conftest import FUNDS
from tests.fake_stripe import StripeServer

__all__ = ["carded", "client", "db", "issued", "provider", "real", "sending", "session"]
Run = Callable[..., Result]


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command on the test's database."""

    @contextmanager
    def opened(_: str) -> Iterator[psycopg.Connection]:
        with psycopg.connect(database_url, autocommit=True) as connection:
            yield connection

    monkeypatch.setattr(archiving, "opened", opened)

    def invoke(command: click.Group, *arguments: str) -> Result:
        return CliRunner().invoke(command, list(arguments))

    return invoke


def listed(run: Run, command: click.Group, name: str, *arguments: str) -> list[dict]:
    answer = run(command, "list", "--json", *arguments)
    assert answer.exit_code == 0, answer.output
    found: list[dict] = json.loads(answer.stdout)[name]
    return found


# --- calls ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def parked(client, carded, db, real, stripe_server, session) -> str:
    """A refund that Stripe would not make: our secret was a wrong one. Its key."""
    approve(client, session, 10_000)
    right, stripe_server.key = stripe_server.key, "sk_test_another"
    carry_out(carded, real)
    stripe_server.key = right
    (key,) = db.execute("SELECT key FROM gateway_call WHERE state = 'parked'").fetchone()
    return str(key)


def test_parked_refund_is_listed_and_made_once_more(run, carded, db, real, stripe_server, parked):
    (found,) = listed(run, calls_command, "calls", "--parked")
    assert (found["key"], found["verb"], found["amount"], found["client"]) == (parked, "refund", 10_000, "driver")
    assert found["state"] == "parked" and "PaymentRefused" in found["error"]
    shown = run(calls_command, "list").output
    assert parked in shown and "10,000 VND of driver" in shown
    assert json.loads(run(calls_command, "retry", parked, "--json").stdout) == {"retried": parked}
    (waits,) = listed(run, calls_command, "calls")
    assert (waits["state"], waits["tries"]) == ("waiting", 0) and listed(run, calls_command, "calls", "--parked") == []
    again = run(calls_command, "retry", parked)
    assert again.exit_code == 1 and "is parked" in again.output
    carry_out(carded, real)
    assert taken(stripe_server) == FEE - 10_000 and ledger.balance(db, "refund") == 0
    assert db.execute("SELECT state FROM refund").fetchall() == [("refunded",)] and in_wallet(db) == FUNDS
    assert run(calls_command, "list").output.strip() == "no such call"


def test_parked_refund_that_is_given_up_is_the_drivers_wallet_money(run, carded, db, real, stripe_server, parked):
    assert json.loads(run(calls_command, "give-up", parked, "--json").stdout) == {"given_up": parked}
    assert run(calls_command, "give-up", parked).exit_code == run(calls_command, "retry", parked).exit_code == 1
    carry_out(carded, real)
    assert (taken(stripe_server), in_wallet(db), ledger.balance(db, "refund")) == (FEE, FUNDS + 10_000, 0)


def test_hold_or_charge_is_not_made_once_more(run, carded, db, real, session, parked):
    db.execute("UPDATE gateway_call SET state = 'parked', error = 'x' WHERE verb = 'hold'")
    (key,) = db.execute("SELECT key FROM gateway_call WHERE verb = 'hold'").fetchone()
    for verb in ("retry", "give-up"):
        refused = run(calls_command, verb, key)
        assert refused.exit_code == 1 and key in refused.output
    assert run(calls_command, "retry", "nobody's").exit_code == 1


@pytest.fixture
def over(client, carded, clock, stripe_server) -> str:
    """A session by card that is over: 60,000 VND, whose capture is parked, for our secret was a wrong one. Its key."""
    keep(client)
    begun = start(client).json
    clock.advance(minutes=61)
    stop(client, begun)
    return park(carded, stripe_server)


def park(carded: Resources, stripe_server: StripeServer) -> str:
    """Let the calls of sessions that are over be refused; the key of the one that is parked by it."""
    right, stripe_server.key = stripe_server.key, "sk_test_another"
    card_jobs.look(carded)
    card_jobs.settle(carded)
    stripe_server.key = right
    query = "SELECT key FROM gateway_call WHERE state = 'parked'"
    (row,) = carded.connections.get().execute(query).fetchall()
    return str(row[0])


def made(db: psycopg.Connection, *verbs: str) -> list[tuple]:
    query = "SELECT verb, amount, state FROM gateway_call WHERE verb = ANY(%s) ORDER BY made_at, key"
    return db.execute(query, (list(verbs),)).fetchall()


def test_parked_capture_is_made_once_more(run, carded, db, real, stripe_server, over):
    (found,) = listed(run, calls_command, "calls", "--parked")
    assert (found["key"], found["verb"]) == (over, "capture")
    assert run(calls_command, "retry", over).exit_code == 0
    again = run(calls_command, "retry", over)
    assert again.exit_code == 1 and "is parked" in again.output
    work(carded, real)
    assert taken(stripe_server) == FEE and ledger.wallet(db, "driver").owed == 0
    assert made(db, "capture", "release") == [("capture", FEE, "refused"), ("capture", FEE, "done")]


def test_retry_beside_a_charge_that_is_being_written_waits_for_it(run, carded, db, real, stripe_server, over):
    """The charge has seen that the capture is parked, and takes what is owed: no capture may take it too."""
    with ThreadPoolExecutor(1) as pool, db.transaction():
        charges.ask(carded, db, Wanted("driver", "arrears", "card"))
        retried = pool.submit(run, calls_command, "retry", over)
        while not (waits := blocks(db)) and not retried.done():
            pass
    assert waits and retried.result(20).exit_code == 0
    work(carded, real)
    assert taken(stripe_server) == FEE and ledger.wallet(db, "driver").owed == 0
    assert made(db, "charge", "capture", "release")[-2:] == [("charge", FEE, "done"), ("release", 0, "done")]


def blocks(db: psycopg.Connection) -> bool:
    """Whether somebody waits for a lock of this connection. (pg_stat_activity stays as it was within a transaction.)"""
    query = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid)))"
    return db.execute(query).fetchone() == (True,)


def test_of_a_parked_capture_only_what_is_still_owed_is_taken(run, carded, db, clock, real, stripe_server, over):
    ledger.post(db, [Posting("transfer", "FT1", clock.now(), {"bank": 40_000, "receivable/driver": -40_000})])
    assert run(calls_command, "retry", over).exit_code == 0
    work(carded, real)
    assert (taken(stripe_server), ledger.wallet(db, "driver").owed, in_wallet(db)) == (20_000, 0, FUNDS)


def test_parked_capture_whose_fee_its_driver_paid_is_a_release(run, client, carded, db, real, stripe_server, over):
    assert pay(client, "arrears").json["state"] == "paid"
    assert run(calls_command, "retry", over).exit_code == 0
    work(carded, real)
    assert (taken(stripe_server), in_wallet(db)) == (FEE, FUNDS), "the card paid it once"
    assert made(db, "capture", "release") == [("capture", FEE, "refused"), ("release", 0, "done")]
    assert stripe_server.books.of("payment_intent")[0]["status"] == "canceled"


def test_parked_capture_waits_for_a_charge_of_the_same_fee(run, client, carded, db, real, stripe_server, over):
    stripe_server.fail("POST", INTENTS, "reset_before")
    assert pay(client, "arrears").json["state"] == "unknown"
    assert run(calls_command, "retry", over).exit_code == 0
    assert card_jobs.plan_ends(carded) == 0, "whether the card pays it is not known yet"
    work(carded, real)
    assert (taken(stripe_server), in_wallet(db), ledger.wallet(db, "driver").owed) == (FEE, FUNDS, 0)
    assert made(db, "capture", "release") == [("capture", FEE, "refused"), ("release", 0, "done")]


def test_driver_does_not_pay_what_a_retried_capture_is_about_to_take(run, client, carded, db, real, over):
    assert run(calls_command, "retry", over).exit_code == 0
    assert pay(client, "arrears").json["code"] == "payment_under_way"


def test_parked_release_is_made_once_more(run, client, carded, db, clock, real, stripe_server):
    keep(client)
    begun = start(client).json
    clock.advance(minutes=61)
    stop(client, begun)
    ledger.post(db, [Posting("transfer", "FT1", clock.now(), {"bank": FEE, "receivable/driver": -FEE})])
    assert run(calls_command, "retry", park(carded, stripe_server)).exit_code == 0
    work(carded, real)
    assert made(db, "release") == [("release", 0, "refused"), ("release", 0, "done")] and taken(stripe_server) == 0
    assert stripe_server.books.of("payment_intent")[0]["status"] == "canceled"


# --- e-invoices -------------------------------------------------------------------------------------------------------
@pytest.fixture
def refused(sending, provider, issued) -> list[str]:
    """Three e-invoices that the provider refused; their ids, the newest first."""
    issued(3)
    provider.refusal = "MST không tồn tại"
    while receipts.send_einvoices(sending):
        pass
    provider.refusal = None
    provider.answers.clear()
    rows = sending.connections.get().execute("SELECT id::text FROM einvoice ORDER BY id DESC").fetchall()
    return [row[0] for row in rows]


def test_rejected_einvoices_are_listed_and_made_anew(run, sending, provider, clock, refused):
    found = listed(run, invoices_command, "einvoices", "--rejected")
    assert [one["id"] for one in found] == refused
    assert {(one["state"], one["error"]) for one in found} == {("rejected", "MST không tồn tại")}
    assert len(listed(run, invoices_command, "einvoices", "--limit", "2")) == 2
    assert refused[0] in run(invoices_command, "list").output
    first = json.loads(run(invoices_command, "retry", refused[0], refused[0], "--json").stdout)
    assert first == {"retried": [refused[0]]}
    assert [one["state"] for one in listed(run, invoices_command, "einvoices")] == ["pending", "rejected", "rejected"]
    both = run(invoices_command, "retry", refused[0], refused[1])
    assert both.exit_code == 1 and "nothing was changed" in both.output
    assert len(listed(run, invoices_command, "einvoices", "--rejected")) == 2
    assert len(json.loads(run(invoices_command, "retry", "--all", "--json").stdout)["retried"]) == 2
    clock.advance(seconds=(timedelta(days=365 * 3)).total_seconds())  # the command's clock is the real one
    while receipts.send_einvoices(sending):
        pass
    assert run(invoices_command, "list").output.strip() == "no such e-invoice"
    assert json.loads(run(invoices_command, "retry", "--all", "--json").stdout) == {"retried": []}


@pytest.mark.parametrize("arguments", [[], ["x"], [str(uuid4()), "--all"], [str(uuid4())]])
def test_einvoices_to_retry_must_be_named_and_rejected(run, refused, arguments):
    assert run(invoices_command, "retry", *arguments).exit_code in (1, 2)
    assert len(listed(run, invoices_command, "einvoices", "--rejected")) == 3


@pytest.mark.parametrize("command", [calls_command, invoices_command])
def test_help_has_an_example(command):
    for verb in command.commands:
        assert f"Example: ./iparking {command.name} {verb}" in CliRunner().invoke(command, [verb, "--help"]).output

"""`./iparking reconcile` and the night's job, on the service's own resources."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from click.testing import CliRunner

from app import reconcile
from app.commands.reconcile import reconcile as command
from app.resources import Resources
from billing import ledger, withdrawals
from billing.ledger import Posting
from billing.reconcile.days import span_of
from billing.withdrawals import BankAccount
from tests.billing.payments_of_a_day import Town
from tests.conftest import SteppedClock
from tests.fake_stripe import StripeServer

DAY = date(2026, 10, 13)
ACCOUNT = BankAccount("970436", "0011001234567", "NGUYEN VAN A")


@pytest.fixture
def carded(resources: Resources, stripe_server: StripeServer, monkeypatch: pytest.MonkeyPatch) -> Resources:
    """The service with the fake Stripe behind it, the morning after DAY (also where Stripe is)."""
    monkeypatch.setattr(reconcile, "real_now", lambda: datetime(2026, 10, 14, 1, tzinfo=UTC))
    stripe = {"stripe_key": stripe_server.key, "stripe_url": stripe_server.url}
    return replace(resources, settings=replace(resources.settings, **stripe))


@pytest.fixture
def town(carded: Resources, stripe_server: StripeServer, tmp_path) -> Town:
    return Town(carded.connections.get(), stripe_server, tmp_path, DAY)


@pytest.fixture
def at(carded: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, on the test's own resources in place of a database that it would open."""

    @contextmanager
    def opened(database: str) -> Iterator[Resources]:
        yield carded

    monkeypatch.setattr(reconcile, "opened", opened)


def told(*arguments: str) -> dict:
    answer = CliRunner().invoke(command, ["--date", str(DAY), "--json", *arguments])
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout)


def compared(carded: Resources) -> set[date]:
    return {row[0] for row in carded.connections.get().execute("SELECT day FROM reconciliation")}


def test_command_tells_numbers_as_integers(town, at):
    town.pay("card", "lost_response")
    town.pay("vietqr", "of_nobody")
    town.pay("vnpay")
    town.write()
    found = told("--statement", str(town.statement), "--vnpay", str(town.vnpay))
    assert [found[name] for name in ("payments", "differences", "healed", "unexplained")] == [3, 2, 1, 0]
    assert [one["kind"] for one in found["list"]] == ["missing_at_us", "unmatched_credit"]
    assert all(type(found[name]) is int for name in ("payments", "differences", "healed", "unexplained"))
    assert told("--statement", str(town.statement), "--vnpay", str(town.vnpay)) == found


def test_command_says_in_words_what_is_to_be_done(town, at):
    town.pay("vietqr", "wrong_amount")
    town.write()
    answer = CliRunner().invoke(command, ["--date", str(DAY), "--statement", str(town.statement)])
    assert answer.exit_code == 0 and "1 payments, 1 differences (0 healed, 1 open), 0 VND unexplained" in answer.output
    assert "wrong_amount, +1,000 VND: compare with the gateway's page" in answer.output


def test_command_compares_withdrawals_and_shifts_too(carded, town, at):
    db, noon = carded.connections.get(), span_of(DAY).since + timedelta(hours=12)
    asked = [withdrawals.request(db, "driver", 50_000, ACCOUNT, noon).id for _ in range(2)]
    for one in asked:
        withdrawals.pay(db, one, "FT7", noon)
    town.pay("cash", "counted_short")
    town.write()
    with town.statement.open("a", encoding="utf-8") as file:
        file.write("FT7,13/10/2026 13:00:00,50000,,rut tien\r\n")
    found = told("--statement", str(town.statement))
    assert [(one["gateway"], one["source"], one["payments"]) for one in found["gateways"]] == [
        ("bank", "file", 2), ("cash", "shifts", 1), ("stripe", "list", 0), ("vietqr", "file", 0),
        ("vnpay", "credits", 0),
    ]  # fmt: skip
    assert set(found["kinds"]) == {"cash_difference", "late"} and found["unexplained"] == 0
    assert [(one["kind"], one["amount"], one["state"]) for one in found["list"]] == [("late", 50_000, "open")]


def test_something_unexplained_ends_with_1(carded, town, at):
    town.pay("card")
    town.write()
    carded.connections.get().execute("UPDATE payment SET paid = paid + 7")
    answer = CliRunner().invoke(command, ["--date", str(DAY)])
    assert answer.exit_code == 1 and "7 VND unexplained" in answer.output


def test_gateway_that_is_away_ends_with_1_and_a_clear_text(carded, town, at, stripe_server):
    town.pay("card", "lost_response")
    town.write()
    stripe_server.fail("GET", "/v1/balance_transactions", "503")
    answer = CliRunner().invoke(command, ["--date", str(DAY), "--json"])
    assert answer.exit_code == 1 and answer.stdout == ""
    assert "nothing was reconciled: Stripe gave no answer" in answer.stderr and compared(carded) == set()


def test_statement_of_another_day_ends_with_1(carded, town, at, tmp_path):
    later = Town(carded.connections.get(), town.stripe, tmp_path, DAY + timedelta(days=1))
    later.pay("vietqr")
    later.write()
    answer = CliRunner().invoke(command, ["--date", str(DAY), "--statement", str(later.statement)])
    assert answer.exit_code == 1 and "and none of 2026-10-13" in answer.stderr and compared(carded) == set()


def test_bookings_of_a_gateway_that_is_not_set_up_are_not_passed_over(resources):
    at = span_of(DAY).since
    entries = {"clearing/stripe": 25_000, "receivable/driver-1": -25_000}
    db = resources.connections.get()
    ledger.post(db, [Posting("parking", "1", at, {"receivable/driver-1": 25_000, "vat": -25_000}),
                     Posting("payment", "1", at, entries)])  # fmt: skip
    with pytest.raises(reconcile.MethodUnavailable, match="stripe has bookings on 2026-10-13"):
        reconcile.run(resources, DAY)
    reconcile.run(resources, DAY + timedelta(days=1))


# --- every night ------------------------------------------------------------------------------------------------------
def test_night_reconciles_the_two_days_before_it_once(carded, clock: SteppedClock, stripe_server):
    clock.at("2026-10-14T02:59:59")
    assert reconcile.nightly(carded) == 0 and compared(carded) == set()
    clock.at("2026-10-14T03:00:00")
    assert reconcile.nightly(carded) == 2 and compared(carded) == {DAY, DAY - timedelta(days=1)}
    clock.at("2026-10-14T23:59:59")
    assert reconcile.nightly(carded) == 0
    clock.at("2026-10-15T03:00:00")
    assert reconcile.due(carded) == [DAY + timedelta(days=1), DAY]


def test_night_asks_a_gateway_again_that_was_away(carded, clock: SteppedClock, stripe_server):
    stripe_server.fail("GET", "/v1/balance_transactions", "503", times=2)
    assert reconcile.nightly(carded) == 0
    assert reconcile.nightly(carded) == 2


def test_night_heals_what_the_day_lost(town, carded, clock: SteppedClock, stripe_server):
    reference = town.pay("card", "lost_response")
    town.write()
    reconcile.nightly(carded)
    assert ledger.balance(carded.connections.get(), "clearing/stripe") == town.asked[reference] * 966 // 1000

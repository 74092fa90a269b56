"""A bank's statement is booked once, however often it is read and whoever told of its credits before."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine

from billing import ledger, references, transfers
from billing.gateways import statements
from billing.imports import statement
from billing.transfers import Credit, Wanted
from tests.billing.rate_examples import hanoi

NOW = hanoi("2026-11-26T09:00")
HEADER = "Số tham chiếu;Ngày giao dịch;Ghi nợ;Ghi có;Mô tả"


@pytest.fixture
def db(engine: Engine) -> Iterator[psycopg.Connection]:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def movements(db: psycopg.Connection, tmp_path: Path) -> list[statements.Movement]:
    """Exact, more than asked, without a reference, of an unknown one; and a debit."""
    exact, more = (transfers.create(db, Wanted("driver-1", "topup", "vietqr", 50_000), NOW) for _ in range(2))
    file = tmp_path / "statement.csv"
    lines = [
        HEADER,
        f"FT1;26/11/2026 09:10:00;;50.000;MBVCB.{exact.reference[:8]} {exact.reference[8:].lower()}.CT tu",
        f"FT2;26/11/2026 09:11:00;;60.000;{more.reference}",
        "FT3;26/11/2026 09:12:00;;70.000;chuyen tien",
        f"FT4;26/11/2026 09:13:00;;80.000;{references.new()}",
        "FT5;26/11/2026 09:14:00;1.100;;PHI",
    ]
    file.write_text("\n".join(lines))
    return statements.read_bank(file)


def test_statement_is_booked_and_what_is_odd_is_listed(db, movements):
    report = statement.apply(db, movements, NOW + timedelta(hours=1), False)
    assert (report.booked, report.known, report.debits) == (2, 0, 1)
    assert report.unmatched == [
        ("line 4", "FT3", 70_000, "no_reference"),
        ("line 5", "FT4", 80_000, "unknown_reference"),
    ]
    assert report.noted == [("line 3", "FT2", 60_000, "more")] and report.different == []
    assert ledger.wallet(db, "driver-1").balance == 110_000
    assert "unmatched: line 4 FT3: 70,000 VND: no_reference" in report.lines
    assert report.as_dict()["noted"] == [{"where": "line 3", "transaction": "FT2", "amount": 60_000, "why": "more"}]


def test_statement_that_is_read_again_books_nothing(db, movements):
    statement.apply(db, movements, NOW, False)
    again = statement.apply(db, movements, NOW, False)
    assert (again.booked, again.known, again.noted, len(again.unmatched)) == (0, 2, [], 2)
    assert ledger.wallet(db, "driver-1").balance == 110_000 and len(transfers.unmatched(db, 10)) == 2


def test_credit_that_the_bank_pushed_before_is_known_and_another_amount_is_said(db, movements):
    first = movements[0]
    transfers.receive(db, Credit("vietqr", first.transaction, first.amount, NOW, first.description), NOW)
    transfers.receive(db, Credit("vietqr", "FT2", 1, NOW, movements[1].description), NOW)
    report = statement.apply(db, movements, NOW, False)
    assert (report.booked, report.known) == (0, 1)
    assert report.different == [("line 3", "FT2", 60_000, "another amount was told before")]


def test_dry_run_says_the_same_and_books_nothing(db, movements):
    dry = statement.apply(db, movements, NOW, True)
    assert ledger.wallet(db, "driver-1").balance == 0 and transfers.unmatched(db, 10) == []
    real = statement.apply(db, movements, NOW, False)
    assert dry.as_dict() == real.as_dict() | {"dry_run": True}

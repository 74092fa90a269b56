"""Attendants' shifts beside the ledger: each movement has its booking, each count its difference, and what is left says
whose it is."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import Connection
from sqlalchemy import Engine

from billing import ledger, shifts
from billing.ledger import Posting
from billing.payments import new_id
from billing.reconcile import Result, lists, reconcile
from billing.reconcile.days import HANOI

DAY = date(2026, 10, 14)
NOON = datetime(2026, 10, 14, 12, tzinfo=HANOI)
NIGHT = datetime(2026, 10, 15, 3, tzinfo=HANOI)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
LASTING = timedelta(days=2)


@pytest.fixture
def db(engine: Engine) -> Iterator[Connection]:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        for attendant in ("mai", "nam"):
            shifts.top_up(connection, attendant, 1_000_000, NOON - LASTING)
        yield connection


def run(db: Connection, day: date = DAY, now: datetime = NIGHT) -> Result:
    with lists.of_shifts(day) as listed:
        return reconcile(db, day, [listed], None, now)


def kinds(result: Result) -> list[tuple[str, str, int]]:
    return [(one.kind, one.state, one.amount) for one in result.differences]


def unexplained(result: Result) -> int:
    return result.as_dict()["unexplained"]


def start(db: Connection, amount: int = 60_000, at: datetime = NOON, attendant: str = "mai") -> UUID:
    session = new_id(at)
    query = "SELECT place_holds(%s, %s, %s::bigint[], %s, %s, 0, 'float')"
    db.execute(query, ([session], [attendant], [amount], [at + LASTING], at))
    return session


def end(db: Connection, session: UUID, fee: int, at: datetime = NOON + HOUR, attendant: str = "mai") -> None:
    query = "SELECT charge_sessions(%s, %s, '{cash}', %s::bigint[], '{002}', %s)"
    db.execute(query, ([session], [attendant], [fee], at))


def owe(db: Connection, amount: int, at: datetime = NOON) -> UUID:
    session = new_id(at)
    entries = {"receivable/driver-1": amount, "vat": -amount}
    ledger.post(db, [Posting("parking", str(session), at, entries)])
    return session


def opened(db: Connection, attendant: str = "mai", at: datetime = NOON - HOUR, counted: int = 500_000) -> UUID:
    return shifts.open_shift(db, attendant, counted, at).id


def test_cash_of_a_day_agrees_with_the_float(db):
    shift = opened(db)
    whole, part, nothing, running = (start(db, at=NOON + n * MINUTE) for n in range(4))
    end(db, whole, 60_000)
    end(db, part, 25_000)
    end(db, nothing, 0)
    shifts.take_debt(db, "mai", owe(db, 30_000), "driver-1", NOON + HOUR)
    shifts.close_shift(db, shift, "mai", 675_000, NOON + 2 * HOUR)
    result = run(db)
    (cash,) = result.gateways
    assert kinds(result) == [] and unexplained(result) == 0
    assert (cash.gateway, cash.source, cash.payments) == ("cash", "shifts", 5)
    assert cash.theirs == cash.ours == 60_000 + 25_000 + 30_000 + 60_000
    end(db, running, 60_000, NOON + 5 * HOUR)
    assert kinds(run(db)) == []


def test_each_day_of_a_stay_over_midnight_agrees(db):
    midnight = datetime(2026, 10, 15, tzinfo=HANOI)
    shift = opened(db)
    for hours in (0.5, 1, 2):
        end(db, start(db, at=midnight - HOUR), 20_000, midnight - HOUR + timedelta(hours=hours))
    shifts.close_shift(db, shift, "mai", 560_000, midnight + 5 * HOUR)
    first, second = run(db), run(db, DAY + timedelta(days=1))
    assert first.gateways[0].theirs == 3 * 60_000 - 40_000 and second.gateways[0].theirs == -80_000
    assert kinds(first) == [("shift_open", "explained", 640_000)] and kinds(second) == []
    assert unexplained(first) == unexplained(second) == 0


@pytest.mark.parametrize("counted", [555_000, 565_000])
def test_counted_difference_is_told_and_is_what_was_booked(db, counted):
    shift = opened(db)
    end(db, start(db), 60_000)
    shifts.close_shift(db, shift, "mai", counted, NOON + 2 * HOUR)
    result = run(db)
    assert kinds(result) == [("cash_difference", "explained", counted - 560_000)] and unexplained(result) == 0
    assert result.gateways[0].theirs == result.gateways[0].ours == counted - 500_000
    assert ledger.balance(db, "clearing/cash") == counted - 560_000


def test_counted_difference_that_was_not_booked_is_listed(db):
    shift = opened(db)
    db.execute("UPDATE shift SET closed_at = %s, counted = 400000, expected = 500000", (NOON,))
    result = run(db)
    assert kinds(result) == [("cash_not_booked", "open", -100_000), ("cash_difference", "explained", -100_000)]
    missing = result.differences[0]
    assert (missing.booking, missing.reference, missing.theirs, missing.ours) == (
        "cash_shift", str(shift), -100_000, None
    )  # fmt: skip
    assert unexplained(result) == 0


def test_shift_that_expects_another_sum_than_its_movements_is_unexplained(db):
    shift = opened(db)
    end(db, start(db), 60_000)
    shifts.close_shift(db, shift, "mai", 560_000, NOON + 2 * HOUR)
    db.execute("UPDATE shift SET expected = expected + 7")
    result = run(db)
    assert kinds(result) == [("shift_row", "open", -7)] and unexplained(result) == 7


def move(db: Connection, kind: str, amount: int, session: UUID | None = None, attendant: str = "mai") -> UUID:
    """Cash that is noted, and nothing else."""
    session = session or uuid4()
    shifts.move_cash(db, attendant, session, amount, kind, NOON)
    return session


@pytest.mark.parametrize(("kind", "amount"), [("start", 60_000), ("payment", 30_000), ("hand_back", -20_000)])
def test_movement_without_its_booking_is_listed_with_the_next_step(db, kind, amount):
    shift = opened(db)
    session = move(db, kind, amount)
    result = run(db)
    (missing,) = (one for one in result.differences if one.kind != "shift_open")
    assert (missing.kind, missing.state, missing.amount) == ("cash_not_booked", "open", amount)
    assert (missing.reference, missing.source) == (f"mai/{session}", str(shift))
    assert "slip" in missing.next_step and unexplained(result) == 0


def test_booking_on_a_float_without_its_movement_is_listed_with_the_next_step(db):
    paid, session = str(uuid4()), owe(db, 30_000)
    ledger.post(db, [Posting("cash", paid, NOON, {"float/mai": 30_000, "receivable/driver-1": -30_000})])
    charged = str(new_id(NOON))
    ledger.post(db, [Posting("parking", charged, NOON, {"float/nam": 9_000, "vat": -9_000})])
    ledger.post(db, [Posting("void", f"{session}/x", NOON, {"float/nam": -5_000, "vat": 5_000})])
    result = run(db)
    assert sorted((one.booking, one.reference, one.amount) for one in result.differences) == sorted([
        ("cash_payment", f"mai/{paid}", -30_000), ("cash_start", f"nam/{charged}", -9_000),
        ("cash_hand_back", f"nam/{session}", 5_000),
    ])  # fmt: skip
    assert {one.kind for one in result.differences} == {"cash_not_moved"} and unexplained(result) == 0


def test_hold_without_its_movement_and_one_that_gave_back_another_amount(db):
    opened(db)
    session = start(db)
    db.execute("UPDATE hold SET amount = 50000")
    db.execute("UPDATE wallet SET held = 50000 WHERE owner = 'mai' AND kind = 'float'")
    end(db, session, 20_000)
    found = [one for one in run(db).differences if one.kind != "shift_open"]
    assert [(one.booking, one.kind, one.theirs, one.ours) for one in found] == [
        ("cash_start", "cash_wrong_amount", 60_000, 50_000)
    ]


def test_movement_in_another_attendants_shift_is_found_on_both(db):
    opened(db)
    opened(db, "nam")
    session = owe(db, 30_000)
    shifts.take_debt(db, "mai", session, "driver-1", NOON)
    with db.transaction():
        db.execute("SET LOCAL session_replication_role = replica")
        db.execute("UPDATE cash_movement SET shift_id = (SELECT id FROM shift WHERE attendant = 'nam')")
    found = [(one.kind, one.reference, one.amount) for one in run(db).differences if one.kind != "shift_open"]
    assert found == [
        ("cash_not_moved", f"mai/{session}", -30_000), ("cash_not_booked", f"nam/{session}", 30_000)
    ]  # fmt: skip


def test_payment_in_cash_whose_row_disagrees_with_the_ledger_is_unexplained(db):
    shifts.close_shift(db, opened(db), "mai", 500_000, NOON - HOUR + MINUTE)
    opened(db)
    shifts.take_debt(db, "mai", owe(db, 30_000), "driver-1", NOON)
    db.execute("UPDATE payment SET paid = paid + 7")
    result = run(db)
    assert ("payment_row", "open", 7) in kinds(result) and unexplained(result) == 7


def test_shift_that_is_left_open_is_explained_once_it_is_closed(db):
    shift = opened(db)
    end(db, start(db), 60_000)
    result = run(db)
    assert kinds(result) == [("shift_open", "open", 560_000)] and unexplained(result) == 0
    assert result.differences[0].description == "mai" and "count and close" in result.differences[0].next_step
    later = DAY + timedelta(days=3)
    assert kinds(run(db, later - timedelta(days=1))) == [], "it is told of once, on the day on which it was opened"
    shifts.close_shift(db, shift, "mai", 560_000, NOON + timedelta(days=3))
    assert kinds(run(db, later)) == []
    (told,) = db.execute("SELECT state, settled_at FROM reconciliation_difference").fetchall()
    assert told == ("explained", NIGHT)
    assert kinds(run(db)) == [("shift_open", "explained", 560_000)]


def test_void_on_two_sides_of_midnight_is_explained(db):
    """The reversal is booked a millisecond before what it gives back."""
    last = datetime(2026, 10, 14, 23, 59, 59, 999_000, tzinfo=HANOI)
    shift = opened(db)
    session = start(db)
    end(db, session, 60_000)
    shifts.move_cash(db, "mai", session, -50_000, "hand_back", last)
    charge = db.execute("SELECT id FROM ledger_transaction WHERE kind = 'parking'").fetchone()[0]
    ledger.reverse(db, charge, f"{session}/x", last)
    entries = {"float/mai": 10_000, "vat": -10_000}
    ledger.post(db, [Posting("void", f"{session}/x", last + timedelta(milliseconds=1), entries)])
    shifts.close_shift(db, shift, "mai", 510_000, last)
    assert kinds(run(db)) == [("late", "explained", 10_000)]
    assert kinds(run(db, DAY + timedelta(days=1))) == [("late", "explained", -10_000)]


def test_day_without_cash_and_top_ups_of_floats_are_no_differences(db):
    shifts.top_up(db, "mai", 50_000, NOON)
    wrong = ledger.post(db, [Posting("float_topup", "by-hand", NOON, {"bank": 5, "float/mai": -5})])[0]
    ledger.reverse(db, wrong, "by-hand", NOON)
    result = run(db)
    assert kinds(result) == [] and result.gateways[0]._replace(gateway="", source="") == ("", "", 0, 0, 0, 0, 0)

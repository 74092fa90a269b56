"""The city's share: each day's once, exact in all, whatever is given back later; revenue stays what it is."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from math import floor
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.errors import CheckViolation, RestrictViolation

from billing import check, city_share, ledger
from billing.city_share import HANOI
from tests.billing.money import book, charge, name, together
from tests.conftest import emptying

FIRST = date(2026, 10, 14)
DISTRICTS = ("002", "006")
RATE = 3000


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection
        connection.execute("DELETE FROM city_share_rate WHERE valid_from > '2018-01-01'")


def empty(connection: psycopg.Connection) -> None:
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        connection.execute(
            emptying(["city_share_day", "hold", "ledger_entry", "ledger_transaction", "ledger_account", "wallet"])
        )


def at(day: int, hour: int = 12, minute: int = 0) -> datetime:
    """An instant of Hanoi, so many days behind the first."""
    return datetime(FIRST.year, FIRST.month, FIRST.day, hour, minute, tzinfo=HANOI) + timedelta(days=day)


def earn(connection: psycopg.Connection, amount: int, when: datetime, district: str = "002") -> None:
    """Revenue without VAT; below 0: given back."""
    book(connection, {f"revenue/{district}/iparking": -amount, "clearing/x": amount}, when)


def booked(connection: psycopg.Connection, district: str = "002") -> dict[str, int]:
    """The share that was booked, by day."""
    query = (
        "SELECT t.reference, e.amount FROM ledger_transaction t JOIN ledger_entry e ON e.transaction_id = t.id "
        "JOIN ledger_account a ON a.id = e.account_id AND a.code = %s WHERE t.kind = 'city_share' ORDER BY t.reference"
    )
    rows = connection.execute(query, (f"city_share_cost/{district}",)).fetchall()
    return {reference.partition("/")[2]: amount for reference, amount in rows}


def is_proved(connection: psycopg.Connection) -> bool:
    (proof,) = [one for one in check.check(connection) if one.name == "city_share"]
    return proof.wrong == 0


def test_share_is_a_cost_and_a_debt_and_revenue_stays(connection):
    charge(connection, [(uuid4(), name("d"), "vietqr", 54_000)], at(0))
    assert city_share.book(connection, at(1, 3)) == 1
    assert ledger.balance(connection, "revenue/002/iparking") == -50_000
    assert booked(connection) == {"2026-10-14": 15_000}
    assert ledger.balance(connection, "city_share") == -15_000
    assert ledger.balance(connection, "city_share_cost/002") == 15_000
    assert is_proved(connection)


def test_day_is_booked_once_and_not_before_three_the_next_morning(connection):
    earn(connection, 100, at(0))
    assert city_share.book(connection, at(1, 2, 59)) == 0 and booked(connection) == {}
    assert city_share.book(connection, at(1, 3)) == 1
    for later in (at(1, 3), at(1, 23, 59), at(2, 2, 59), at(0)):
        assert city_share.book(connection, later) == 0
    assert booked(connection) == {"2026-10-14": 30}


def test_day_is_hanois_from_midnight_to_midnight(connection):
    for moment in (at(0, 0), at(0, 23, 59) + timedelta(seconds=59.999), at(1, 0), at(1, 0).astimezone(UTC)):
        earn(connection, 1_000, moment)
    city_share.book(connection, at(2, 3))
    assert booked(connection) == {"2026-10-14": 600, "2026-10-15": 600} and is_proved(connection)


def test_days_that_nobody_booked_are_made_up_for_in_order(connection):
    for day in (0, 2, 5):
        earn(connection, 10_000, at(day))
    assert city_share.book(connection, at(7, 3)) == 7
    assert booked(connection) == {f"2026-10-{day}": 3_000 for day in (14, 16, 19)}
    days = connection.execute("SELECT array_agg(day ORDER BY day) FROM city_share_day").fetchone()[0]
    assert days == [FIRST + timedelta(days=n) for n in range(7)] and is_proved(connection)


def test_districts_have_their_own_days_and_a_new_one_joins(connection):
    earn(connection, 1_000, at(0), "002")
    city_share.book(connection, at(1, 3))
    earn(connection, 2_000, at(1), "006")
    city_share.book(connection, at(2, 3))
    assert booked(connection, "002") == {"2026-10-14": 300} and booked(connection, "006") == {"2026-10-15": 600}
    assert ledger.balance(connection, "city_share") == -900 and is_proved(connection)


def test_refund_takes_its_share_back_on_its_own_day(connection):
    earn(connection, 33_333, at(0))
    city_share.book(connection, at(1, 3))
    for day, back in enumerate((11_111, 11_111, 11_111), 3):
        earn(connection, -back, at(day))
    city_share.book(connection, at(9, 3))
    shares = booked(connection)
    assert list(shares.values()) == [10_000, -3_333, -3_334, -3_333] and sum(shares.values()) == 0
    assert ledger.balance(connection, "city_share") == 0 and is_proved(connection)


def test_small_days_add_up(connection):
    """One đồng a day: 0.3 of it is the city's, which a rounding of each day by itself would never see."""
    for day in range(10):
        earn(connection, 1, at(day))
    city_share.book(connection, at(10, 3))
    assert list(booked(connection).values()) == [1, 1, 1] and is_proved(connection)


def test_rate_is_that_of_the_day(connection):
    connection.execute("INSERT INTO city_share_rate VALUES ('2026-10-15', 2500, 'decree')")
    earn(connection, 10_000, at(0, 23, 59))
    earn(connection, 10_000, at(1, 0))
    earn(connection, -10_000, at(2))
    city_share.book(connection, at(3, 3))
    assert list(booked(connection).values()) == [3_000, 2_500, -2_500] and is_proved(connection)


def test_before_the_first_rate_nothing_is_the_citys(connection):
    earn(connection, 10_000, datetime(2017, 12, 31, 12, tzinfo=HANOI))
    earn(connection, 10_000, datetime(2018, 1, 1, tzinfo=HANOI))
    city_share.book(connection, datetime(2018, 1, 2, 3, tzinfo=HANOI))
    assert booked(connection) == {"2018-01-01": 3_000} and is_proved(connection)


def test_shipped_rate_says_that_it_was_only_proposed(connection):
    assert connection.execute("SELECT basis_points, source FROM city_share_rate").fetchall() == [(RATE, "proposed")]


def test_two_at_once_book_each_day_once(connection, database_url):
    for day in range(20):
        earn(connection, 1_001 + day, at(day), DISTRICTS[day % 2])
    done = together(database_url, [lambda other: city_share.book(other, at(21, 3))] * 4)
    assert all(isinstance(one, int) for one in done), done
    assert connection.execute("SELECT count(*) FROM city_share_day").fetchone() == (2 * 21,)
    assert connection.execute("SELECT count(*) FROM ledger_transaction WHERE kind = 'city_share'").fetchone() == (20,)
    assert is_proved(connection)


def test_night_that_was_killed_is_done_by_the_next(connection, monkeypatch):
    for day in range(3):
        earn(connection, 1_000, at(day))

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    city_share.book(connection, at(1, 3))
    with monkeypatch.context() as dying:
        dying.setattr(ledger, "post", die)
        with pytest.raises(KeyboardInterrupt):
            city_share.book(connection, at(3, 3))
    assert list(booked(connection).values()) == [300]
    assert city_share.book(connection, at(3, 3)) == 2
    assert list(booked(connection).values()) == [300] * 3 and is_proved(connection)


def test_what_was_worked_out_stays(connection):
    earn(connection, 1_000, at(0))
    city_share.book(connection, at(1, 3))
    for change in ("UPDATE city_share_day SET share = 0", "DELETE FROM city_share_day", "TRUNCATE city_share_day"):
        with pytest.raises(RestrictViolation):
            connection.execute(change)
    with pytest.raises(CheckViolation):
        connection.execute("INSERT INTO ledger_account (code) VALUES ('city_share_costs/002')")


def test_revenue_that_is_dated_to_a_day_already_done_is_found(connection):
    earn(connection, 1_000, at(0))
    city_share.book(connection, at(1, 3))
    earn(connection, 1_000, at(0, 13))
    assert not is_proved(connection)


def due(parts: Fraction) -> int:
    return floor(parts + Fraction(1, 2))


MOVES = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from(DISTRICTS), st.integers(-(10**9), 10**9).filter(bool)),
    min_size=1, max_size=12,
)  # fmt: skip
RATES = st.dictionaries(st.integers(1, 6), st.integers(0, 10_000), max_size=3)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MOVES, RATES, st.lists(st.integers(0, 8), max_size=3))
def test_all_days_together_are_the_share_of_all_rounded_once(connection, moves, rates, nights):
    """Beside a sum in fractions: at any night, for every district, however the days were booked."""
    empty(connection)
    connection.execute("DELETE FROM city_share_rate WHERE valid_from > '2018-01-01'")
    for day, points in rates.items():
        dated = (FIRST + timedelta(days=day), points)
        connection.execute("INSERT INTO city_share_rate VALUES (%s, %s, 'assumed')", dated)
    for day in range(8):
        for _, district, amount in [one for one in moves if one[0] == day]:
            earn(connection, amount, at(day), district)
        if day in nights:
            city_share.book(connection, at(day, 23))
    city_share.book(connection, at(8, 3))
    for district in DISTRICTS:
        points, parts, last, expected = RATE, Fraction(0), 0, {}
        for day in range(8):
            points = rates.get(day, points)
            earned = sum(amount for on, where, amount in moves if (on, where) == (day, district))
            parts += earned * Fraction(points, 10_000)
            if due(parts) != last:
                expected[str(FIRST + timedelta(days=day))] = due(parts) - last
            last = due(parts)
        assert booked(connection, district) == expected
    assert is_proved(connection)

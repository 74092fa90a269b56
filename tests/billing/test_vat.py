"""VAT: which rate is in force when, and that price = net + tax in whole đồng, in Python as in SQL."""

from collections.abc import Iterator
from fractions import Fraction

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from billing import vat
from billing.errors import NoRate
from billing.vat import VatRate, VatTable
from tests.billing.rate_examples import hanoi

prices = st.integers(0, 10**12)
rates = st.integers(0, 10_000)


@pytest.mark.parametrize(
    ("gross", "basis_points", "net"),
    [
        (25_000, 800, 23_148),  # 23,148.148…
        (25_000, 1000, 22_727),  # 22,727.27…
        (27, 800, 25),  # 25 exactly
        (3, 10_000, 2),  # 1.5: the half goes up
        (0, 800, 0),
        (5_000, 0, 5_000),
    ],
)
def test_net_is_rounded_half_up(gross: int, basis_points: int, net: int):
    assert vat.net(gross, basis_points) == net


@given(prices, rates)
@example(1, 10_000)
def test_net_is_the_nearest_whole_dong_and_the_higher_of_two(gross: int, basis_points: int):
    off = vat.net(gross, basis_points) - Fraction(gross * 10_000, 10_000 + basis_points)
    assert Fraction(-1, 2) < off <= Fraction(1, 2)


@given(prices, prices, rates)
def test_a_higher_price_has_no_lower_net_and_no_lower_tax(one: int, other: int, basis_points: int):
    low, high = sorted((one, other))
    nets = vat.net(low, basis_points), vat.net(high, basis_points)
    assert nets[0] <= nets[1] and low - nets[0] <= high - nets[1]


def test_a_negative_price_is_refused():
    with pytest.raises(ValueError, match="not below 0"):
        vat.net(-1, 800)


def test_a_rate_holds_from_its_first_instant_to_before_the_next():
    table = VatTable(
        [VatRate(hanoi("2027-01-01T00:00"), 1000, "decree"), VatRate(hanoi("2023-07-01T00:00"), 800, "assumed")]
    )
    found = [table.at(hanoi(at)).basis_points for at in ("2023-07-01T00:00", "2026-12-31T23:59:59", "2027-01-01T00:00")]
    assert found == [800, 800, 1000]
    with pytest.raises(NoRate, match="2023-06-30"):
        table.at(hanoi("2023-06-30T23:59:59"))


@pytest.mark.parametrize(("basis_points", "text"), [(800, "8%"), (1000, "10%"), (750, "7.5%"), (0, "0%")])
def test_percent(basis_points: int, text: str):
    assert vat.percent(basis_points) == text


@pytest.fixture(scope="module")
def database(empty_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(empty_database) as connection:
        yield connection


@given(st.lists(st.tuples(prices, rates), min_size=1, max_size=10))
def test_sql_books_by_the_same_rule(database: psycopg.Connection, asked: list[tuple[int, int]]):
    query = """SELECT array_agg(vat_net(a.gross, a.rate) ORDER BY a.n)
                 FROM unnest(%s::bigint[], %s::integer[]) WITH ORDINALITY a(gross, rate, n)"""
    row = database.execute(query, ([gross for gross, _ in asked], [rate for _, rate in asked])).fetchone()
    assert row == ([vat.net(gross, rate) for gross, rate in asked],)


@pytest.mark.parametrize(
    ("at", "basis_points"),
    [
        ("2022-01-31T23:59:59", 1000),
        ("2022-02-01T00:00", 800),
        ("2023-01-01T00:00", 1000),
        ("2023-07-01T00:00", 800),
        ("2026-12-31T23:59:59", 800),
        ("2027-01-01T00:00", 1000),
    ],
)
def test_shipped_rates(database: psycopg.Connection, at: str, basis_points: int):
    rate = vat.load(database).at(hanoi(at))
    assert (rate.basis_points, rate.source) == (basis_points, "assumed" if basis_points == 800 else "decree")

"""Amounts as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.money import MAX_PRICE, parse_price


@given(st.integers(0, MAX_PRICE))
def test_plain_digits_are_an_amount(amount: int):
    assert parse_price(str(amount)) == amount


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1.0", "1,000", "1 000", "1e3", "１２", "٣", "1\n", str(MAX_PRICE + 1), "9" * 50]
)
def test_anything_else_is_refused(text: str):
    with pytest.raises(ValueError, match="whole amount"):
        parse_price(text)

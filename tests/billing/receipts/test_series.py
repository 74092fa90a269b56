"""Numbers and signs of the series."""

import re

import pytest

from billing.receipts import series

# Service districts of today, and some of cities that are not Hanoi.
DISTRICTS = ["001", "002", "003", "004", "005", "006", "007", "009", "019", "399"]


def test_a_number_names_year_and_district():
    assert series.number_text(2026, "002", 123) == "2026-002-0000123"


def test_signs_are_those_of_coded_invoices_from_cash_registers():
    assert series.sign(2026, "002") == "1C26MAC"
    signs = {series.sign(2026, district) for district in DISTRICTS}
    assert len(signs) == len(DISTRICTS)
    assert all(re.fullmatch(r"1C26M[ABCDEGHKLMNPQRSTUVXY]{2}", sign) for sign in signs)


@pytest.mark.parametrize("district", ["mitte", "5678", "²"])
def test_other_codes_have_a_sign_that_stays(district: str):
    assert re.fullmatch(r"1C27M[A-Y]{2}", series.sign(2027, district))
    assert series.sign(2027, district) == series.sign(2027, district)

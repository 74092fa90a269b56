"""Amounts in words, as Vietnamese invoices write them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.einvoices.words import in_words

UNITS = {
    "không": 0,
    "một": 1,
    "mốt": 1,
    "hai": 2,
    "ba": 3,
    "bốn": 4,
    "năm": 5,
    "lăm": 5,
    "sáu": 6,
    "bảy": 7,
    "tám": 8,
    "chín": 9,
}


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (0, "Không đồng"),
        (5_000, "Năm nghìn đồng"),
        (15_000, "Mười lăm nghìn đồng"),
        (21_000, "Hai mươi mốt nghìn đồng"),
        (25_000, "Hai mươi lăm nghìn đồng"),
        (11, "Mười một đồng"),
        (105_000, "Một trăm linh năm nghìn đồng"),
        (345_000, "Ba trăm bốn mươi lăm nghìn đồng"),
        (1_000_005, "Một triệu không trăm linh năm đồng"),
        (2_050_010, "Hai triệu không trăm năm mươi nghìn không trăm mười đồng"),
        (1_000_000_000, "Một tỷ đồng"),
        (3_000_000_015, "Ba tỷ không trăm mười lăm đồng"),
        (-25_000, "Âm hai mươi lăm nghìn đồng"),
    ],
)
def test_in_words(amount: int, words: str):
    assert in_words(amount) == words


def read(words: str) -> int:
    """The other way round, word by word."""
    total = group = digit = 0
    for word in words.lower().removesuffix(" đồng").removeprefix("âm ").split():
        if word in UNITS:
            digit = UNITS[word]
        elif word in ("trăm", "mươi", "mười", "linh"):
            group += {"trăm": 100 * digit, "mươi": 10 * digit, "mười": 10, "linh": 0}[word]
            digit = 0
        else:
            total, group, digit = {
                "nghìn": (total + (group + digit) * 1000, 0, 0),
                "triệu": (total + (group + digit) * 10**6, 0, 0),
                "tỷ": ((total + group + digit) * 10**9, 0, 0),
            }[word]
    return total + group + digit


@given(st.integers(1, 10**12))
def test_words_read_back_as_the_amount(amount: int):
    assert read(in_words(amount)) == read(in_words(-amount)) == amount
    assert not re.search(r"\s\s|^\s|\s$", in_words(amount))

"""Money is integer VND: the dong has no minor unit, so an amount is a plain int."""

import re

CURRENCY = "VND"
# One unit may cost at most this much, so that no sum over a stay passes a bigint.
MAX_PRICE = 1_000_000_000

_DIGITS = re.compile(r"[0-9]{1,10}")


def parse_price(text: str) -> int:
    """Whole VND from plain digits ("25000"). Raises ValueError for anything else, or more than MAX_PRICE."""
    if not _DIGITS.fullmatch(text) or int(text) > MAX_PRICE:
        raise ValueError(f"not a whole amount from 0 to {MAX_PRICE}")
    return int(text)

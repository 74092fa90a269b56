"""Number series: one a year and district, shared by receipts, credit notes and the e-invoices that are made of them."""

import zlib

# The letters of an invoice's series (Circular 32/2025/TT-BTC): 20 of the alphabet.
LETTERS = "ABCDEGHKLMNPQRSTUVXY"
# Form 1 (VAT invoice); C: with a code of the tax authority; M: from a cash register.
FORM, CODED, REGISTER = "1", "C", "M"


def number_text(year: int, district: str, number: int) -> str:
    """A receipt's number as people read it: 2026-002-0000123."""
    return f"{year}-{district}-{number:07d}"


def sign(year: int, district: str) -> str:
    """Form and series of a district's e-invoices: 1C26MAC. The last two letters are the seller's own to choose.

    They are the district's code counted in the series' letters. Codes that are no numbers below 400 are hashed; where
    two of one city meet, the database refuses the second.
    """
    number = int(district) if district.isascii() and district.isdigit() else zlib.crc32(district.encode())
    first, second = divmod(number % len(LETTERS) ** 2, len(LETTERS))
    return f"{FORM}{CODED}{year % 100:02d}{REGISTER}{LETTERS[first]}{LETTERS[second]}"

"""Our reference of a payment: a short code that a driver's bank carries in the text of a transfer.

PARK, ten random characters and a check character, fifteen in all (VietQR takes 25). 0, O, 1 and I are not used. The
check character is taken from the field of 32 elements, one for each character of the alphabet: the sum of the
characters, each times a power of the field's generator, is zero. So one wrong character is always found, and so are two
that changed places, whichever these are (a sum modulo 32 would miss some of either).
"""

import re
import secrets
from collections.abc import Callable, Iterator

ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
PREFIX = "PARK"
RANDOM_CHARACTERS = 10
LENGTH = len(PREFIX) + RANDOM_CHARACTERS + 1

_POLYNOMIAL = 0b100101  # x⁵ + x² + 1, irreducible over two elements, with x as a generator
_VALUES = {character: value for value, character in enumerate(ALPHABET)}
# Banks break lines, and people group: neither a space nor a dash of any kind ends a reference.
_DROPPED = re.compile(r"[\s\u00ad\u200b-\u200d\u2010-\u2015\u2212\ufeff_-]+")
_CANDIDATE = re.compile(f"(?=({PREFIX}[{ALPHABET}]{{{RANDOM_CHARACTERS + 1}}}))")


def new(choice: Callable[[str], str] = secrets.choice) -> str:
    """A reference that nobody can guess (50 random bits)."""
    text = PREFIX + "".join(choice(ALPHABET) for _ in range(RANDOM_CHARACTERS))
    return text + ALPHABET[_twice(_sum(text))]


def is_valid(reference: str) -> bool:
    """Whether a text is written as a reference is, check character included."""
    return bool(_CANDIDATE.match(reference)) and len(reference) == LENGTH and _is_consistent(reference)


def find(text: str) -> list[str]:
    """The references in the text of a transfer, in the order in which they stand there, each once.

    Case does not count, nor do spaces and dashes inside, nor what stands before or behind. A text may hold what looks
    like a reference by chance, one in 32 with the right check character: only that of a payment that we know counts.
    """
    return list(dict.fromkeys(filter(_is_consistent, _candidates(text))))


def _candidates(text: str) -> Iterator[str]:
    return (found[1] for found in _CANDIDATE.finditer(_DROPPED.sub("", text).upper()))


def _is_consistent(reference: str) -> bool:
    return _twice(_sum(reference[:-1])) == _VALUES[reference[-1]]


def _sum(text: str) -> int:
    """The characters weighted by powers of the generator, the last one with the power 0 (Horner's rule)."""
    total = 0
    for character in text:
        total = _twice(total) ^ _VALUES[character]
    return total


def _twice(value: int) -> int:
    """A value times the generator."""
    value <<= 1
    return value ^ _POLYNOMIAL if value >> 5 else value

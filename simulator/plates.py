"""Invented Hanoi plates: as many as a run needs, none twice, all of valid form, in an order that the seed gives.

The last digit makes the sum of the digits a multiple of ten. So a plate with one digit typed wrong is never another
vehicle's plate, and what the service must answer to it is known.
"""

import math
from collections.abc import Callable
from itertools import product

from simulator.trace import TrafficError

PROVINCES = ("29", "30", "31", "32", "33", "40")
LETTERS = "ABCDEFGHKLMNPSTUVXYZ"
# T alone and these pairs are series of their own (temporary, foreign, army firms): no invented vehicle gets them.
SPECIAL_PAIRS = frozenset({"LD", "DA", "KT", "CD", "HC", "MK", "RM"})
SERIALS = 9_999

CAR_SERIES = tuple(f"{province}{letter}-" for province, letter in product(PROVINCES, LETTERS) if letter != "T")
PAIRS = tuple("".join(pair) for pair in product(LETTERS, LETTERS) if "".join(pair) not in SPECIAL_PAIRS)
OLD_SERIES = tuple(f"{letter}{digit}" for letter, digit in product(LETTERS, "123456789"))
MOTORBIKE_SERIES = tuple(f"{province}-{series} " for province, series in product(PROVINCES, PAIRS + OLD_SERIES))
SERIES = {"car": CAR_SERIES, "motorbike": MOTORBIKE_SERIES}


def plates(vehicle_class: str, seed: int) -> Callable[[], str]:
    """A function that gives another plate of the class at each call. It raises TrafficError when all are given out.

    The numbers from 0 to N - 1 are visited once each, in steps that share no factor with N.
    """
    series = SERIES[vehicle_class]
    total = len(series) * SERIALS
    step = next(n for n in range(int(total * 0.618), total) if math.gcd(n, total) == 1)
    given, at = 0, seed * 7_919 % total

    def another() -> str:
        nonlocal given, at
        if given == total:
            raise TrafficError(f"all {total:,} invented {vehicle_class} plates are in use; make a smaller trace")
        given, at = given + 1, (at + step) % total
        number, serial = divmod(at, SERIALS)
        return series[number] + _digits(serial + 1)

    return another


def mistyped(plate: str, place: int, step: int) -> str:
    """The plate with the digit at `place` (0 to 4) of its number moved on by `step` (1 to 9)."""
    at = len(plate) - (6, 5, 4, 2, 1)[place]
    return f"{plate[:at]}{(int(plate[at]) + step) % 10}{plate[at + 1 :]}"


def _digits(serial: int) -> str:
    first = f"{serial:04d}"
    check = -sum(map(int, first)) % 10
    return f"{first[:3]}.{first[3]}{check}"

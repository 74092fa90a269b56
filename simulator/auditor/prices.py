"""The auditor's own price list and its own way to add up a bill, from the decree's table and the project's stated
defaults.

It shares no line with `billing`: an auditor that prices with the code it audits proves nothing. Instants are
microseconds since 1970, money is VND.

- Cars pay by the hour. Every started hour counts, the first at once. Hour n of a stay, counted from its start through
  day and night, costs 1-2: first, 3-4: second, 5 and on: third price by day. Hours that start in one night
  (18:00-06:00) cost the first price each, at most the night's cap.
- Motorbikes pay 5,000 for a day part, 8,000 for a night part, or 12,000 for 24 hours that begin a whole number of 24
  hours after the start: whichever set covers the stay for least.
"""

from functools import lru_cache
from typing import NamedTuple

MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
HANOI = 7 * HOUR  # UTC+7 all year, since 1975
MORNING, EVENING = 6 * HOUR, 18 * HOUR

DAY_TURN, NIGHT_TURN, FULL_DAY = 5_000, 8_000, 12_000


class CarPrices(NamedTuple):
    """VND an hour by step, and what one night costs at most."""

    first: int
    second: int
    third: int
    night_cap: int


# Decision 44/2017/QĐ-UBND for `core` and the first step of `restricted`; the rest is assumed in the same ratios.
CARS = {
    "restricted": CarPrices(30_000, 42_000, 54_000, 180_000),
    "core": CarPrices(25_000, 35_000, 45_000, 150_000),
    "inside_ring_3": CarPrices(20_000, 28_000, 36_000, 120_000),
    "beyond_ring_3": CarPrices(15_000, 21_000, 27_000, 90_000),
}

# Which prices a zone has: the twelve streets of Hoàn Kiếm, else by district (GSO codes).
HOAN_KIEM = "002"
RESTRICTED_STREETS = frozenset(
    {
        "Nguyễn Xí", "Đinh Lễ", "Lý Thái Tổ", "Trần Hưng Đạo", "Lý Thường Kiệt", "Hai Bà Trưng",
        "Hàng Đường", "Hàng Đào", "Hàng Ngang", "Hàng Giấy", "Phủ Doãn", "Quán Sứ",
    }
)  # fmt: skip
AREAS = {
    "001": "core", "002": "core", "006": "core", "007": "core",
    "003": "inside_ring_3", "005": "inside_ring_3", "009": "inside_ring_3",
    "004": "beyond_ring_3", "019": "beyond_ring_3",
}  # fmt: skip


def area_of(district: str, street: str) -> str | None:
    """The price area of a street by the decree; None for a district that is none of the nine."""
    if district == HOAN_KIEM and street.removeprefix("Phố ").removeprefix("Đường ") in RESTRICTED_STREETS:
        return "restricted"
    return AREAS.get(district)


class NoPrice(Exception):
    """The list has no price for this area and class."""


@lru_cache(maxsize=4096)
def fee(area: str, vehicle_class: str, start: int, end: int) -> int:
    """What a stay from `start` to `end` costs. Raises NoPrice."""
    if vehicle_class == "motorbike" and area in CARS:
        return _turns(start, end)
    if vehicle_class == "car" and area in CARS:
        return _hours(CARS[area], start, end)
    raise NoPrice(f"no price for a {vehicle_class} in {area}")


def _hours(prices: CarPrices, start: int, end: int) -> int:
    by_day = 0
    nights: dict[int, int] = {}
    number, at = 0, start
    while number == 0 or at < end:
        number += 1
        clock = (at + HANOI) % DAY
        if MORNING <= clock < EVENING:
            by_day += prices.first if number <= 2 else prices.second if number <= 4 else prices.third
        else:
            night = (at + HANOI - EVENING) // DAY
            nights[night] = min(nights.get(night, 0) + prices.first, prices.night_cap)
        at += HOUR
    return by_day + sum(nights.values())


def _turns(start: int, end: int) -> int:
    """The cheapest way from the start past the end: least[p] is what it costs to have paid up to p."""
    least = {start: 0}
    while True:
        paid_to = min(least)
        paid = least.pop(paid_to)
        if paid_to >= end and paid_to > start:
            return min([paid, *least.values()])
        turn = NIGHT_TURN if _is_night(paid_to) else DAY_TURN
        full_day_began = start + (paid_to - start) // DAY * DAY
        for reached, price in ((_next_cut(paid_to), turn), (full_day_began + DAY, FULL_DAY)):
            least[reached] = min(least.get(reached, paid + price), paid + price)


def _is_night(at: int) -> bool:
    return not MORNING <= (at + HANOI) % DAY < EVENING


def _next_cut(at: int) -> int:
    """The next 06:00 or 18:00 after `at`."""
    midnight = at - (at + HANOI) % DAY
    return next(cut for cut in (midnight + MORNING, midnight + EVENING, midnight + DAY + MORNING) if cut > at)

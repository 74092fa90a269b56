"""What a stay costs: the bills of the decree, and the rules that hold for every rate and every stay."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from billing.rates import Rate, Step, fee_steps, price
from tests.billing import rate_oracle
from tests.billing.rate_examples import CORE, HANOI, MONTH, MOTORBIKE, US, hanoi, lengths, rates, starts

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def total(rate: Rate, start: str, **stay: float) -> int:
    return price(rate, hanoi(start), hanoi(start).astimezone(UTC) + timedelta(**stay)).total


@pytest.mark.parametrize(
    ("hours", "amount"),
    [(1, 25_000), (2, 50_000), (3, 85_000), (4, 120_000), (5, 165_000), (8, 300_000), (9, 345_000)],
)
def test_golden_bills_of_a_day_in_the_core(hours: int, amount: int):
    assert total(CORE, "2026-11-23T07:00", hours=hours) == amount
    assert total(CORE, "2026-11-23T07:00", hours=hours, microseconds=-1) == amount
    assert total(CORE, "2026-11-23T07:00", hours=hours, microseconds=1) > amount


@pytest.mark.parametrize(
    ("rate", "start", "hours", "amount"),
    [
        (CORE, "2026-11-23T18:00", 1, 25_000),
        (CORE, "2026-11-23T18:00", 5, 125_000),
        (CORE, "2026-11-23T18:00", 6, 150_000),
        (CORE, "2026-11-23T18:00", 12, 150_000),  # a whole night
        (CORE, "2026-11-23T18:00", 13, 150_000 + 45_000),  # hour 13 is past the second step
        (CORE, "2026-11-23T17:00", 13, 25_000 + 150_000),
        (CORE, "2026-11-23T17:00", 14, 25_000 + 150_000 + 45_000),
        (CORE, "2026-11-23T16:30", 3, 25_000 + 25_000 + 25_000),  # 17:30 straddles 18:00 and belongs to the day
        (CORE, "2026-11-23T16:30", 4, 25_000 + 25_000 + 25_000 * 2),
        (CORE, "2026-11-23T05:30", 2, 25_000 + 25_000),  # 05:30 straddles 06:00 and belongs to the night
        (CORE, "2026-11-23T05:30", 3, 25_000 + 25_000 + 35_000),
        (CORE, "2026-11-23T06:00", 24, 2 * 25_000 + 2 * 35_000 + 8 * 45_000 + 150_000),
        (CORE, "2026-11-23T18:00", 48, 2 * (150_000 + 12 * 45_000)),  # each night has its own cap
        (MOTORBIKE, "2026-11-23T07:00", 1, 5_000),
        (MOTORBIKE, "2026-11-23T06:00", 12, 5_000),  # to 18:00 sharp: no night
        (MOTORBIKE, "2026-11-23T18:00", 12, 8_000),
        (MOTORBIKE, "2026-11-23T17:00", 2, 12_000),  # 5,000 + 8,000, but 24 hours cost 12,000
        (MOTORBIKE, "2026-11-23T17:00", 24, 12_000),  # day, night, day
        (MOTORBIKE, "2026-11-23T17:00", 24.5, 17_000),  # and a day turn
        (MOTORBIKE, "2026-11-23T17:00", 25.5, 24_000),  # day and night again: another 24 hours
        (MOTORBIKE, "2026-11-23T05:00", 2, 12_000),
        (MOTORBIKE, "2026-11-23T18:00", 25, 20_000),  # 24 hours, then a night turn that begins just there
        (MOTORBIKE, "2026-11-23T08:00", 72, 36_000),
    ],
)
def test_bills_over_day_and_night(rate: Rate, start: str, hours: float, amount: int):
    assert total(rate, start, hours=hours) == amount


@pytest.mark.parametrize("rate", [CORE, MOTORBIKE, MONTH])
def test_a_stay_of_no_length_costs_the_first_unit(rate: Rate):
    bill = price(rate, hanoi("2026-11-23T07:00"), hanoi("2026-11-23T07:00"))
    assert bill.total == price(rate, hanoi("2026-11-23T07:00"), hanoi("2026-11-23T07:01")).total > 0
    assert len(bill.lines) == 1


def test_lines_say_what_each_part_costs():
    #   17:00    18:00            00:00        06:00  06:30
    #     |  day   | 6 × 25,000     | 6 × 0      | day |      the night is capped at six hours
    lines = price(CORE, hanoi("2026-11-23T17:00"), hanoi("2026-11-24T06:30")).lines
    assert [(line.start.astimezone(HANOI).hour, line.units, line.price, line.amount) for line in lines] == [
        (17, 1, 25_000, 25_000),
        (18, 6, 25_000, 150_000),
        (0, 6, 0, 0),
        (6, 1, 45_000, 45_000),
    ]
    assert lines[-1].end == hanoi("2026-11-24T06:30")
    assert all(line.unit == "hour" for line in lines)


def test_a_cap_that_is_no_multiple_of_the_price_charges_the_rest_once():
    rate = replace(CORE, night_cap=60_000)
    lines = price(rate, hanoi("2026-11-23T18:00"), hanoi("2026-11-24T06:00")).lines
    assert [(line.units, line.price) for line in lines] == [(2, 25_000), (1, 10_000), (9, 0)]


def test_full_days_are_one_line_and_never_a_made_up_price():
    lines = price(MOTORBIKE, hanoi("2026-11-23T17:00"), hanoi("2026-11-25T17:30")).lines
    assert [(line.units, line.price) for line in lines] == [(2, 12_000), (1, 5_000)]


def test_turns_run_on_over_a_full_24_hours_where_a_full_day_is_dearer():
    # The day turn that runs when 24 hours are full was paid already; a dear full-day price must not charge it again.
    rate = replace(MOTORBIKE, full_day=Step(1, 17_000, "assumed"))
    assert total(rate, "2026-11-23T08:00", hours=23) == 17_000
    assert total(rate, "2026-11-23T08:00", hours=25) == 18_000
    assert total(replace(rate, full_day=None), "2026-11-23T08:00", hours=25) == 18_000


def test_daily_cap_counts_by_local_calendar_day():
    rate = replace(CORE, daily_cap=40_000)
    assert total(rate, "2026-11-23T08:00", hours=16) == 40_000
    assert total(rate, "2026-11-23T08:00", hours=17) == 65_000
    assert total(rate, "2026-11-23T08:00", hours=40) == 80_000


def test_free_minutes_come_off_the_begin_of_the_stay():
    rate = replace(CORE, free_minutes=15)
    assert total(rate, "2026-11-23T08:00", minutes=0) == 0
    assert total(rate, "2026-11-23T08:00", minutes=15) == 0
    assert total(rate, "2026-11-23T08:00", minutes=15, microseconds=1) == 25_000
    assert total(rate, "2026-11-23T08:00", minutes=135) == 50_000
    assert [line.units for line in price(rate, hanoi("2026-11-23T08:00"), hanoi("2026-11-23T08:30")).lines] == [0, 1]


def test_a_night_without_a_price_of_its_own_costs_the_first_step():
    assert total(replace(CORE, night=None), "2026-11-23T18:00", hours=12) == 150_000


def test_months_are_local_calendar_months():
    assert total(MONTH, "2026-11-01T00:00", days=30) == 3_000_000
    assert total(MONTH, "2026-11-01T00:00", days=30, microseconds=1) == 6_000_000
    assert total(MONTH, "2026-12-31T23:59", minutes=2) == 6_000_000
    assert total(MONTH, "2028-02-01T00:00", days=29) == 3_000_000  # the leap day is in February
    assert total(MONTH, "2028-01-31T12:00", days=30) == 9_000_000


@pytest.mark.parametrize(
    ("start", "end", "amount"),
    [
        # 29 March 2026: 02:00 becomes 03:00, so the night from 18:00 to 06:00 has 11 hours.
        ("2026-03-28T18:00", "2026-03-29T06:00", 11 * 10_000),
        ("2026-03-28T18:00", "2026-03-29T07:00", 11 * 10_000 + 45_000),
        # 25 October 2026: 03:00 becomes 02:00, and it has 13.
        ("2026-10-24T18:00", "2026-10-25T06:00", 13 * 10_000),
        ("2026-10-24T18:00", "2026-10-25T07:00", 13 * 10_000 + 45_000),
    ],
)
def test_nights_in_which_clocks_change(start: str, end: str, amount: int):
    rate = replace(CORE, timezone="Europe/Berlin", night=Step(1, 10_000, "assumed"), night_cap=None)
    berlin = ZoneInfo("Europe/Berlin")
    first, last = (datetime.fromisoformat(text).replace(tzinfo=berlin) for text in (start, end))
    assert price(rate, first, last).total == amount


def test_an_instant_without_a_time_zone_is_refused():
    aware, naive = hanoi("2026-11-23T07:00"), datetime(2026, 11, 23, 8)  # noqa: DTZ001
    for start, end in ((naive, aware), (aware, naive)):
        with pytest.raises(ValueError, match="time zone"):
            price(CORE, start, end)
        with pytest.raises(ValueError, match="time zone"):
            fee_steps(CORE, start, end)


def test_an_end_before_the_start_is_refused():
    with pytest.raises(ValueError, match="before"):
        price(CORE, hanoi("2026-11-23T07:00"), hanoi("2026-11-23T06:59"))


def owed(after: Sequence[int], amounts: Sequence[int], stay: timedelta) -> int:
    return amounts[bisect_right(after, stay // US) - 1]


def test_a_stay_priced_in_steps_is_known_up_to_its_horizon_and_no_further():
    start = hanoi("2026-11-23T07:00")
    after, amounts = fee_steps(CORE, start, start + 2 * HOUR)
    assert (after, amounts) == ((0, 3_600_000_001), (25_000, 50_000))
    until = [*after, 2 * HOUR // US + 1]
    assert owed(until, amounts, HOUR) == 25_000
    assert owed(until, amounts, 2 * HOUR) == 50_000
    with pytest.raises(IndexError):
        owed(until, amounts, 2 * HOUR + US)


@given(rates, starts, lengths)
@example(CORE, hanoi("2026-11-23T17:30"), timedelta(hours=40))
@example(MOTORBIKE, hanoi("2026-11-23T17:00"), timedelta(hours=73))
def test_agrees_with_a_slow_count_on_the_wall_clock(rate: Rate, start: datetime, length: timedelta):
    assert price(rate, start, start + length).total == rate_oracle.fee(rate, start, start + length)


@given(rates, starts, lengths, lengths)
def test_never_negative_and_never_cheaper_for_longer(
    rate: Rate, start: datetime, length: timedelta, further: timedelta
):
    shorter = price(rate, start, start + length).total
    assert 0 <= shorter <= price(rate, start, start + length + further).total


@given(rates, starts, lengths)
def test_lines_follow_each_other_and_add_up(rate: Rate, start: datetime, length: timedelta):
    bill = price(rate, start, start + length)
    assert bill.total == sum(line.amount for line in bill.lines)
    assert all(line.amount == line.units * line.price and line.units >= 0 for line in bill.lines)
    assert all(line.start.utcoffset() == timedelta(0) for line in bill.lines)
    edges = [bill.lines[0].start, *(line.end for line in bill.lines)]
    assert edges[0] == start and edges[-1] == start + length
    assert [line.start for line in bill.lines] == edges[:-1]
    assert all(line.start < line.end for line in bill.lines) or length == timedelta(0)


@given(rates, starts, lengths)
def test_steps_agree_with_the_price_at_and_around_each_of_them(rate: Rate, start: datetime, length: timedelta):
    after, amounts = fee_steps(rate, start, start + length)
    assert after[0] == 0 and len(after) == len(amounts)
    assert list(after) == sorted(set(after)) and list(amounts) == sorted(set(amounts))
    for step in {0, length // US, *after, *(step - 1 for step in after[1:])}:
        assert owed(after, amounts, step * US) == price(rate, start, start + step * US).total
    assert after[-1] <= length // US


@given(rates, starts, lengths, lengths)
@example(CORE, hanoi("2026-11-23T17:30"), timedelta(hours=40), timedelta(hours=2))
@example(CORE, hanoi("2026-11-23T17:30"), timedelta(hours=2), timedelta(hours=2))
def test_after_time_that_a_right_makes_free_a_stay_costs_as_if_it_began_there(
    rate: Rate, start: datetime, length: timedelta, by_right: timedelta
):
    free = max(by_right, timedelta(minutes=rate.free_minutes))
    rest = replace(rate, free_minutes=0)
    after, amounts = fee_steps(rate, start, start + length, start + by_right)
    for stay in {timedelta(0), length, *(step * US for step in after), *((step - 1) * US for step in after[1:])}:
        expected = 0 if free and stay <= free else price(rest, start + free, start + stay).total
        bill = price(rate, start, start + stay, start + by_right)
        assert bill.total == owed(after, amounts, stay) == expected == sum(line.amount for line in bill.lines)


@given(rates, starts, lengths, lengths)
def test_a_right_that_ended_before_the_stay_changes_nothing(
    rate: Rate, start: datetime, length: timedelta, ago: timedelta
):
    assert price(rate, start, start + length, start - ago) == price(rate, start, start + length)
    assert fee_steps(rate, start, start + length, start - ago) == fee_steps(rate, start, start + length)


@given(rates, starts, lengths, st.sampled_from(["Asia/Ho_Chi_Minh", "Europe/Berlin", "America/New_York"]))
def test_the_zone_of_the_arguments_does_not_matter(rate: Rate, start: datetime, length: timedelta, name: str):
    zone = ZoneInfo(name)
    bill = price(rate, start, start + length)
    assert price(rate, start.astimezone(zone), (start + length).astimezone(zone)) == bill


@given(starts, lengths)
def test_a_hanoi_day_later_costs_the_same(start: datetime, length: timedelta):
    for rate in (CORE, MOTORBIKE):
        assert price(rate, start, start + length).total == price(rate, start + DAY, start + DAY + length).total


def test_a_stay_of_a_year_is_priced_like_any_other():
    start = hanoi("2026-01-01T00:00")
    # It begins and ends at midnight: 366 capped nights, 365 days of 12 hours at the last step.
    assert price(CORE, start, start + 365 * DAY).total == 366 * 150_000 + 365 * 12 * 45_000

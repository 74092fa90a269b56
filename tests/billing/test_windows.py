"""Where local clocks cut a stay."""

from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from billing.windows import DAY, Windows, cuts, instant, microseconds, months
from tests.billing.rate_examples import US, ZONES, starts

BERLIN = ZoneInfo("Europe/Berlin")


def shown(timezone: str, begin: datetime, end: datetime, *clocks: time | None, midnight: bool = False) -> list[str]:
    found = cuts(Windows(timezone, *clocks, midnight), microseconds(begin), microseconds(end))
    return [f"{instant(at).astimezone(ZoneInfo(timezone)):%d %H:%M} {kind}" for at, kind in found]


def test_a_stay_begins_in_its_part_and_is_cut_before_its_end_only():
    begin = datetime(2026, 11, 23, 6, tzinfo=ZoneInfo("Asia/Ho_Chi_Minh"))
    args = ("Asia/Ho_Chi_Minh", begin, begin + timedelta(hours=12))
    assert shown(*args, time(6), time(18)) == ["23 06:00 day"]
    assert shown(*args[:2], args[2] + US, time(6), time(18)) == ["23 06:00 day", "23 18:00 night"]
    assert shown(args[0], begin - US, args[2], time(6), time(18)) == ["23 05:59 night", "23 06:00 day"]
    assert shown(*args, None, None) == ["23 06:00 day"]


def test_midnight_leaves_the_part_as_it_is():
    begin = datetime(2026, 11, 23, 23, tzinfo=ZoneInfo("Asia/Ho_Chi_Minh"))
    found = shown("Asia/Ho_Chi_Minh", begin, begin + timedelta(hours=8), time(6), time(18), midnight=True)
    assert found == ["23 23:00 night", "24 00:00 midnight", "24 06:00 day"]
    later = shown("Asia/Ho_Chi_Minh", begin + timedelta(hours=2), begin + timedelta(hours=3), time(6), time(18))
    assert later == ["24 01:00 night"]


def test_a_cut_that_the_clock_shows_twice_is_the_first_and_one_it_skips_lies_where_it_would_have_been():
    #  25 October: … 02:30 (first) 02:59 | 02:00 02:30 …       29 March: … 01:59 | 03:00 03:30 …
    back = datetime(2026, 10, 25, 0, tzinfo=UTC)
    found = cuts(
        Windows("Europe/Berlin", time(2, 30), time(18), False), microseconds(back), microseconds(back) + DAY // 4
    )
    assert [instant(cut.at) for cut in found[1:]] == [back + timedelta(minutes=30)]
    forward = datetime(2026, 3, 29, 0, tzinfo=UTC)
    found = cuts(
        Windows("Europe/Berlin", time(2, 30), time(18), False), microseconds(forward), microseconds(forward) + DAY // 4
    )
    assert [instant(cut.at) for cut in found[1:]] == [forward + timedelta(minutes=90)]


@given(st.sampled_from(ZONES), starts, st.integers(0, 90), st.integers(3, 23), st.integers(3, 23))
def test_each_instant_of_a_stay_lies_in_the_part_that_its_wall_clock_says(
    timezone: str, begin: datetime, hours: int, day: int, night: int
):
    if day == night:
        return
    end = begin + timedelta(hours=hours)
    found = cuts(Windows(timezone, time(day), time(night), False), microseconds(begin), microseconds(end))
    assert found[0].at == microseconds(begin)
    assert found == sorted(found)
    for at, kind in found:
        hour = instant(at).astimezone(ZoneInfo(timezone)).hour
        is_day = day <= hour < night if day < night else not night <= hour < day
        assert kind == ("day" if is_day else "night")
    assert all(one.kind != other.kind for one, other in pairwise(found))


@given(st.sampled_from(ZONES), starts, st.integers(0, 400))
def test_months_begin_at_local_midnight_of_the_first(timezone: str, begin: datetime, days: int):
    end = begin + timedelta(days=days)
    firsts = [
        instant(at).astimezone(ZoneInfo(timezone)) for at in months(timezone, microseconds(begin), microseconds(end))
    ]
    assert all((first.day, first.hour, first.minute) == (1, 0, 0) and begin < first < end for first in firsts)
    first, last = begin.astimezone(ZoneInfo(timezone)), max(begin, end - US).astimezone(ZoneInfo(timezone))
    assert len(firsts) == (last.year - first.year) * 12 + last.month - first.month

"""Rates to test with: those that are shipped, and any other that could be made."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from billing.rates import Rate, Step

HANOI = ZoneInfo("Asia/Ho_Chi_Minh")
US = timedelta(microseconds=1)


def hanoi(text: str) -> datetime:
    """An instant as Hanoi's clocks show it."""
    return datetime.fromisoformat(text).replace(tzinfo=HANOI)


CORE = Rate(
    version="core-car",
    rate_area="core",
    vehicle_class="car",
    unit="hour",
    valid_from=hanoi("2018-01-01"),
    valid_to=None,
    timezone="Asia/Ho_Chi_Minh",
    day_start=time(6),
    night_start=time(18),
    day=(Step(1, 25_000, "decree"), Step(3, 35_000, "decree"), Step(5, 45_000, "decree")),
    night=Step(1, 25_000, "decree"),
    night_cap=150_000,
)
MOTORBIKE = replace(
    CORE,
    version="core-motorbike",
    vehicle_class="motorbike",
    unit="turn",
    day=(Step(1, 5_000, "decree"),),
    night=Step(1, 8_000, "decree"),
    full_day=Step(1, 12_000, "decree"),
    night_cap=None,
)
MONTH = replace(
    CORE,
    version="core-car-month",
    unit="month",
    day=(Step(1, 2_000_000, "decree"),),
    night=None,
    full_day=Step(1, 3_000_000, "decree"),
    night_cap=None,
    day_start=None,
    night_start=None,
)

ZONES = ("Asia/Ho_Chi_Minh", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")
prices = st.sampled_from([0, 1, 5_000, 8_000, 12_000, 25_000, 35_000]) | st.integers(0, 100_000)
maybe_price = st.none() | st.integers(0, 300_000)
# Whole hours from 03:00 on: no clock is put forward or back there, so tests can tell a cut by the wall clock alone.
clock_pairs = st.tuples(st.integers(4, 23), st.integers(4, 23)).filter(lambda pair: pair[0] != pair[1])


@st.composite
def windows(draw: st.DrawFn) -> dict[str, object]:
    """A time zone with a day and a night, or (seldom) without."""
    timezone = draw(st.sampled_from(ZONES))
    if draw(st.integers(0, 4)) == 0:
        return {"timezone": timezone, "day_start": None, "night_start": None}
    day, night = draw(st.sampled_from([(6, 18)]) | clock_pairs)
    return {"timezone": timezone, "day_start": time(day), "night_start": time(night)}


@st.composite
def hour_rates(draw: st.DrawFn) -> Rate:
    later = draw(st.lists(st.integers(2, 30), unique=True, max_size=3).map(sorted))
    clock = draw(windows())
    return replace(
        CORE,
        **clock,
        day=tuple(Step(unit, draw(prices), "assumed") for unit in [1, *later]),
        night=draw(st.none() | prices.map(lambda price: Step(1, price, "assumed"))) if clock["day_start"] else None,
        night_cap=draw(maybe_price) if clock["day_start"] else None,
        daily_cap=draw(maybe_price),
        free_minutes=draw(st.sampled_from([0, 0, 0, 1, 15, 90])),
    )


@st.composite
def turn_rates(draw: st.DrawFn) -> Rate:
    clock = draw(windows())
    return replace(
        MOTORBIKE,
        **clock,
        day=(Step(1, draw(prices), "assumed"),),
        night=Step(1, draw(prices), "assumed") if clock["day_start"] else None,
        full_day=draw(st.none() | prices.map(lambda price: Step(1, price, "assumed"))),
        free_minutes=draw(st.sampled_from([0, 0, 0, 10])),
    )


month_rates = st.builds(
    lambda timezone, price, free: replace(
        MONTH, timezone=timezone, full_day=Step(1, price, "assumed"), free_minutes=free
    ),
    st.sampled_from(ZONES),
    prices,
    st.sampled_from([0, 30]),
)
rates = hour_rates() | turn_rates() | month_rates

# Near what could go wrong: day and night, midnight, month and year ends, the leap day, clocks put forward and back.
EDGES = [
    hanoi("2026-11-23T06:00"),
    hanoi("2026-11-23T18:00"),
    hanoi("2026-11-24T00:00"),
    hanoi("2026-02-28T23:00"),
    hanoi("2028-02-29T05:00"),
    hanoi("2026-12-31T20:00"),
    datetime(2026, 3, 29, 1, tzinfo=UTC),  # Berlin: 02:00 becomes 03:00
    datetime(2026, 10, 25, 1, tzinfo=UTC),  # Berlin: 03:00 becomes 02:00
    datetime(2026, 11, 1, 6, tzinfo=UTC),  # New York: 02:00 becomes 01:00
    datetime(2026, 10, 3, 15, 30, tzinfo=UTC),  # Lord Howe: half an hour forward
]
offsets = (
    st.integers(-36, 36).map(lambda hours: timedelta(hours=hours))
    | st.integers(-2_000, 2_000).map(lambda minutes: timedelta(minutes=minutes))
    | st.integers(-130_000_000_000, 130_000_000_000).map(lambda us: timedelta(microseconds=us))
)
starts = st.builds(lambda edge, offset: edge.astimezone(UTC) + offset, st.sampled_from(EDGES), offsets)
lengths = (
    st.sampled_from([timedelta(0), US, timedelta(minutes=15), timedelta(hours=12), timedelta(hours=24)])
    | st.integers(0, 80).map(lambda hours: timedelta(hours=hours))
    | st.integers(0, 60).map(lambda hours: timedelta(hours=hours, microseconds=1))
    | st.integers(0, 300_000_000_000).map(lambda us: timedelta(microseconds=us))
)

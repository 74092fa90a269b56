"""Invented traffic: it follows its parameters, keeps to what vehicles can do, and comes out the same for the same seed.

Statistical bounds are five standard deviations with fixed seeds: a right model passes always, a wrong one does not.
"""

import itertools
import math
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import demand, trace
from simulator.arrivals import HOUR, Arrivals, arrivals, expected_sessions
from simulator.city import City
from simulator.parameters import Parameters, load
from simulator.stays import MINUTE, Kind, Stays, draw_arriving, draw_dwell, draw_stock
from simulator.trace import Event
from tests.simulator.cities import small_city, zone
from zones.plates import parse

MONDAY = datetime.fromisoformat("2026-11-23T07:00:00+07:00")
MORNING = 3 * HOUR
PARAMETERS = load()
SHIPPED = City.from_geojson(Path(__file__).parents[2] / "zones" / "data" / "zones.geojson")


def flow(start: datetime = MONDAY, scale: float = 1.0, parameters: Parameters = PARAMETERS) -> Arrivals:
    return arrivals(small_city(), parameters, start, seed=7, scale=scale)


def morning(seed: int = 7, sessions: int = 1500, city: City | None = None, start: datetime = MONDAY) -> list[Event]:
    made = demand.make(city or small_city(), PARAMETERS, start, MORNING, seed=seed, sessions=sessions)
    return list(made[1])


def changed(**tables: Any) -> Parameters:
    """The shipped parameters with some values changed: changed(stay={"never_stopped": 1.0})."""
    document = msgspec.to_builtins(PARAMETERS)
    for table, values in tables.items():
        document[table] |= values
    return msgspec.convert(document, Parameters)


def near(count: float, mean: float, sigmas: float = 5.0) -> bool:
    """Whether a Poisson count is within bounds of its mean."""
    return abs(count - mean) <= sigmas * math.sqrt(mean)


# --- arrivals ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("index", range(len(PARAMETERS.land_uses)))
def test_arrivals_of_each_hour_follow_the_rate(index: int) -> None:
    busy = flow(scale=20)
    midnight = -7 * HOUR
    times = busy.draw(np.random.default_rng(index), index, midnight, midnight + 24 * HOUR)
    counts = np.histogram(times, bins=24, range=(midnight, midnight + 24 * HOUR))[0]
    for hour, count in enumerate(counts):
        mean = busy.expected(index, midnight + hour * HOUR, midnight + (hour + 1) * HOUR)
        assert near(count, mean), f"hour {hour}: {count} arrivals, {mean:.1f} expected"
    assert (np.diff(times) >= 0).all()


def test_a_day_has_the_stays_that_its_places_draw() -> None:
    quiet = flow(parameters=changed(pressure={"spread": 0.0, "small_strict_factor": 1.0}))
    places = {"002": (86, 160), "006": (60, 130)}  # cars, motorbikes
    drawn = sum(
        (cars * PARAMETERS.stays_per_place.car + bikes * PARAMETERS.stays_per_place.motorbike)
        * PARAMETERS.district(code).pressure
        for code, (cars, bikes) in places.items()
    )
    day = sum(quiet.expected(index, -7 * HOUR, 17 * HOUR) for index in range(len(quiet.uses)))
    assert day == pytest.approx(drawn)


def test_within_an_hour_the_rate_is_linear() -> None:
    # From rate a to rate b the mean time is 1/2 + (b - a) / (6 (a + b)) of the hour; a flat rate would give 1/2.
    busy, index = flow(scale=400), list(PARAMETERS.land_uses).index("office")
    low, high = PARAMETERS.land_uses["office"].profile.weekday[6:8]
    times = busy.draw(np.random.default_rng(3), index, -HOUR, 0.0)
    mean = 0.5 + (high - low) / (6 * (high + low))
    deviation = 1 / math.sqrt(12 * len(times))
    assert (times.mean() + HOUR) / HOUR == pytest.approx(mean, abs=5 * deviation)


@given(
    begin=st.floats(-30 * HOUR, 60 * HOUR),
    first=st.floats(1, 30 * HOUR),
    second=st.floats(1, 30 * HOUR),
    index=st.integers(0, len(PARAMETERS.land_uses) - 1),
)
def test_integral_of_the_rate_adds_up_over_midnights_and_weekends(
    begin: float, first: float, second: float, index: int
) -> None:
    friday = flow(start=MONDAY - timedelta(days=3))
    parts = friday.expected(index, begin, begin + first) + friday.expected(index, begin + first, begin + first + second)
    assert friday.expected(index, begin, begin + first + second) == pytest.approx(parts)
    assert parts > 0


def test_days_follow_their_type() -> None:
    kinds = {day: PARAMETERS.day_type(datetime.fromisoformat(day).date()) for day in DAY_TYPES}
    assert kinds == DAY_TYPES
    office = list(PARAMETERS.land_uses).index("office")
    saturday = flow(start=datetime.fromisoformat("2026-11-28T00:00+07:00")).expected(office, 0, 24 * HOUR)
    monday = flow(start=datetime.fromisoformat("2026-11-23T00:00+07:00")).expected(office, 0, 24 * HOUR)
    volume = PARAMETERS.land_uses["office"].volume
    assert saturday / monday == pytest.approx(volume.weekend / volume.weekday)


DAY_TYPES = {
    "2026-11-23": "weekday",
    "2026-11-28": "weekend",
    "2026-11-29": "weekend",
    "2026-09-02": "holiday",
    "2027-01-01": "holiday",
    "2026-02-17": "holiday",
}


def test_start_may_be_given_in_any_offset() -> None:
    same = MONDAY.astimezone(datetime.fromisoformat("2026-01-01T00:00+00:00").tzinfo)
    assert flow(start=same).expected(0, 0, MORNING) == pytest.approx(flow().expected(0, 0, MORNING))


def test_zones_get_their_share_by_weight() -> None:
    busy = flow()
    chosen = np.bincount(busy.choose(np.random.default_rng(1), 0, 200_000), minlength=len(busy.spots))
    for count, weight in zip(chosen, busy.weights[0] / busy.weights[0].sum(), strict=True):
        assert near(count, 200_000 * weight)


def test_small_strict_zones_are_wanted_more_and_places_without_bays_never() -> None:
    parameters = changed(pressure={"spread": 0.0})
    alone = City((zone("HK-001", admission="strict", capacity={"car": 6, "motorbike": 26}), zone("HK-002")), ())
    weights = arrivals(alone, parameters, MONDAY, 7).weights.sum(axis=0)
    car, bike, kerb_car, kerb_bike = weights
    assert car / kerb_car == pytest.approx(6 / 20 * parameters.pressure.small_strict_factor)
    assert bike / kerb_bike == pytest.approx(26 / 40)
    assert {spot.zone.code for spot in flow().spots} == {"HK-001", "HK-002", "HK-003", "DD-001", "DD-002"}
    with pytest.raises(ValueError, match="no zone with places"):
        arrivals(City((zone("HK-001", capacity={"car": 0}),), ()), PARAMETERS, MONDAY, 7)


# --- stays ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", PARAMETERS.land_uses)
def test_dwell_times_have_the_median_and_the_tail_of_their_land_use(name: str) -> None:
    use, count = PARAMETERS.land_uses[name], 100_000
    dwell = draw_dwell(np.random.default_rng(5), use, count) / MINUTE
    for part, minutes in ((0.5, use.dwell_median), (0.9, use.dwell_p90)):
        below = float((dwell <= minutes).sum())
        assert abs(below - part * count) <= 5 * math.sqrt(count * part * (1 - part))
    assert np.log(dwell).std() == pytest.approx(use.sigma, rel=0.02)


def test_published_medians_are_kept_to() -> None:
    assert all(60 <= use.dwell_median <= 90 for use in PARAMETERS.land_uses.values())


def test_stock_is_as_large_as_the_arrivals_and_dwell_times_before_make_it() -> None:
    busy = flow(scale=10)
    stock = draw_stock(np.random.default_rng(4), busy, MORNING)
    mean = sum(busy.expected_stock(index, PARAMETERS.stock.hours) for index in range(len(busy.uses)))
    assert near(len(stock), mean)
    first = PARAMETERS.stock.minutes * MINUTE
    assert 0 < stock.start[0] < stock.start[-1] < first
    assert np.diff(stock.start) == pytest.approx(first / len(stock))
    assert len(draw_stock(np.random.default_rng(4), busy, 60.0).start) == len(stock)
    assert draw_stock(np.random.default_rng(4), busy, 60.0).start[-1] < 60


def test_stock_stays_for_the_rest_of_its_dwell_and_no_longer() -> None:
    # Of those who arrived s ago and still stand, P(dwell > s + x) / P(dwell > s) stand x later.
    busy, x, hours = flow(scale=60), 30 * MINUTE, PARAMETERS.stock.hours
    stock = draw_stock(np.random.default_rng(8), busy, MORNING)
    stands = [
        sum(_arrived_and_stands(busy, index, -s, s + later) for index in range(len(busy.uses)) for s in _steps(hours))
        for later in (0.0, x)
    ]
    unbounded = np.isin(stock.kind, [Kind.OPEN, Kind.FORGOTTEN])
    longer = (stock.gone_at - stock.start)[unbounded] > x
    assert_part(int(longer.sum()), len(longer), stands[1] / stands[0])


def _steps(hours: float) -> list[float]:
    return [(step + 0.5) * MINUTE for step in range(int(hours * 60))]


def _arrived_and_stands(busy: Arrivals, index: int, at: float, longer_than: float) -> float:
    use = busy.use(index)
    tail = math.erfc((math.log(longer_than) - use.mu) / use.sigma / math.sqrt(2)) / 2
    return busy.expected(index, at - MINUTE / 2, at + MINUTE / 2) * tail


def test_people_pay_and_leave_in_the_stated_shares() -> None:
    busy = flow(scale=100)
    stays = draw_arriving(np.random.default_rng(6), busy, 0.0, MORNING)
    classes = np.array([busy.spots[spot].vehicle_class for spot in stays.spot])
    one_block = np.array([busy.spots[spot].zone.max_stay_minutes for spot in stays.spot]) < 60
    assert not one_block.any()
    for name in ("car", "motorbike"):
        ours = stays.kind[classes == name]
        assert_part((ours >= Kind.EARLY).sum(), len(ours), getattr(PARAMETERS.stay.prepaid, name))
    opened, paid = stays.kind[stays.kind < Kind.EARLY], stays.kind[stays.kind >= Kind.EARLY]
    assert_part((opened == Kind.FORGOTTEN).sum(), len(opened), PARAMETERS.stay.never_stopped)
    how = PARAMETERS.prepaid
    assert_part((paid == Kind.EARLY).sum(), len(paid), how.early_stop)
    assert_part((paid == Kind.LATE).sum(), len(paid), how.late_stop)
    extended = np.isin(paid, [Kind.EXTENDED, Kind.EXTENDED_OUT])
    assert_part(extended.sum(), len(paid), how.extends)
    assert_part((paid == Kind.EXTENDED).sum(), int(extended.sum()), how.extended_stop)


def assert_part(count: int, of: int, share: float) -> None:
    assert abs(count - share * of) <= 5 * math.sqrt(of * share * (1 - share)), f"{count / of:.3f} instead of {share}"


@given(longest=st.integers(10, 1440), seed=st.integers(0, 1000), block=st.sampled_from([15, 30, 60]))
@settings(max_examples=60, deadline=None)
def test_stays_keep_to_the_longest_stay_and_to_their_own_order(longest: int, seed: int, block: int) -> None:
    city = City((zone("HK-001", max_stay_minutes=longest, capacity={"car": 500}),), ())
    busy = arrivals(city, changed(stay={"block_minutes": block}), MONDAY, seed)
    stays = draw_arriving(np.random.default_rng(seed), busy, 0.0, 2 * HOUR)
    total = stays.minutes + stays.extend_minutes
    assert (total <= longest).all()
    assert ((stays.extend_minutes > 0) == np.isfinite(stays.extend_at)).all()
    assert ((stays.minutes == 0) == (stays.kind < Kind.EARLY)).all()
    assert_order(stays, stays.start + total * MINUTE)
    opened = stays.kind == Kind.OPEN
    assert (stays.stop_at[opened] - stays.start[opened] < longest * MINUTE).all()


def assert_order(stays: Stays, end: Any) -> None:
    """start < extend < first end; an early stop before the last end, a late one after it; nobody else stops."""
    extends = np.isfinite(stays.extend_at)
    assert (stays.start[extends] < stays.extend_at[extends]).all()
    assert (stays.extend_at[extends] < (stays.start + stays.minutes * MINUTE)[extends]).all()
    in_time = np.isin(stays.kind, [Kind.EARLY, Kind.EXTENDED])
    assert (stays.start[in_time] < stays.stop_at[in_time]).all()
    assert (stays.stop_at[in_time] < end[in_time]).all()
    assert (stays.extend_at[stays.kind == Kind.EXTENDED] < stays.stop_at[stays.kind == Kind.EXTENDED]).all()
    late = stays.kind == Kind.LATE
    assert (stays.stop_at[late] > end[late]).all()
    left = np.isin(stays.kind, [Kind.FORGOTTEN, Kind.EXPIRED, Kind.EXTENDED_OUT])
    assert np.isinf(stays.stop_at[left]).all()


# --- the trace --------------------------------------------------------------------------------------------------------
def test_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one", "two", "three")]
    for file, seed in zip(files, (7, 7, 8), strict=True):
        trace.write(file, *demand.make(small_city(), load(), MONDAY, MORNING, seed=seed))
    one, two, three = (file.read_bytes() for file in files)
    assert one == two != three


def test_header_says_what_the_trace_was_made_from() -> None:
    head, _ = demand.make(small_city(), PARAMETERS, MONDAY, MORNING, seed=7)
    assert (head.seed, head.start, head.seconds) == (7, "2026-11-23T07:00:00+07:00", MORNING)
    assert (head.city, head.parameters) == (small_city().digest(), PARAMETERS.digest())


def test_trace_is_in_order_within_its_window_and_for_places_that_exist() -> None:
    city, events = small_city(), morning()
    assert all(one.t <= two.t for one, two in itertools.pairwise(events))
    assert events[0].t >= 0
    assert events[-1].t < MORNING
    assert all(city.by_code[event.zone].serves(event.vehicle_class) for event in events)
    assert {event.action for event in events} == {"start", "stop", "extend", "check"}


@pytest.mark.parametrize("seed", range(4))
def test_number_of_sessions_is_as_asked(seed: int) -> None:
    starts = sum(event.action == "start" for event in morning(seed, sessions=3000))
    assert near(starts, 3000)
    assert expected_sessions(flow(scale=2), MORNING) == pytest.approx(2 * expected_sessions(flow(), MORNING))


def own_events(events: list[Event]) -> dict[str, list[Event]]:
    """Starts, extends and stops by vehicle."""
    found: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.action != "check":
            found[event.vehicle].append(event)
    return found


@given(seed=st.integers(0, 10_000), hour=st.integers(0, 23), day=st.integers(0, 400))
@settings(max_examples=25, deadline=None)
def test_no_vehicle_is_in_two_stays_at_once(seed: int, hour: int, day: int) -> None:
    start = MONDAY.replace(hour=hour) + timedelta(days=day)
    _, made = demand.make(small_city(), PARAMETERS, start, 4 * HOUR, seed=seed, sessions=600)
    for own in own_events(list(made)).values():
        assert own[0].action == "start"
        assert_one_stay_after_another(own)


def assert_one_stay_after_another(own: list[Event]) -> None:
    over: float | None = None  # when the stay under way ends by itself; None: not under way
    for event in own:
        if event.action == "start":
            assert over is None or event.t > over, f"{event.vehicle} starts while parked"
            over = event.t + event.minutes * MINUTE if event.minutes else math.inf
        elif event.action == "extend":
            assert over is not None and event.minutes is not None and event.t < over < math.inf
            over += event.minutes * MINUTE
        else:
            assert over is not None
            over = None


def test_some_vehicles_come_back_and_some_after_their_time_ran_out() -> None:
    again = [own for own in own_events(morning(sessions=4000)).values() if sum(e.action == "start" for e in own) > 1]
    assert len(again) > 20
    restarts = [own for own in again if any(a.action == b.action == "start" for a, b in itertools.pairwise(own))]
    assert restarts


def test_each_vehicle_has_one_valid_plate_of_its_own() -> None:
    plate_of: dict[str, tuple[str, str]] = {}
    events = morning(sessions=4000)
    for event in events:
        if event.action != "check" or event.vehicle.startswith("u"):
            assert plate_of.setdefault(event.vehicle, (event.plate, event.vehicle_class)) == (
                event.plate,
                event.vehicle_class,
            )
    assert len(set(plate_of.values())) == len(plate_of)
    for text, vehicle_class in plate_of.values():
        read = parse(text, vehicle_class)
        assert (read.text, read.vehicle_class) == (text, vehicle_class)


def test_wardens_check_true_mistyped_and_unpaid_plates_here_and_elsewhere() -> None:
    events = morning(sessions=6000)
    parked = {event.vehicle: event for event in events if event.action == "start"}
    driven = {event.plate for event in parked.values()}
    checks = [event for event in events if event.action == "check"]
    seen = Counter(_kind_of_check(event, parked, driven) for event in checks)
    how = PARAMETERS.checks
    for kind in ("mistyped", "unpaid"):
        assert seen[kind] / len(checks) == pytest.approx(getattr(how, kind), rel=0.25)
    assert seen["elsewhere"] > 0
    assert seen["true"] > len(checks) / 2


def _kind_of_check(event: Event, parked: dict[str, Event], driven: set[str]) -> str:
    if event.vehicle.startswith("u"):
        assert event.vehicle not in parked and event.plate not in driven
        return "unpaid"
    start = parked[event.vehicle]
    if event.plate != start.plate:
        assert event.plate not in driven
        assert sum(a != b for a, b in zip(event.plate, start.plate, strict=True)) == 1
        return "mistyped"
    return "true" if event.zone == start.zone else "elsewhere"


@pytest.mark.parametrize("day", ["2026-11-23", "2026-11-28", "2026-11-29", "2026-02-17"])
def test_small_strict_zones_of_the_shipped_city_fill_up_on_any_morning(day: str) -> None:
    start = datetime.fromisoformat(f"{day}T07:00:00+07:00")
    events = list(demand.make(SHIPPED, PARAMETERS, start, MORNING, seed=7)[1])
    assert refused(events, SHIPPED) >= 3


def refused(events: list[Event], city: City) -> int:
    """How many starts find a strict zone full, where only a stop makes room."""
    taken: Counter[tuple[str, str]] = Counter()
    stands: dict[str, tuple[str, str]] = {}
    full = 0
    for event in events:
        place = event.zone, event.vehicle_class
        found = city.by_code[event.zone]
        if event.action == "start" and found.strict:
            if taken[place] >= found.capacity[event.vehicle_class]:
                full += 1
            else:
                taken[stands.setdefault(event.vehicle, place)] += 1
        elif event.action == "stop" and event.vehicle in stands:
            taken[stands.pop(event.vehicle)] -= 1
    return full


def test_default_morning_of_the_shipped_city_has_the_size_of_the_demo() -> None:
    actions = Counter(event.action for event in demand.make(SHIPPED, PARAMETERS, MONDAY, MORNING, seed=7)[1])
    assert 12_000 <= actions["start"] <= 16_000
    assert 30_000 <= actions.total() <= 40_000


def test_events_come_before_all_of_them_are_drawn() -> None:
    _, events = demand.make(small_city(), PARAMETERS, MONDAY, 3650 * 24 * HOUR, seed=7)
    assert next(events).t < HOUR


def test_window_may_be_shorter_than_a_step_and_pass_midnight() -> None:
    late = MONDAY.replace(hour=23, minute=58)
    _, events = demand.make(small_city(), PARAMETERS, late, 250.0, seed=7, sessions=200)
    times = [event.t for event in events]
    assert len(times) > 100
    assert max(times) < 250


def test_demand_of_nil_is_said() -> None:
    nobody = changed(stays_per_place={"car": 0.0, "motorbike": 0.0})
    with pytest.raises(ValueError, match="nobody arrives"):
        demand.make(small_city(), nobody, MONDAY, MORNING, seed=7, sessions=10)
    assert list(demand.make(small_city(), nobody, MONDAY, MORNING, seed=7)[1]) == []

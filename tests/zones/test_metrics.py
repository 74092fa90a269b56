"""Occupancy and revenue against counting by hand: minute by minute, and instant by instant."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from tests.zones.parked import active, at, past, zone
from zones import errors, metrics
from zones.metrics import Page, Position, Question, bounds_of

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
# Two districts; the last zone has an overstay now and then.
ZONES = {"HK-001": "002", "HK-002": "002", "BD-001": "001"}
MIDNIGHT = at("2028-02-29T00:00")  # a leap day, at the end of a month's partition


@pytest.fixture
def connection(engine: Engine, empty_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        zone(connection, "HK-001", "002", car=2, motorbike=3)
        zone(connection, "HK-002", "002", car=1)
        zone(connection, "BD-001", "001", admission="strict", car=0)
        yield connection


def ask(start: datetime, end: datetime, bucket: str = "15m", **more: object) -> Question:
    return Question(**{"now": end + DAY, "start": start, "end": end, "bucket": bucket} | more)


class Stay(NamedTuple):
    """One session of a made-up city. `gone` is None while the vehicle stands."""

    zone: str
    vehicle_class: str
    start: datetime
    over: datetime
    gone: datetime | None
    fee: int

    def stands(self, instant: datetime) -> bool:
        return self.start <= instant and (self.gone is None or instant < self.gone)


def put(connection: psycopg.Connection, number: int, stay: Stay, now: datetime, is_tidied: bool) -> None:
    """Store a session as running, over but not tidied, or past."""
    plate, admission = f"30A-{number:03}.00", "strict" if stay.zone == "BD-001" else "advisory"
    common = {
        "zone": stay.zone, "plate": plate, "vehicle_class": stay.vehicle_class, "fee": stay.fee, "admission": admission,
    }  # fmt: skip
    if stay.gone is not None and (is_tidied or stay.gone != stay.over or admission == "strict"):
        past(connection, stay.start, stay.gone, ends_at=stay.over, **common)
    else:
        active(connection, stay.start, stay.over, **common)


@st.composite
def stays(draw: st.DrawFn, unit: timedelta, span: int, now: datetime) -> Stay:
    """A stay on multiples of `unit`. Most end by themselves; one in a strict zone may go on for days."""
    code, vehicle_class = draw(
        st.sampled_from([("HK-001", "car"), ("HK-001", "motorbike"), ("HK-002", "car"), ("BD-001", "car")])
    )
    start = MIDNIGHT + draw(st.integers(-span // 2, span)) * unit
    over = start + draw(st.integers(1, span)) * unit
    if code == "BD-001":
        gone = draw(st.none() | st.integers(0, 6 * span).map(lambda n: start + n * unit))
    else:
        gone = draw(st.sampled_from([over, over, start, start + (over - start) // 2 // unit * unit]))
    return Stay(
        code,
        vehicle_class,
        start,
        over,
        gone if gone is not None and gone <= now else None,
        draw(st.integers(0, 9)) * 5_000,
    )


class Counted(NamedTuple):
    occupied_us: int
    peak: int
    arrivals: int
    departures: int


def count_by_minutes(stays: list[Stay], start: datetime, end: datetime, now: datetime) -> Counted:
    """Look at each minute of a bucket whose vehicles come and go on whole minutes."""
    instants = [start + n * MINUTE for n in range((end - start) // MINUTE) if start + n * MINUTE <= now]
    standing = [sum(stay.stands(instant) for stay in stays) for instant in instants]
    return Counted(
        sum(n for n, instant in zip(standing, instants, strict=True) if instant < now) * 60_000_000,
        max(standing, default=0),
        sum(start <= stay.start < end and stay.start <= now for stay in stays),
        sum(stay.gone is not None and start <= stay.gone < end for stay in stays),
    )


def count_by_overlaps(stays: list[Stay], start: datetime, end: datetime, now: datetime) -> Counted:
    """Cut each stay to the bucket; a peak is reached when somebody arrives, or was there from the beginning."""
    cut = [(max(stay.start, start), min(stay.gone or now, end)) for stay in stays]
    instants = [start, *(stay.start for stay in stays if start <= stay.start < end)]
    return Counted(
        sum(max(to - since, timedelta()) // timedelta(microseconds=1) for since, to in cut),
        max(sum(stay.stands(instant) for stay in stays) for instant in instants if instant <= now)
        if start <= now
        else 0,
        sum(start <= stay.start < end and stay.start <= now for stay in stays),
        sum(stay.gone is not None and start <= stay.gone < end for stay in stays),
    )


def of_cell(stays: list[Stay], cell: metrics.Cell) -> list[Stay]:
    return [
        stay
        for stay in stays
        if stay.vehicle_class == cell.vehicle_class
        and (stay.zone == cell.zone if cell.zone else ZONES[stay.zone] == cell.district)
    ]


def check_occupancy(connection, question: Question, stays: list[Stay], count) -> None:
    page = metrics.occupancy(connection, question)
    assert page.next is None
    for row in page.rows:
        counted = count(of_cell(stays, row.cell), row.bucket.start, row.bucket.end, question.now)
        assert (row.occupied_us, row.peak, row.arrivals, row.departures) == counted, (row.bucket, row.cell)


def check_revenue(connection, question: Question, stays: list[Stay]) -> None:
    for row in metrics.revenue(connection, question).rows:
        charged = [
            stay.fee
            for stay in of_cell(stays, row.cell)
            if stay.gone and row.bucket.start <= stay.gone < row.bucket.end
        ]
        assert (row.sessions, row.revenue) == (len(charged), sum(charged)), (row.bucket, row.cell)


LIGHT = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NOWS = st.integers(-300, 3000).map(lambda n: MIDNIGHT + n * MINUTE)


@LIGHT
@given(data=st.data(), now=NOWS, bucket=st.sampled_from(["15m", "1h", "1d"]), by=st.sampled_from(["zone", "district"]))
def test_reports_equal_counting_minute_by_minute(connection, data, now, bucket, by):
    made = data.draw(st.lists(stays(MINUTE, 1440, now).filter(lambda stay: stay.start <= now), max_size=12))
    start = MIDNIGHT + data.draw(st.integers(-200, 1400)) * MINUTE
    end = start + data.draw(st.integers(1, 400)) * MINUTE
    question = ask(start, end, bucket, by=by, now=now)
    with connection.transaction(force_rollback=True):
        for number, stay in enumerate(made):
            put(connection, number, stay, now, data.draw(st.booleans()))
        check_occupancy(connection, question, made, count_by_minutes)
        check_revenue(connection, question, made)


@LIGHT
@given(data=st.data(), by=st.sampled_from(["zone", "district"]))
def test_reports_are_exact_to_the_microsecond(connection, data, by):
    now = MIDNIGHT + timedelta(microseconds=data.draw(st.integers(0, 10**10)))
    some = stays(timedelta(microseconds=1), 4 * 10**9, now).filter(lambda stay: stay.start <= now)
    made = data.draw(st.lists(some, max_size=12))
    start = MIDNIGHT + timedelta(microseconds=data.draw(st.integers(-(10**9), 10**9)))
    question = ask(start, start + timedelta(microseconds=data.draw(st.integers(1, 10**10))), by=by, now=now)
    with connection.transaction(force_rollback=True):
        for number, stay in enumerate(made):
            put(connection, number, stay, now, data.draw(st.booleans()))
        check_occupancy(connection, question, made, count_by_overlaps)
        check_revenue(connection, question, made)


@given(
    st.integers(0, 99 * 365 * 86_400).map(lambda seconds: at("2000-01-01T00:00") + timedelta(seconds=seconds)),
    st.integers(1, 40 * 86_400),
    st.sampled_from(["1h", "1d"]),
)
@example(at("2028-02-29T00:00"), 86_400, "1d")
@example(at("2026-12-31T23:59"), 120, "1h")
def test_bounds_follow_each_other_on_the_citys_clock(start: datetime, seconds: int, bucket: str):
    end = start + timedelta(seconds=seconds)
    bounds = bounds_of(start, end, bucket)
    assert (bounds[0], bounds[-1]) == (start, end)
    for low, high in pairwise(bounds):
        assert timedelta() < high - low <= metrics.BUCKETS[bucket]
    for bound in (bound.astimezone(metrics.CITY_TIME) for bound in bounds[1:-1]):
        assert (bound.minute, bound.second, bound.microsecond) == (0, 0, 0)
        assert bucket == "1h" or bound.hour == 0


def test_bounds_of_a_quarter_cut_first_and_last():
    bounds = bounds_of(at("2026-10-14T07:10"), at("2026-10-14T07:31"), "15m")
    assert bounds == [at(f"2026-10-14T{t}") for t in ("07:10", "07:15", "07:30", "07:31")]


def only(page: Page) -> list:
    return [tuple(row[2:]) for row in page.rows]


@pytest.mark.parametrize("midnight", ["2026-03-01", "2026-02-01", "2027-01-01", "2028-02-29", "2028-03-01"])
def test_a_stay_over_midnight_is_split_between_hanois_days(connection, midnight):
    """A day, a month's partition and a leap day end at 17:00 UTC.

         23:30 |-----------|00:45
    ----- day before ---|--- day -----
    """
    noon = at(f"{midnight}T12:00")
    past(connection, at(f"{midnight}T00:00") - 30 * MINUTE, at(f"{midnight}T00:45"))
    question = ask(noon - DAY - 12 * 60 * MINUTE, noon + 12 * 60 * MINUTE, "1d", zone="HK-001", vehicle_class="car")
    assert only(metrics.occupancy(connection, question)) == [
        (30 * 60_000_000, 1, 1, 0),
        (45 * 60_000_000, 1, 0, 1),
    ]
    assert only(metrics.revenue(connection, question)) == [(0, 0, 0), (1, 25_000, 0)]


def test_a_stay_that_ends_at_the_bound_counts_as_gone_in_the_next_bucket(connection):
    past(connection, at("2026-10-14T05:00"), at("2026-10-14T06:00"))
    question = ask(at("2026-10-14T05:00"), at("2026-10-14T07:00"), "1h", zone="HK-001", vehicle_class="car")
    assert only(metrics.occupancy(connection, question)) == [(60 * 60_000_000, 1, 1, 0), (0, 0, 0, 1)]
    assert only(metrics.revenue(connection, question)) == [(0, 0, 0), (1, 25_000, 0)]
    later = ask(at("2026-10-14T06:00"), at("2026-10-14T07:00"), "1h", zone="HK-001", vehicle_class="car")
    assert only(metrics.occupancy(connection, later)) == [(0, 0, 0, 1)]


def test_one_leaves_as_another_comes_is_never_two(connection):
    past(connection, at("2026-10-14T08:00"), at("2026-10-14T08:20"))
    past(connection, at("2026-10-14T08:20"), at("2026-10-14T08:40"), plate="30A-999.99")
    question = ask(at("2026-10-14T08:00"), at("2026-10-14T09:00"), "1h", zone="HK-001", vehicle_class="car")
    assert only(metrics.occupancy(connection, question)) == [(40 * 60_000_000, 1, 2, 2)]


def test_a_session_stopped_as_it_began_comes_and_goes_and_never_stands(connection):
    past(connection, at("2026-10-14T08:00"), at("2026-10-14T08:00"))
    question = ask(at("2026-10-14T08:00"), at("2026-10-14T09:00"), "1h", zone="HK-001", vehicle_class="car")
    assert only(metrics.occupancy(connection, question)) == [(0, 0, 1, 1)]
    assert only(metrics.revenue(connection, question)) == [(1, 25_000, 0)]


def test_peak_of_a_district_is_of_one_instant_not_the_sum_of_its_zones_peaks(connection):
    past(connection, at("2026-10-14T08:00"), at("2026-10-14T08:20"))
    past(connection, at("2026-10-14T08:30"), at("2026-10-14T08:50"), zone="HK-002", plate="30A-999.99")
    question = ask(at("2026-10-14T08:00"), at("2026-10-14T09:00"), "1h", vehicle_class="car", by="district")
    rows = {row.cell.place: row for row in metrics.occupancy(connection, question).rows}
    assert rows["002"].peak == 1 and rows["002"].cell.capacity == 3 and rows["002"].cell.zone is None
    assert rows["002"].ratio == pytest.approx(40 / 180)


def test_a_strict_overstay_of_many_months_stands_in_every_bucket(connection):
    start = at("2025-01-31T10:00")
    past(connection, start, at("2026-10-14T08:10"), zone="BD-001", admission="strict")
    active(connection, start, start + 60 * MINUTE, zone="BD-001", admission="strict", plate="30A-999.99")
    question = ask(at("2026-10-14T08:00"), at("2026-10-14T08:30"), zone="BD-001", now=at("2026-10-14T08:20"))
    assert only(metrics.occupancy(connection, question)) == [(25 * 60_000_000, 2, 0, 1), (5 * 60_000_000, 1, 0, 0)]


def test_months_before_the_span_are_only_asked_for_their_long_stays(connection):
    query = "EXPLAIN SELECT * FROM sessions_between('2026-12-01+07', '2026-12-02+07', '2026-12-03+07')"
    with connection.transaction(force_rollback=True):
        connection.execute("SELECT make_month_partitions('2026-10-01+07', 0)")
        connection.execute("SET LOCAL enable_seqscan = off")
        plan = [line for (line,) in connection.execute(query)]
    assert sum("on parking_session_2026_10 " in line for line in plan) == 1, plan
    assert any("parking_session_2026_10_ended_at_idx" in line for line in plan), plan


def test_capacity_without_places_has_no_ratio(connection):
    past(connection, at("2026-10-14T08:00"), at("2026-10-14T08:10"), zone="BD-001", admission="strict")
    page = metrics.occupancy(connection, ask(at("2026-10-14T08:00"), at("2026-10-14T08:15"), zone="BD-001"))
    assert [(row.ratio, row.capacity_us, row.peak) for row in page.rows] == [(None, 0, 1)]


def test_bucket_says_whether_it_has_begun_and_whether_it_may_still_change(connection):
    start, end = at("2026-10-14T08:00"), at("2026-10-14T08:15")
    states = []
    for now in ("07:59:59.999999", "08:00", "08:29:59.999999", "08:30"):
        question = ask(start, end, zone="HK-002", now=at(f"2026-10-14T{now}"))
        (row,) = metrics.occupancy(connection, question).rows
        states.append((row.ratio, row.bucket.is_complete))
    assert states == [(None, False), (0.0, False), (0.0, False), (0.0, True)]


def test_every_zone_and_class_has_rows_where_nothing_happened(connection):
    rows = metrics.occupancy(connection, ask(at("2026-10-14T08:00"), at("2026-10-14T08:30"))).rows
    cells = [("BD-001", "car"), ("HK-001", "car"), ("HK-001", "motorbike"), ("HK-002", "car")]
    assert [(row.cell.place, row.cell.vehicle_class) for row in rows] == cells * 2
    assert all(row.occupied_us == row.peak == row.arrivals == row.departures == 0 for row in rows)


def test_a_zone_no_longer_in_force_keeps_its_past(connection):
    zone(connection, "HK-009", valid_to=at("2026-06-01T00:00"), car=5)
    past(connection, at("2026-05-01T08:00"), at("2026-05-01T08:10"), zone="HK-009")
    question = ask(at("2026-05-01T08:00"), at("2026-05-01T08:15"), zone="HK-009")
    assert only(metrics.revenue(connection, question)) == [(1, 25_000, 0)]


@pytest.mark.parametrize("by", ["zone", "district"])
@pytest.mark.parametrize("limit", [1, 3, 5, 100])
def test_pages_add_up_to_the_whole_report(connection, by, limit):
    for minute in range(0, 60, 7):
        past(
            connection, at(f"2026-10-14T08:{minute:02}"), at(f"2026-10-14T09:{minute:02}"), plate=f"30A-{minute:03}.00"
        )
    question = ask(at("2026-10-14T07:50"), at("2026-10-14T09:20"), by=by)
    for report in (metrics.occupancy, metrics.revenue):
        whole = report(connection, question)
        rows, page = [], Page([], Position(question.start, "", ""), [])
        while page.next is not None:
            page = report(connection, replace(question, first=page.next, limit=limit))
            assert len(page.rows) <= limit
            rows += page.rows
        assert rows == whole.rows and whole.next is None


def test_a_page_that_begins_at_a_row_that_is_gone_begins_at_the_next(connection):
    question = ask(at("2026-10-14T08:00"), at("2026-10-14T08:30"))
    first = Position(at("2026-10-14T08:15"), "HK-001", "lorry")
    (row, *_) = metrics.occupancy(connection, replace(question, first=first)).rows
    assert (row.bucket.start, row.cell.place, row.cell.vehicle_class) == (first.start, "HK-001", "motorbike")
    beyond = Position(at("2027-10-14T08:15"), "HK-001", "car")
    assert metrics.occupancy(connection, replace(question, first=beyond)).rows == []


def test_unknown_zone_and_district_are_named(connection):
    question = ask(at("2026-10-14T08:00"), at("2026-10-14T08:30"))
    with pytest.raises(errors.UnknownZone, match="XX-001"):
        metrics.occupancy(connection, replace(question, zone="XX-001"))
    with pytest.raises(errors.UnknownDistrict, match="019"):
        metrics.revenue(connection, replace(question, district="019"))


def test_a_district_without_zones_has_no_rows(connection):
    connection.execute(
        "INSERT INTO district (code, name, geometry, valid_from) VALUES ('019', 'Nam Từ Liêm', "
        "ST_GeomFromText('MULTIPOLYGON(((105 21, 105.1 21, 105.1 21.1, 105 21)))', 4326), '2018-01-01')"
    )
    question = ask(at("2026-10-14T08:00"), at("2026-10-14T08:30"), district="019")
    assert metrics.occupancy(connection, question) == Page([], None, [])


@LIGHT
@given(data=st.data(), now=NOWS)
def test_sessions_between_is_sessions_as_of_with_a_span(connection, data, now):
    made = data.draw(st.lists(stays(MINUTE, 1440, now).filter(lambda stay: stay.start <= now), max_size=8))
    start = MIDNIGHT + data.draw(st.integers(-3000, 3000)) * MINUTE
    end = start + data.draw(st.integers(1, 3000)) * MINUTE
    whole = """SELECT zone_code, vehicle_class, started_at, ended_at, CASE WHEN ended_at IS NOT NULL THEN fee END
        FROM sessions_as_of(%s) WHERE started_at < %s AND (ended_at IS NULL OR ended_at >= %s)"""
    with connection.transaction(force_rollback=True):
        for number, stay in enumerate(made):
            put(connection, number, stay, now, data.draw(st.booleans()))
        expected = connection.execute(whole, (now, end, start)).fetchall()
        found = connection.execute("SELECT * FROM sessions_between(%s, %s, %s)", (start, end, now)).fetchall()
    assert sorted(found, key=repr) == sorted(expected, key=repr)

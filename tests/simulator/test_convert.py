"""Recorded traffic: every reading is accounted for, and what is doubtful is dropped and counted."""

import csv
import json
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.convert import Choice, Dropped, Place, Report, Stay, convert, outages, pair, spread, window
from simulator.readings import Reading, Readings, read, read_cds
from simulator.trace import Event, InputError

MINUTE, DAY = 60_000, 86_400_000
MIDNIGHT = round(datetime.fromisoformat("2026-03-02T00:00:00+07:00").timestamp() * 1000)
BERLIN = ZoneInfo("Europe/Berlin")
HEADER = "space_id,epoch_ms,occupied,utc"
KERB = Place("HK-001")


def reading(at: float, space: str = "a", occupied: int = 1) -> Reading:
    """A reading `at` minutes after midnight in Hanoi."""
    return Reading(MIDNIGHT + round(at * MINUTE), space, bool(occupied))


def stay_of(space: str, begin: float, end: float) -> list[Reading]:
    return [reading(begin, space, 1), reading(end, space, 0)]


def made_of(
    *readings: Reading, where: dict[str, Place] | None = None, **chosen: Any
) -> tuple[list[Event], dict[str, Any]]:
    """The events and the report of readings, all on one kerb zone unless told otherwise."""
    found = Readings(sorted(readings))
    zones = where or {each.space: KERB for each in readings}
    _, events, report = convert(found, zones, Choice(**chosen), "test")
    return events, msgspec.to_builtins(report)


def a_file(folder: Path, *lines: str, name: str = "events.csv") -> Path:
    path = folder / name
    path.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
    return path


# --- the Berlin record ------------------------------------------------------------------------------------------------
@pytest.fixture
def berlin(shared: Path) -> Path:
    return shared / "data" / "replay"


def test_berlin_stays_are_the_published_ones(berlin: Path) -> None:
    found = read(berlin / "berlin_parking_events_2018.csv")
    with (berlin / "berlin_parking_sessions_2018.csv").open() as file:
        published = sorted(
            Stay(_ms(row["arrival_utc"]), _ms(row["departure_utc"]), row["space_id"]) for row in csv.DictReader(file)
        )
    assert len(published) == 1740
    assert pair(found.readings, Dropped()) == published


def test_berlin_counts_are_the_published_ones(berlin: Path) -> None:
    found = read(berlin / "berlin_parking_events_2018.csv")
    where = spread({each.space for each in found.readings}, [KERB])
    _, _, report = convert(found, where, Choice(local=BERLIN), "test")
    assert (report.readings, report.spaces, report.paired) == (3909, 32, 1740)
    assert (report.dropped.flicker, report.dropped.outage, report.over_24_hours) == (320, 29, 55)
    assert report.dropped.repeats / report.readings == pytest.approx(0.10, abs=0.005)
    assert [one.hours for one in report.outages] == [118.0]
    assert report.stays == 1740 - 320 - 29
    assert report.dropped.repeats + report.dropped.departures_without_arrival + 4 + 2 * report.paired == 3909


def test_berlin_outage_is_the_one_that_the_published_stays_span(berlin: Path) -> None:
    found = read(berlin / "berlin_parking_events_2018.csv")
    (silence,) = outages(found.readings, 48)
    assert _utc(silence.begin).date() < date(2018, 2, 3)
    assert _utc(silence.end).date() > date(2018, 2, 6)
    with (berlin / "berlin_parking_sessions_2018.csv").open() as file:
        spans = {
            (row["space_id"], _ms(row["arrival_utc"])) for row in csv.DictReader(file) if row["spans_outage"] == "1"
        }
    ours = {(stay.space, stay.arrival) for stay in pair(found.readings, Dropped()) if silence.inside(stay)}
    assert ours == spans


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _utc(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


# --- pairing and dropping ---------------------------------------------------------------------------------------------
@given(
    st.lists(
        st.builds(
            reading,
            st.integers(0, 500).map(float),
            st.sampled_from("abc"),
            st.integers(0, 1),
        ),
        max_size=60,
    )
)
def test_every_reading_is_in_a_stay_or_counted_as_dropped(found: list[Reading]) -> None:
    dropped, ordered = Dropped(), sorted(found, key=lambda each: each.ms)
    stays = pair(ordered, dropped)
    lost = dropped.repeats + dropped.departures_without_arrival + dropped.still_parked
    assert len(found) == 2 * len(stays) + lost
    for space in "abc":
        ours = sorted(stay for stay in stays if stay.space == space)
        assert all(stay.length >= 0 for stay in ours)
        assert all(one.departure <= two.arrival for one, two in pairwise(ours))


@given(
    st.lists(st.tuples(st.integers(0, 3 * 1440), st.integers(1, 1440), st.sampled_from("abcd")), max_size=40),
    st.integers(1, 3),
)
def test_every_stay_is_in_the_trace_or_counted_as_dropped(rows: list[tuple[int, int, str]], days: int) -> None:
    readings = [each for begin, length, space in rows for each in stay_of(space, begin, begin + length)]
    readings += stay_of("z", 0, 10)  # so that there is always one
    events, report = made_of(*readings, day=date(2026, 3, 2), days=days)
    dropped = report["dropped"]
    gone = dropped["flicker"] + dropped["outage"] + dropped["before_window"] + dropped["after_window"]
    assert report["paired"] == report["stays"] + gone
    starts = [event for event in events if event.action == "start"]
    assert len(starts) == report["stays"] == len({event.vehicle for event in starts})
    assert len(events) == report["events"]
    assert [event.t for event in events] == sorted(event.t for event in events)
    assert all(0 <= event.t < days * 86_400 for event in events)


def test_stay_becomes_an_open_start_and_a_stop() -> None:
    events, report = made_of(*stay_of("a", 60, 95.5))
    assert [(event.t, event.action, event.minutes) for event in events] == [(3600, "start", None), (5730, "stop", None)]
    assert {(event.vehicle, event.zone, event.vehicle_class) for event in events} == {("v000001", "HK-001", "car")}
    assert report["stays"] == 1


@pytest.mark.parametrize(("minutes", "kept"), [(5.99, 0), (6, 1), (6.01, 1)])
def test_stay_under_six_minutes_is_flicker(minutes: float, kept: int) -> None:
    _, report = made_of(*stay_of("a", 60, 60 + minutes))
    assert (report["stays"], report["dropped"]["flicker"]) == (kept, 1 - kept)


def test_repeated_reading_is_dropped_and_the_first_arrival_counts() -> None:
    events, report = made_of(reading(10), reading(20), reading(40, occupied=0), reading(50, occupied=0))
    assert [event.t for event in events] == [600, 2400]
    assert report["dropped"]["repeats"] == 2


def test_departure_without_arrival_and_arrival_without_departure_are_dropped() -> None:
    _, report = made_of(reading(10, "a", 0), *stay_of("b", 10, 50), reading(60, "b", 1))
    assert (report["stays"], report["dropped"]["departures_without_arrival"], report["dropped"]["still_parked"]) == (
        1,
        1,
        1,
    )


@pytest.mark.parametrize(("hours", "outage"), [(47.9, 0), (48.1, 1)])
def test_stay_under_way_through_a_long_silence_of_all_spaces_is_dropped(hours: float, outage: int) -> None:
    # a  |------------ silence -----------|          dropped: nobody knows when it left
    # b  |--|                                        kept
    # c                                     |--|     kept
    silence = hours * 60
    readings = [*stay_of("b", 0, 30), reading(40, "a", 1), reading(40 + silence, "a", 0)]
    readings += stay_of("c", 60 + silence, 90 + silence)
    _, report = made_of(*readings)
    assert (report["dropped"]["outage"], report["stays"]) == (outage, 3 - outage)
    assert [one["stays"] for one in report["outages"]] == [1] * outage


def test_one_reading_of_another_space_breaks_the_silence() -> None:
    readings = [reading(0, "a", 1), *stay_of("b", 40 * 60, 41 * 60), reading(80 * 60, "a", 0)]
    assert made_of(*readings)[1]["outages"] == []


@pytest.mark.parametrize(
    ("strict", "minutes", "actions", "counted"),
    [
        (False, 719, ["start", "stop"], None),
        (False, 720, ["start"], "left_to_expire"),
        (True, 719, ["start", "stop"], None),
        (True, 800, ["start", "stop"], "overstayed"),
    ],
)
def test_stay_past_the_longest_is_left_to_expire_or_held_by_a_strict_zone(
    strict: bool, minutes: int, actions: list[str], counted: str | None
) -> None:
    events, report = made_of(*stay_of("a", 0, minutes), where={"a": Place("HK-001", 720, strict)})
    assert [event.action for event in events] == actions
    assert [name for name in ("left_to_expire", "overstayed") if report[name]] == ([counted] if counted else [])


def test_stay_that_outlasts_the_window_has_no_stop() -> None:
    readings = [*stay_of("a", 23 * 60, 25 * 60), *stay_of("b", -30, 30), *stay_of("c", 24 * 60, 25 * 60)]
    events, report = made_of(*readings, day=date(2026, 3, 2))
    assert [(event.action, event.t) for event in events] == [("start", 23 * 3600)]
    assert (report["running_at_end"], report["dropped"]["before_window"], report["dropped"]["after_window"]) == (
        1,
        1,
        1,
    )


# --- windows and zones ------------------------------------------------------------------------------------------------
def test_window_keeps_the_time_on_the_wall() -> None:
    chosen = Choice(day=date(2018, 1, 25), opens=time(7), closes=time(10), local=BERLIN, on=date(2026, 11, 23))
    taken = window([Reading(0, "a", True)], chosen)
    assert _utc(taken.begin) == datetime(2018, 1, 25, 6, tzinfo=UTC)
    assert taken.seconds == 3 * 3600
    assert taken.start == datetime.fromisoformat("2026-11-23T07:00:00+07:00")


def test_window_of_the_whole_record_is_of_whole_days() -> None:
    taken = window([reading(90), reading(3 * 1440 + 5)], Choice())
    assert (taken.begin, taken.end) == (MIDNIGHT, MIDNIGHT + 4 * DAY)
    assert taken.start == datetime.fromisoformat("2026-03-02T00:00:00+07:00")


@pytest.mark.parametrize("hours", [23, 25])
def test_window_of_a_day_on_which_the_clock_changes_has_its_true_length(hours: int) -> None:
    day = date(2018, 3, 25) if hours == 23 else date(2018, 10, 28)
    assert window([Reading(0, "a", True)], Choice(day=day, local=BERLIN)).seconds == hours * 3600


def test_empty_window_and_empty_record_are_refused() -> None:
    with pytest.raises(ValueError, match="no reading"):
        window([], Choice())
    with pytest.raises(ValueError, match="ends before"):
        window([reading(0)], Choice(day=date(2026, 3, 2), opens=time(10), closes=time(7)))


@given(st.integers(1, 60), st.integers(1, 10))
def test_spaces_are_spread_evenly_over_the_zones(spaces: int, zones: int) -> None:
    where = spread([f"s{n:02d}" for n in range(spaces)], [Place(f"HK-{n:03d}") for n in range(zones)])
    counts = [list(where.values()).count(place) for place in set(where.values())]
    assert len(where) == spaces
    assert max(counts) - min(counts) <= 1
    assert len(counts) == min(spaces, zones)


def test_space_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="space b has no zone"):
        made_of(*stay_of("a", 0, 30), *stay_of("b", 0, 30), where={"a": KERB})


def test_same_seed_gives_the_same_plates() -> None:
    plates = [[event.plate for event in made_of(*stay_of("a", 0, 30), seed=seed)[0]] for seed in (1, 1, 2)]
    assert plates[0] == plates[1] != plates[2]


# --- input forms ------------------------------------------------------------------------------------------------------
def test_csv_lines_may_be_in_any_order_without_utc_and_with_more_columns(tmp_path: Path) -> None:
    path = a_file(tmp_path, "\ufeffoccupied,note,space_id,epoch_ms", '0,"x,y",a,2000', "1,,a,1000", "")
    assert read(path).readings == [Reading(1000, "a", True), Reading(2000, "a", False)]


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("a,1516036323483,2,2018-01-15T17:12:03.483Z", "occupied"),
        ("a,1516036323483,,2018-01-15T17:12:03.483Z", "occupied"),
        (",1516036323483,1,2018-01-15T17:12:03.483Z", "space_id"),
        (f"{'a' * 65},1516036323483,1,2018-01-15T17:12:03.483Z", "space_id"),
        ("a,1516036323.5,1,2018-01-15T17:12:03.483Z", "epoch_ms"),
        ("a,-1,1,1969-12-31T23:59:59.999Z", "epoch_ms"),
        ("a,99999999999999999999,1,2018-01-15T17:12:03.483Z", "epoch_ms"),
        ("a,٣,1,2018-01-15T17:12:03.483Z", "epoch_ms"),
        ("a,1516036323483,1,2018-01-15T17:12:03.484Z", "utc"),
        ("a,1516036323483,1,2018-01-15T17:12:03.483", "utc"),
        ("a,1516036323483,1,monday", "utc"),
        ("a,1516036323483,1", None),
        ("a,1516036323483,1,2018-01-15T17:12:03.483Z,more", None),
        ("\udcff,1516036323483,1,2018-01-15T17:12:03.483Z", None),
        ('"a,1516036323483,1,2018-01-15T17:12:03.483Z', None),
    ],
)
def test_bad_line_is_named_with_field_and_rule(tmp_path: Path, line: str, field: str | None) -> None:
    good = "a,1516036323483,1,2018-01-15T17:12:03.483Z"
    with pytest.raises(InputError) as caught:
        read(a_file(tmp_path, HEADER, good, line))
    assert (caught.value.line, caught.value.field) == (3, field)
    assert caught.value.rule


@pytest.mark.parametrize("header", ["", "space_id,epoch_ms", "1,2,3", "Space_ID,epoch_ms,occupied"])
def test_missing_column_is_named(tmp_path: Path, header: str) -> None:
    with pytest.raises(InputError, match=r"line 1, .*column is missing"):
        read(a_file(tmp_path, header))


def cds(event_id: str, kind: str, at: int, **more: Any) -> dict[str, Any]:
    return {"event_id": event_id, "event_type": kind, "event_time": at, "data_source_type": "in_ground"} | more


CDS = [
    cds("3", "park_end", 9000, curb_space_id="a"),
    cds("1", "park_start", 1000, curb_space_id="a"),
    cds("1", "park_start", 1000, curb_space_id="a"),
    cds("2", "comms_lost", 5000),
    cds("4", "park_start", 2000, event_session_id="s", curb_space_id=None),
]


@pytest.mark.parametrize("wrapped", [CDS, {"events": CDS}, {"version": "1.1", "data": {"events": CDS}}])
def test_cds_events_are_read_in_each_of_their_wrappings(tmp_path: Path, wrapped: Any) -> None:
    found = read(a_file(tmp_path, json.dumps(wrapped)))
    assert found.readings == [Reading(1000, "a", True), Reading(2000, "s", True), Reading(9000, "a", False)]
    assert (found.repeated, found.other) == (1, 1)


@pytest.mark.parametrize(
    ("event", "field"),
    [
        ({"event_type": "park_start", "event_time": 1}, "event_id"),
        (cds("1", "park_start", -1, curb_space_id="a"), "event_time"),
        (cds("1", "park_start", 10**15, curb_space_id="a"), "event_time"),
        (cds("1", "park_start", 1) | {"event_time": "noon"}, "event_time"),
        (cds("1", "park_start", 1), "curb_space_id"),
        (cds("1", "park_start", 1, curb_space_id=7), "curb_space_id"),
    ],
)
def test_bad_cds_event_is_named_by_its_place(event: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        read_cds(json.dumps([CDS[0], event]).encode(), "events.json")
    assert caught.value.field == f"events[1].{field}"


@pytest.mark.parametrize("text", ['{"events": 3}', "{}", '{"data": {}}', "[3]", "3", '{"events"'])
def test_json_that_is_no_cds_events_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        read_cds(text.encode(), "events.json")


def test_broken_json_is_named_with_its_line() -> None:
    with pytest.raises(InputError) as caught:
        read_cds(b'[\n{"event_id": "1"},\n{"event_id" "2"}]', "events.json")
    assert caught.value.line == 3


def test_length_of_a_stay_is_in_milliseconds() -> None:
    assert Stay(0, round(timedelta(minutes=1).total_seconds() * 1000), "a").length == MINUTE
    assert Report().dropped is not Report().dropped

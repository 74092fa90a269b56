"""Traces: what is written is read back, and a line that breaks a rule is named."""

import gzip
import json
import string
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import trace
from simulator.trace import Event, InputError, TraceReader

START = datetime.fromisoformat("2026-11-23T07:00:00+07:00")
HEADER = {"trace": 1, "seed": 7, "origin": "test", "start": "2026-11-23T07:00:00+07:00"}
GOOD = {
    "t": 12.5,
    "vehicle": "v000001",
    "plate": "30A-123.45",
    "class": "car",
    "zone": "HK-001",
    "action": "start",
    "minutes": None,
}

names = st.text(string.ascii_letters + string.digits + "-. Đ", min_size=1, max_size=64)


@st.composite
def events(draw: st.DrawFn) -> Event:
    action = draw(st.sampled_from(["start", "stop", "extend", "check"]))
    minutes = st.integers(1, 1440)
    given_minutes = {"start": st.none() | minutes, "extend": minutes}.get(action, st.none())
    t = draw(st.floats(0, 1e6, allow_nan=False))
    vehicle_class = draw(st.sampled_from(["car", "motorbike"]))
    return Event(t, draw(names), draw(names), vehicle_class, draw(names), action, draw(given_minutes))


def a_trace(folder: Path, *lines: Any, header: Any = HEADER) -> Path:
    """A trace of these lines: an object as JSON, text as it is."""
    path = folder / "trace.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in (header, *lines)]
    path.write_bytes("".join(f"{text}\n" for text in texts).encode("utf-8", "surrogateescape"))
    return path


def fault_of(path: Path) -> InputError:
    with pytest.raises(InputError) as caught, TraceReader(path) as reader:
        list(reader)
    return caught.value


@given(made=st.lists(events(), max_size=20), packed=st.booleans())
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, made: list[Event], packed: bool
) -> None:
    path = tmp_path_factory.mktemp("trace") / ("trace.jsonl.gz" if packed else "trace.jsonl")
    ordered = sorted(made, key=lambda event: event.t)
    head = trace.header(seed=7, origin="test", start=START, seconds=60.0, city="abc")
    assert trace.write(path, head, ordered) == len(ordered)
    with TraceReader(path) as reader:
        assert reader.header == head
        assert list(reader) == ordered


def test_header_gives_the_instant_of_any_t(tmp_path: Path) -> None:
    with TraceReader(a_trace(tmp_path)) as reader:
        assert reader.header.start_at == START
        assert reader.header.instant(90.5) == datetime(2026, 11, 23, 0, 1, 30, 500_000, UTC)
        assert reader.header.instant(0).utcoffset() == timedelta(hours=7)


def test_header_may_say_more_than_this_version_knows(tmp_path: Path) -> None:
    with TraceReader(a_trace(tmp_path, GOOD, header=HEADER | {"weather": "rain"})) as reader:
        assert [event.zone for event in reader] == ["HK-001"]


def test_lines_are_in_the_documented_form(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    trace.write(path, trace.header(seed=7, origin="test", start=START), [Event(*GOOD.values())])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [HEADER, GOOD]


def test_reading_streams_so_a_fault_far_down_is_met_when_its_turn_comes(tmp_path: Path) -> None:
    with TraceReader(a_trace(tmp_path, GOOD, GOOD | {"t": 13}, "rubbish")) as reader:
        read = iter(reader)
        assert [next(read).t, next(read).t] == [12.5, 13.0]
        with pytest.raises(InputError, match="line 4"):
            next(read)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"t": -1}, "t"),
        ({"t": "soon"}, "t"),
        ({"t": 1e300}, "t"),
        ({"vehicle": ""}, "vehicle"),
        ({"plate": "9" * 65}, "plate"),
        ({"class": "bus"}, "class"),
        ({"zone": None}, "zone"),
        ({"action": "park"}, "action"),
        ({"minutes": 0}, "minutes"),
        ({"minutes": 1.5}, "minutes"),
        ({"action": "stop", "minutes": 5}, "minutes"),
        ({"action": "check", "minutes": 5}, "minutes"),
        ({"action": "extend", "minutes": None}, "minutes"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_bad_field_is_named_with_its_line(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    fault = fault_of(a_trace(tmp_path, GOOD, GOOD | change))
    assert (fault.line, fault.field) == (3, field)
    assert fault.rule
    assert f"line 3, {field}: " in str(fault)


@pytest.mark.parametrize("name", GOOD)
def test_missing_field_is_named(tmp_path: Path, name: str) -> None:
    fault = fault_of(a_trace(tmp_path, {key: value for key, value in GOOD.items() if key != name}))
    assert (fault.line, fault.field) == (2, name)


@pytest.mark.parametrize("line", ["", "[]", "{", "null", "{} {}", '{"t": NaN}', '{"t": 1, "vehicle": "\udcff"}', "\0"])
def test_line_that_is_no_json_object_is_refused(tmp_path: Path, line: str) -> None:
    assert fault_of(a_trace(tmp_path, line)).line == 2


def test_event_before_the_one_above_it_is_refused(tmp_path: Path) -> None:
    fault = fault_of(a_trace(tmp_path, GOOD, GOOD, GOOD | {"t": 12.4}))
    assert (fault.line, fault.field) == (4, "t")


def test_endless_line_is_refused_without_being_read_whole(tmp_path: Path) -> None:
    assert "at most" in fault_of(a_trace(tmp_path, "x" * (trace.MAX_LINE * 2))).rule


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"trace": 2}, "trace"),
        ({"seed": "x"}, "seed"),
        ({"start": "yesterday"}, "start"),
        ({"start": "2026-11-23T07:00:00"}, "start"),
        ({"seconds": -1}, "seconds"),
    ],
)
def test_bad_header_is_named(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    fault = fault_of(a_trace(tmp_path, header=HEADER | change))
    assert (fault.line, fault.field) == (1, field)


def test_empty_missing_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert fault_of(tmp_path / "empty").line == 1
    assert "No such file" in fault_of(tmp_path / "nowhere").rule
    assert "directory" in fault_of(tmp_path).rule


def test_damaged_compressed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.gz"
    whole = gzip.compress(b"\n".join(json.dumps(line).encode() for line in (HEADER, *[GOOD] * 500)))
    path.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in fault_of(path).rule
    path.write_bytes(whole[:60] + bytes(60) + whole[120:])
    assert "damaged" in fault_of(path).rule


def test_compressed_files_of_the_same_events_are_the_same_bytes(tmp_path: Path) -> None:
    head = trace.header(seed=7, origin="test", start=START)
    paths = [tmp_path / "one.gz", tmp_path / "two.gz"]
    for path in paths:
        trace.write(path, head, [Event(*GOOD.values())])
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_writer_refuses_an_event_out_of_order_and_leaves_no_file(tmp_path: Path) -> None:
    first, second = (Event(*(GOOD | {"t": t}).values()) for t in (2.0, 1.0))
    with pytest.raises(ValueError, match="event 2"):
        trace.write(tmp_path / "trace.jsonl", trace.header(seed=7, origin="test", start=START), [first, second])
    assert list(tmp_path.iterdir()) == []


def test_failing_writer_keeps_the_trace_that_was_there(tmp_path: Path) -> None:
    path = a_trace(tmp_path, GOOD)
    before = path.read_bytes()

    def broken() -> Iterator[Event]:
        yield Event(*GOOD.values())
        raise ValueError("nothing more")

    with pytest.raises(ValueError, match="nothing more"):
        trace.write(path, trace.header(seed=7, origin="test", start=START), broken())
    assert path.read_bytes() == before


def test_header_needs_an_offset() -> None:
    with pytest.raises(ValueError, match="offset"):
        trace.header(seed=7, origin="test", start=datetime(2026, 11, 23))  # noqa: DTZ001

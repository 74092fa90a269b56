"""The commands of `simulate` that make traces: what they print, where, and how they end."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from simulator.cli import simulate
from simulator.trace import TraceReader
from tests.simulator.fake_service import FakeService, serving
from tests.simulator.runs import event, write_keys, write_trace

SHIPPED = str(Path(__file__).parents[2] / "zones" / "data" / "zones.geojson")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(simulate, arguments)


def a_file(folder: Path, *lines: str, name: str = "events.csv") -> Path:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def a_record(folder: Path) -> Path:
    """One space that was taken for 40 minutes on 2 March 2026."""
    arrival = datetime(2026, 3, 2, 1, tzinfo=UTC)
    rows = [
        f"a,{round(at.timestamp() * 1000)},{state}"
        for at, state in ((arrival, 1), (arrival + timedelta(minutes=40), 0))
    ]
    return a_file(folder, "space_id,epoch_ms,occupied", *rows)


def test_berlin_day_becomes_a_trace_that_can_be_read(shared: Path, tmp_path: Path) -> None:
    file = str(shared / "data" / "replay" / "berlin_parking_events_2018.csv")
    output = tmp_path / "berlin.jsonl"
    arguments = [
        "convert",
        "berlin",
        file,
        "--zones",
        "HK-001,HK-002",
        "--date",
        "2018-01-25",
        "-o",
        str(output),
        "--json",
    ]
    result = run(*arguments)
    report = json.loads(result.stdout)
    with TraceReader(output) as reader:
        events = list(reader)
        assert reader.header.start == "2018-01-25T00:00:00+07:00"
    assert report["events"] == len(events) > 0
    assert report["stays"] == sum(event.action == "start" for event in events) == sum(report["zones"].values())
    assert report["paired"] == 1740
    dropped = report["dropped"]
    kept = report["stays"] + dropped["flicker"] + dropped["outage"] + dropped["before_window"] + dropped["after_window"]
    assert kept == 1740
    assert len({event.plate for event in events}) == report["stays"]


def test_command_says_in_words_what_it_dropped(tmp_path: Path) -> None:
    output = tmp_path / "trace.jsonl"
    result = run("convert", "csv", str(a_record(tmp_path)), "--zones", "HK-001", "-o", str(output))
    assert result.exit_code == 0, result.output
    assert "1 stays paired" in result.stdout
    assert "0 flicker, 0 through an outage" in result.stdout
    with TraceReader(output) as reader:
        assert [event.action for event in reader] == ["start", "stop"]


def test_trace_on_standard_output_keeps_the_words_apart(tmp_path: Path) -> None:
    result = run("convert", "csv", str(a_record(tmp_path)), "--zones", "HK-001", "-o", "-")
    assert [json.loads(line).get("action") for line in result.stdout.splitlines()] == [None, "start", "stop"]
    assert "stays paired" in result.stderr


def test_spaces_can_be_mapped_one_by_one(tmp_path: Path) -> None:
    mapped = a_file(tmp_path, "space_id,zone", "a,DD-001", name="map.csv")
    arguments = ["convert", "csv", str(a_record(tmp_path)), "--map", str(mapped), "-o", str(tmp_path / "t"), "--json"]
    assert json.loads(run(*arguments).stdout)["zones"] == {"DD-001": 1}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["space,zone", "a,DD-001"], "line 2, space_id"),
        (["space_id,zone", "a,"], "line 2, zone"),
        (["space_id,zone", "a,DD-001", "a,DD-002"], "line 3, space_id: a is there twice"),
        (["space_id,zone", "b,DD-001"], "space a has no zone"),
    ],
)
def test_bad_map_is_named(tmp_path: Path, lines: list[str], words: str) -> None:
    mapped = a_file(tmp_path, *lines, name="map.csv")
    result = run("convert", "csv", str(a_record(tmp_path)), "--map", str(mapped), "-o", str(tmp_path / "t"))
    assert result.exit_code == 2
    assert words in result.stderr


def test_zones_are_looked_up_in_a_city(tmp_path: Path) -> None:
    square = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    facts = {
        "code": "HK-001",
        "district": "002",
        "admission": "advisory",
        "max_stay_minutes": 30,
        "capacity": {"car": 3},
    }
    document = {"type": "FeatureCollection", "features": [{"geometry": square, "properties": facts}]}
    city = a_file(tmp_path, json.dumps(document), name="city.json")
    common = ["convert", "csv", str(a_record(tmp_path)), "--city", str(city), "-o", str(tmp_path / "t"), "--json"]
    assert json.loads(run(*common, "--zones", "HK-001").stdout)["left_to_expire"] == 1
    for arguments, words in (
        (["--zones", "HK-009"], "no zone HK-009"),
        (["--zones", "HK-001", "--class", "motorbike"], "no places for a motorbike"),
    ):
        result = run(*common, *arguments)
        assert (result.exit_code, words in result.stderr) == (2, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["csv"],
        ["csv", "nowhere.csv", "--zones", "HK-001"],
        ["csv", "RECORD"],
        ["csv", "RECORD", "--zones", " , "],
        ["csv", "RECORD", "--zones", "HK-001", "--map", "x"],
        ["csv", "RECORD", "--zones", "HK-001", "--json", "-o", "-"],
        ["csv", "RECORD", "--zones", "HK-001", "--date", "tomorrow"],
        ["csv", "RECORD", "--zones", "HK-001", "--from", "25:00"],
        ["csv", "RECORD", "--zones", "HK-001", "--time-zone", "Mars/Olympus"],
        ["cds", "RECORD", "--zones", "HK-001"],
        ["xml", "RECORD", "--zones", "HK-001"],
    ],
)
def test_wrong_arguments_end_with_code_2_and_no_trace(tmp_path: Path, arguments: list[str]) -> None:
    record = str(a_record(tmp_path))
    given = [record if argument == "RECORD" else argument for argument in arguments]
    output = [] if "-o" in given else ["-o", str(tmp_path / "trace.jsonl")]
    result = run("convert", *given, *output)
    assert result.exit_code == 2, result.output
    assert "Error" in result.stderr
    assert not (tmp_path / "trace.jsonl").exists()


def test_demand_command_writes_the_same_trace_each_time(tmp_path: Path) -> None:
    common = ["demand", "--city", SHIPPED, "--date", "2026-11-23", "--sessions", "300", "--json", "-o"]
    first, second = (run(*common, str(tmp_path / name)) for name in ("one", "two"))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    report = json.loads(first.stdout)
    assert {**json.loads(second.stdout), "trace": report["trace"]} == report
    assert report["events"] == sum(report["actions"].values())
    assert report["sessions"] == sum(report["districts"].values()) == sum(report["classes"].values())
    with TraceReader(tmp_path / "one") as reader:
        assert sum(1 for _ in reader) == report["events"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sessions", "5", "--scale", "2"], "exclude each other"),
        (["--city", "nowhere.json"], "nowhere.json"),
        (["--url", "http://127.0.0.1:1"], "127.0.0.1:1"),
        (["--json", "-o", "-"], "standard output"),
        (["--days", "0"], "--days"),
    ],
)
def test_demand_command_says_what_is_wrong(tmp_path: Path, arguments: list[str], words: str) -> None:
    output = [] if "-o" in arguments else ["-o", str(tmp_path / "trace.jsonl")]
    result = run("demand", *arguments, *output)
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize("command", [[], ["demand"], ["convert"], ["replay"], ["audit"]])
def test_each_command_shows_an_example(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout


# --- replay and audit -------------------------------------------------------------------------------------------------
@pytest.fixture
def morning(tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A short trace, and the options that name a stand-in service and its keys."""
    path = write_trace(tmp_path, [event(0.0, "v1", "start"), event(1.0, "v2", "start"), event(2.0, "v1", "stop")])
    with serving(FakeService()) as url:
        yield path, ["--url", url, "--keys", str(write_keys(tmp_path))]


def test_replayed_trace_is_audited_without_divergence(
    morning: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulator.auditor.interface.QUIET_SECONDS", 0.0)
    path, options = morning
    replayed = run("replay", str(path), *options, "--json")
    assert replayed.exit_code == 0, replayed.output
    assert json.loads(replayed.stdout)["requests"] == 3
    audited = run("audit", f"{path}.answers", *options)
    assert audited.exit_code == 0, audited.output
    assert audited.stdout.splitlines()[-1] == "0 divergences"
    assert json.loads(run("audit", f"{path}.answers", *options, "--json").stdout)["divergences"] == 0


def test_audit_of_another_service_ends_with_code_1(
    morning: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulator.auditor.interface.QUIET_SECONDS", 0.0)
    path, options = morning
    assert run("replay", str(path), *options).exit_code == 0
    with serving(FakeService()) as other:
        audited = run("audit", f"{path}.answers", *options, "--url", other)
    assert audited.exit_code == 1
    assert int(audited.stdout.splitlines()[-1].split()[0]) > 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay", "nowhere.jsonl"],
        ["replay", "TRACE", "--url", "http://127.0.0.1:1"],
        ["replay", "TRACE", "--keys", "nowhere.json"],
        ["replay", "TRACE", "--speed", "77"],
        ["audit", "nowhere.answers"],
        ["audit", "TRACE"],
        ["audit"],
    ],
)
def test_what_cannot_be_replayed_or_audited_ends_with_code_2_and_one_line(
    morning: tuple[Path, list[str]], arguments: list[str]
) -> None:
    path, options = morning
    name, *rest = [str(path) if argument == "TRACE" else argument for argument in arguments]
    result = run(name, *options, *rest)
    assert result.exit_code == 2, result.output
    assert "Error" in result.stderr
    assert result.stdout == ""

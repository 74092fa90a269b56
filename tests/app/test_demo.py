"""The demo: its pieces, and one short one from end to end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest
from click.testing import CliRunner

import app.demo
from app.demo import play, traffic
from app.demo.play import FASTEST, SLOWEST, Demo, Options, clock, holdable_speed
from app.stack import StackError
from app.stack.ports import choose_free, is_free
from app.stack.processes import wait_until
from simulator.service import Service
from simulator.trace import TraceReader
from tests.conftest import ROOT

DAY = date(2026, 11, 24)
START = datetime(2026, 11, 24, 7, tzinfo=traffic.HANOI)


def options(**more: Any) -> Options:
    return Options(**{"day": DAY, "port": 8100, "speed": None, "seed": 7, **more})


# --- traffic ----------------------------------------------------------------------------------------------------------


def test_a_morning_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    first = traffic.morning(tmp_path / "a", DAY, 7)
    traffic.morning(tmp_path / "b", DAY, 7)
    traffic.morning(tmp_path / "c", DAY, 8)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()
    assert first.start == START
    assert first.rate > first.events / traffic.SECONDS


def test_a_rehearsal_takes_the_first_minutes(tmp_path: Path) -> None:
    whole = traffic.morning(tmp_path / "whole", DAY, 7)
    part = traffic.beginning(whole, tmp_path / "part", 600.0)
    with TraceReader(part.path) as reader:
        assert max(event.t for event in reader) < 600
    assert 0 < part.events < whole.events
    assert part.start == whole.start


def test_the_berlin_day_stands_on_hanois_streets(tmp_path: Path, shared: Path) -> None:
    record = traffic.berlin_record()
    assert record is not None
    day = traffic.berlin_day(record, tmp_path / "berlin")
    with TraceReader(day.path) as reader:
        events = list(reader)
    assert day.start == datetime(2018, 1, 25, tzinfo=traffic.HANOI)
    assert len({event.zone for event in events}) == traffic.BERLIN_ZONES
    assert all(event.zone.startswith("HK-") for event in events)


def test_without_the_record_there_is_no_berlin_day(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IPARKING_SHARED", str(tmp_path))
    assert traffic.berlin_record() is None


# --- speed and clock --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("holds", "rate", "speed"),
    [(1000.0, 6.0, 100.0), (10_000.0, 6.0, FASTEST), (10.0, 6.0, SLOWEST)],
)
def test_the_speed_is_what_the_machine_holds_within_limits(holds: float, rate: float, speed: float) -> None:
    assert holdable_speed(holds, rate) == speed


class Started:
    """A server whose start takes as long as it is told."""

    def __init__(self, take: Callable[[], float], environment: dict[str, str]) -> None:
        self.take, self.environment, self.stopped = take, environment, False

    def start(self) -> None:
        self.taken = self.take()

    def stop(self) -> None:
        self.stopped = True


def test_a_server_that_starts_too_late_is_started_again_with_a_later_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """real    now ---- 20 s start ----> ready      anchor at 1.5 x 6 s + 1.5 x 3 s: passed; the next at 1.5 x 20 s +
    ..."""
    now = [datetime(2026, 11, 24, tzinfo=UTC), 0.0]
    made: list[Started] = []

    class FrozenTime(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Self:
            return now[0]  # type: ignore[return-value]

    def take() -> float:
        now[0] += timedelta(seconds=20)  # type: ignore[operator]
        now[1] += 20.0  # type: ignore[operator]
        return 20.0

    def server(self: Demo, database: str, port: int, environment: dict[str, str]) -> Started:
        made.append(Started(take, environment))
        return made[-1]

    monkeypatch.setattr(play, "datetime", FrozenTime)
    monkeypatch.setattr(play.time, "monotonic", lambda: now[1])
    monkeypatch.setattr(Demo, "_server", server)
    demo = Demo(None, options(), lambda _: None)  # type: ignore[arg-type]
    found = demo._serve_on_time("demo", START, 120.0, 8100)
    assert [one.stopped for one in made] == [True, False]
    assert found is made[-1]
    anchor = datetime.fromisoformat(made[-1].environment["IPARKING_CLOCK_ANCHOR"])
    assert anchor - now[0] == timedelta(seconds=1.5 * 20 + 1.5 * 3 - 20)  # type: ignore[operator]


def test_the_clock_is_a_simulations() -> None:
    anchor = datetime(2026, 11, 24, 1, tzinfo=UTC)
    assert clock(START, 120.0, anchor) == {
        "IPARKING_ENV": "simulation",
        "IPARKING_CLOCK_START": "2026-11-24T07:00:00+07:00",
        "IPARKING_CLOCK_SPEED": "120.0",
        "IPARKING_CLOCK_ANCHOR": "2026-11-24T01:00:00+00:00",
    }


# --- the command ------------------------------------------------------------------------------------------------------


class NoStack:
    """A stack that is there and does nothing."""

    root = Path()

    def __enter__(self) -> Self:
        (self.root / "run").mkdir(exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        return None


def played(monkeypatch: pytest.MonkeyPatch, folder: Path, divergences: int) -> None:
    """The command without servers: what is played has so many divergences."""
    monkeypatch.setattr(NoStack, "root", folder)
    monkeypatch.setattr(app.demo, "Stack", NoStack)
    found = {"divergences": divergences, "ended": START.isoformat(), "districts": []}
    monkeypatch.setattr(Demo, "play", lambda self: dict(found))


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app.demo.demo, [*arguments, "--port", str(choose_free())])


def test_once_ends_when_the_result_is_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    played(monkeypatch, tmp_path, 0)
    done = invoke("--once", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["url"] is None


def test_divergences_end_it_with_1_and_nothing_goes_on_serving(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    played(monkeypatch, tmp_path, 3)
    done = invoke("--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["divergences"] == 3


def test_it_goes_on_serving_from_its_last_instant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    played(monkeypatch, tmp_path, 0)
    asked: list[datetime] = []

    class Ended:
        url, keys_path = "http://127.0.0.1:1", "keys.json"

        def start(self) -> None:
            asked.append(START)

        def stop(self) -> None:
            asked.append(START)

        def dead(self) -> list[str]:
            return ["api"]

    monkeypatch.setattr(Demo, "continue_at", lambda self, ended: asked.append(ended) or Ended())
    done = invoke("--json")
    assert done.exit_code == 0
    assert asked == [START] * 3
    assert json.loads(done.stdout)["url"] == "http://127.0.0.1:1"
    assert "the demo's api ended" in done.stderr


@pytest.mark.parametrize("day", ["2017-12-31", "2090-01-01", "tomorrow"])
def test_a_day_without_a_rate_is_refused(day: str) -> None:
    assert invoke("--date", day).exit_code == 2


def test_a_taken_port_is_said_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.demo, "require_free", _taken)
    with pytest.raises(StackError, match="taken"):
        CliRunner().invoke(app.demo.demo, ["--once"], catch_exceptions=False)


def _taken(*_: object) -> None:
    raise StackError("the port is taken")


def test_a_second_demo_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    played(monkeypatch, tmp_path, 0)
    with NoStack() as stack, app.demo._only_demo(stack):  # type: ignore[arg-type]
        refused = invoke("--once")
    assert isinstance(refused.exception, StackError)
    assert invoke("--once", "--json").exit_code == 0


def test_a_replay_that_cannot_begin_ends_the_demo(tmp_path: Path) -> None:
    class Nobody:
        url, keys_path = "http://127.0.0.1:1", tmp_path / "keys.json"

    with pytest.raises(StackError, match="ended with 2"):
        play.replay(Nobody(), tmp_path / "missing.jsonl")  # type: ignore[arg-type]


# --- from end to end --------------------------------------------------------------------------------------------------


@pytest.fixture
def short_demo(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """`short_demo(argument, ...)` starts a demo of the first five minutes, on the test servers, without Berlin."""
    program = "import app.demo.traffic as t; t.SECONDS = 300.0; from app.cli import main; main()"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "IPARKING_HOME": str(tmp_path / "home"),
        "IPARKING_SHARED": str(tmp_path),
        "IPARKING_DATABASE_URL": os.environ["IPARKING_TEST_DATABASE_URL"],
        "IPARKING_REDIS_URL": os.environ["IPARKING_TEST_REDIS_URL"],
    }
    command = [sys.executable, "-c", program, "demo", "--json", "--speed", "120", "--date", "2026-11-24"]
    with (tmp_path / "log").open("w") as log:
        children = []

        def start(*arguments: str) -> "subprocess.Popen[str]":
            children.append(
                subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
            )
            return children[-1]

        yield start
    for child in children:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    with psycopg.connect(os.environ["IPARKING_TEST_DATABASE_URL"], autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS demo WITH (FORCE)")


@contextmanager
def ended(child: "subprocess.Popen[str]", port: int) -> Iterator[None]:
    """After the block the demo is told to end, and leaves nothing on its port."""
    yield
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 0
    assert wait_until(lambda: is_free(port), 20)


def test_a_short_demo_proves_itself_and_goes_on_serving(short_demo: Callable[..., "subprocess.Popen[str]"]) -> None:
    port = choose_free()
    child = short_demo("--port", str(port))
    with ended(child, port):
        found = json.loads(_first_object(child))
        assert (found["divergences"], found["errors"]) == (0, 0)
        assert (
            found["requests"] == found["compared"]["checks"] + found["compared"]["fees in answers"] + found["refusals"]
        )
        assert set(found["lag_ms"]) == {"p50", "p99"}
        assert [row["code"] for row in found["districts"]] == [
            "001", "002", "003", "004", "005", "006", "007", "009", "019"
        ]  # fmt: skip
        assert set(found["districts"][0]) == {
            "code", "name", "sessions", "peak_occupancy", "revenue", "report", "ledger", "receipts", "p50_ms", "p95_ms",
            "p99_ms",
        }  # fmt: skip
        for row in [*found["districts"], found]:
            assert row["revenue"] == row["ledger"] == row["receipts"]
        assert all(row["report"] == row["revenue"] for row in found["districts"])
        assert found["compared"]["wallets"] > 0
        assert found["sessions"] == sum(row["sessions"] for row in found["districts"]) > 0
        assert (found["date"], found["berlin"]) == ("2026-11-24", None)
        service = Service(found["url"])
        health = service.get("/healthz")
        service.close()
        assert health["clock"]["speed"] == 1.0
        since = datetime.fromisoformat(health["now"]) - datetime.fromisoformat(found["ended"])
        assert timedelta() <= since < timedelta(minutes=5)


def _first_object(child: "subprocess.Popen[str]") -> str:
    """What the demo prints until its JSON is whole; it goes on running."""
    assert child.stdout is not None
    text = ""
    for line in child.stdout:
        text += line
        if line == "}\n":
            break
    return text

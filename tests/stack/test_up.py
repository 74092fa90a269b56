"""`up`, `status` and `down` as a caller sees them: the real command line, the real API."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.stack import Stack, clock_environment
from app.stack.ports import choose_free, is_free
from app.stack.processes import wait_until, working_in
from app.stack.up import down, status
from tests.stack.conftest import make_home, remove_home
from tests.stack.test_machine import listening

ROOT = Path(__file__).resolve().parent.parent.parent
OURS = ("IPARKING_DATABASE_URL", "IPARKING_REDIS_URL", "IPARKING_ENV")
START = datetime.fromisoformat("2026-03-02T07:00:00+07:00")
PATIENCE = 60  # seconds; a loaded machine starts slowly

Run = Callable[..., subprocess.CompletedProcess[str]]


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    return {**kept, "IPARKING_HOME": str(home), "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One folder for all tests here, so that the database is made once. As root its parent is closed to the servers."""
    home = make_home(tmp_path_factory.mktemp("service"))
    yield home
    remove_home(home)


@pytest.fixture(scope="module")
def run(home: Path) -> Run:
    """Runs the command line from another folder."""

    def run(*arguments: object, **changed: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "app.cli", *map(str, arguments)]
        env = {**environment(home), **changed}
        # Reads until nobody holds the pipes any more: a descriptor that a server kept would hold up the test.
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, cwd="/")

    return run


@pytest.fixture(scope="module")
def port() -> int:
    return choose_free()


def processes(home: Path) -> dict[str, int]:
    return status(home)["processes"]


def get(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return json.load(answer)


class TestServing:
    @pytest.fixture(scope="class", autouse=True)
    def started(self, run: Run, port: int) -> subprocess.CompletedProcess[str]:
        return run("up", "--detach", "--port", port, "--workers", 1, "--json")

    def test_detached_service_is_ready_at_return(self, started: subprocess.CompletedProcess[str], port: int) -> None:
        assert started.returncode == 0, started.stderr
        assert json.loads(started.stdout)["url"] == f"http://127.0.0.1:{port}"
        assert get(port, "/readyz")["status"] == "ready"

    def test_status_names_what_runs_and_no_secret(self, run: Run, home: Path) -> None:
        shown = run("status", "--json").stdout
        assert set(json.loads(shown)["processes"]) == {"postgres", "redis", "server-api", "server-jobs", "up"}
        keys = json.loads((home / "keys.json").read_text())
        assert (home / "keys.json").stat().st_mode & 0o777 == 0o600
        assert all(key not in shown for key in keys.values())

    def test_second_up_is_harmless(self, run: Run, port: int, home: Path) -> None:
        before = processes(home)
        again = run("up", "--port", port)
        assert again.returncode == 0
        assert "already serving" in again.stderr
        assert processes(home) == before

    def test_up_on_another_port_is_refused(self, run: Run) -> None:
        elsewhere = run("up", "--detach", "--port", choose_free())
        assert elsewhere.returncode == 1
        assert "run ./iparking down first" in elsewhere.stderr

    @pytest.mark.parametrize(
        ("name", "words"), [("postgres", "PostgreSQL"), ("redis", "Redis"), ("server-jobs", "the job process")]
    )
    def test_what_dies_is_named_and_started_again(self, home: Path, port: int, name: str, words: str) -> None:
        log = home / "log" / "up.log"
        before = processes(home)[name]
        os.kill(before, signal.SIGKILL)
        assert wait_until(lambda: f"{words} runs again" in log.read_text(), PATIENCE), log.read_text()
        assert f"{words} ended by itself" in log.read_text()
        assert processes(home)[name] != before
        assert get(port, "/healthz")["status"] == "ok"

    def test_down_leaves_nothing(self, run: Run, port: int, home: Path) -> None:
        before = processes(home)
        assert json.loads(run("down", "--json").stdout)["stopped"] == sorted(before)
        assert is_free(port)
        assert working_in((home / "data").resolve()) == []
        assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before.values()), 10)
        assert run("down").stdout == "nothing was running\n"


def test_up_takes_over_from_one_that_was_killed(run: Run, port: int, home: Path) -> None:
    assert run("up", "--detach", "--port", port, "--workers", 1).returncode == 0
    before = processes(home)
    os.kill(before["up"], signal.SIGKILL)
    assert wait_until(lambda: status(home)["serving"] is None, 10)
    again = run("up", "--detach", "--port", port, "--workers", 1)
    assert again.returncode == 0, again.stderr
    after = processes(home)
    assert after["postgres"] == before["postgres"]
    assert after["server-api"] != before["server-api"]
    down(home)


def test_foreground_simulation_has_its_clock_and_ends_with_an_interrupt(port: int, home: Path) -> None:
    clock = {"IPARKING_CLOCK_START": "2026-03-02T07:00:00+07:00", "IPARKING_CLOCK_SPEED": "60"}
    command = [sys.executable, "-m", "app.cli", "up", "--port", str(port), "--workers", "1", "--env", "simulation"]
    with subprocess.Popen(command, env=environment(home) | clock, stderr=subprocess.PIPE, text=True) as service:
        assert service.stderr is not None
        assert service.stderr.readline().startswith(f"serving on http://127.0.0.1:{port}")
        health = get(port, "/healthz")
        service.send_signal(signal.SIGINT)
        assert service.wait(PATIENCE) == 0
    assert processes(home) == {}
    assert health["clock"]["speed"] == 60.0
    assert START < datetime.fromisoformat(health["now"]) < START + timedelta(hours=12)


@pytest.mark.parametrize(
    ("changed", "goes_on"),
    [
        ({}, True),
        ({"speed": 2.0}, False),
        ({"start": START + timedelta(seconds=1)}, False),
        ({"database": "other"}, False),
        ({"fresh": True}, False),
    ],
)
def test_clock_goes_on_after_a_restart_unless_another_one_is_asked_for(
    home: Path, changed: dict[str, Any], goes_on: bool
) -> None:
    stack = Stack(home, {})
    asked = {"database": "clocked", "start": START, "speed": 60.0}
    first = clock_environment(stack, **asked, fresh=True)
    assert datetime.fromisoformat(first["IPARKING_CLOCK_ANCHOR"]).tzinfo is not None
    second = clock_environment(stack, **{**asked, **changed})
    assert (first["IPARKING_CLOCK_ANCHOR"] == second["IPARKING_CLOCK_ANCHOR"]) is goes_on


def test_taken_port_ends_in_one_line(run: Run, port: int, home: Path) -> None:
    with listening(port):
        refused = run("up", "--detach", "--port", port)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"iparking: port {port} of the API is taken by ")
    assert refused.stderr.count("\n") == 1
    assert processes(home) == {}


def test_unreachable_given_database_ends_in_one_line(run: Run, port: int) -> None:
    refused = run("up", "--port", port, IPARKING_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert refused.returncode == 1
    assert refused.stderr.startswith("iparking: ")
    assert "port 1 failed" in refused.stderr
    assert refused.stderr.count("\n") == 1

"""`up`, `status` and `down` as a caller sees them: the real command line, the real API."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.stack.ports import choose_free, is_free
from app.stack.processes import wait_until, working_in
from tests.stack.conftest import make_home, remove_home
from tests.stack.test_machine import listening

ROOT = Path(__file__).resolve().parent.parent.parent
OURS = ("IPARKING_DATABASE_URL", "IPARKING_REDIS_URL", "IPARKING_ENV")
PATIENCE = 60  # seconds; a loaded machine starts slowly

Run = Callable[..., subprocess.CompletedProcess[str]]


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    return {**kept, "IPARKING_HOME": str(home), "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def service_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One folder for all tests here, so that the database is made once. As root its parent is closed to the servers."""
    home = make_home(tmp_path_factory.mktemp("service"))
    yield home
    remove_home(home)


@pytest.fixture
def run(service_home: Path) -> Iterator[Run]:
    """Runs the command line; what it left running is stopped at the end."""

    def run(*arguments: object, **changed: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app.cli", *map(str, arguments)]
        env = {**environment(service_home), **changed}
        # Reads until nobody holds the pipes any more: a descriptor that a server kept would hold up the test.
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, cwd="/")

    yield run
    run("down")


@pytest.fixture
def port() -> int:
    return choose_free()


def status(run: Run) -> dict[str, Any]:
    return json.loads(run("status", "--json").stdout)


def readiness(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
        return int(answer.status)


def test_detached_service_is_ready_at_return_and_down_leaves_nothing(run: Run, port: int, service_home: Path) -> None:
    started = run("up", "--detach", "--port", port, "--json")
    assert started.returncode == 0, started.stderr
    assert json.loads(started.stdout)["url"] == f"http://127.0.0.1:{port}"
    assert readiness(port) == 200
    assert (service_home / "keys.json").stat().st_mode & 0o777 == 0o600
    processes = status(run)["processes"]
    assert set(processes) == {"postgres", "redis", "server-api", "server-jobs", "up"}

    stopped = json.loads(run("down", "--json").stdout)["stopped"]
    assert stopped == sorted(processes)
    assert is_free(port)
    assert working_in((service_home / "data").resolve()) == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in processes.values())
    assert run("down").stdout == "nothing was running\n"


def test_second_up_is_harmless_and_another_port_is_refused(run: Run, port: int) -> None:
    assert run("up", "--detach", "--port", port).returncode == 0
    before = status(run)["processes"]
    again = run("up", "--port", port)
    assert again.returncode == 0
    assert "already serving" in again.stderr
    elsewhere = run("up", "--detach", "--port", choose_free())
    assert elsewhere.returncode == 1
    assert "run ./iparking down first" in elsewhere.stderr
    assert status(run)["processes"] == before


def test_what_dies_is_named_and_started_again(run: Run, port: int, service_home: Path) -> None:
    assert run("up", "--detach", "--port", port).returncode == 0
    log = service_home / "log" / "up.log"
    for name, words in (("postgres", "PostgreSQL"), ("redis", "Redis"), ("server-jobs", "the job process")):
        before = status(run)["processes"][name]
        os.kill(before, signal.SIGKILL)
        assert wait_until(lambda words=words: f"{words} runs again" in log.read_text(), PATIENCE), log.read_text()
        assert f"{words} ended by itself" in log.read_text()
        assert status(run)["processes"][name] != before
    assert wait_until(lambda: readiness(port) == 200, PATIENCE)


def test_up_takes_over_from_one_that_was_killed(run: Run, port: int) -> None:
    assert run("up", "--detach", "--port", port).returncode == 0
    before = status(run)["processes"]
    os.kill(before["up"], signal.SIGKILL)
    assert wait_until(lambda: status(run)["serving"] is None, PATIENCE)
    again = run("up", "--detach", "--port", port)
    assert again.returncode == 0, again.stderr
    after = status(run)["processes"]
    assert after["postgres"] == before["postgres"]
    assert after["server-api"] != before["server-api"]


def test_foreground_service_ends_with_an_interrupt(run: Run, port: int, service_home: Path) -> None:
    command = [sys.executable, "-m", "app.cli", "up", "--port", str(port)]
    with subprocess.Popen(command, env=environment(service_home), stderr=subprocess.PIPE, text=True) as service:
        assert service.stderr is not None
        assert f"serving on http://127.0.0.1:{port}" in service.stderr.readline()
        service.send_signal(signal.SIGINT)
        assert service.wait(PATIENCE) == 0
    assert status(run)["processes"] == {}


def test_taken_port_ends_in_one_line(run: Run, port: int) -> None:
    with listening(port):
        refused = run("up", "--detach", "--port", port)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"iparking: port {port} of the API is taken by ")
    assert refused.stderr.count("\n") == 1
    assert status(run)["processes"] == {}


def test_simulated_clock_goes_on_where_it_was_after_a_restart(run: Run, port: int) -> None:
    clock = {"IPARKING_CLOCK_START": "2026-03-02T07:00:00+07:00", "IPARKING_CLOCK_SPEED": "60"}
    anchors = []
    for _ in range(2):
        started = run("up", "--detach", "--port", port, "--env", "simulation", "--drivers", 3, **clock)
        assert started.returncode == 0, started.stderr
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            anchors.append(json.load(answer))
        run("down")
    assert [health["clock"]["speed"] for health in anchors] == [60.0, 60.0]
    assert anchors[0]["now"] < anchors[1]["now"] < "2026-03-02T23"
    assert anchors[0]["now"] >= "2026-03-02T07:00:00"


def test_unreachable_given_database_ends_in_one_line(run: Run, port: int) -> None:
    refused = run("up", "--port", port, IPARKING_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert refused.returncode == 1
    assert refused.stderr.startswith("iparking: ")
    assert "port 1 failed" in refused.stderr
    assert refused.stderr.count("\n") == 1

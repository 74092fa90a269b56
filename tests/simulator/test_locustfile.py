import os
import subprocess
import sys
from pathlib import Path

from simulator.auditor import audit
from tests.simulator.fake_service import FakeService, serving
from tests.simulator.runs import event, write_keys, write_trace

ROOT = Path(__file__).parents[2]


def locust(folder: Path, url: str, *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "simulator/locustfile.py"), "--headless", "--host", url]
    command += [
        "--trace",
        str(folder / "trace.jsonl"),
        "--keys",
        str(folder / "keys.json"),
        "--answers",
        str(folder / "answers"),
    ]
    command += ["--align", "now", "--only-summary", *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=folder
    )


def prepare(folder: Path, vehicles: int) -> None:
    starts = [event(n * 1.0, f"v{n}", "start") for n in range(1, vehicles + 1)]
    write_trace(folder, [*starts, *(event(60.0 + n, f"v{n}", "stop") for n in range(1, vehicles + 1))])
    write_keys(folder)


def test_locust_replays_the_trace_and_tells_the_three_times_apart(tmp_path: Path) -> None:
    prepare(tmp_path, 30)
    with serving(FakeService(speed=100)) as url:
        child = locust(tmp_path, url, "--users", "1")
        output, _ = child.communicate(timeout=60)
        found = audit([tmp_path / "answers.0"], tmp_path / "keys.json")
    assert child.returncode == 0, output
    assert found.verdict.kept == []
    assert (found.book.requests, len(found.book.sessions)) == (60, 30)
    for name in ("service p50", "lag p50", "response p50"):
        assert name in output


def test_workers_share_the_vehicles(tmp_path: Path) -> None:
    prepare(tmp_path, 40)
    service = FakeService(speed=100)
    port = str(25_000 + os.getpid() % 5_000)
    with serving(service) as url:
        workers = [locust(tmp_path, url, "--worker", "--master-port", port) for _ in range(2)]
        master = locust(tmp_path, url, "--master", "--master-bind-port", port, "--expect-workers", "2", "--users", "2")
        output, _ = master.communicate(timeout=90)
        for worker in workers:
            worker.communicate(timeout=30)
        found = audit([tmp_path / "answers.0", tmp_path / "answers.1"], tmp_path / "keys.json")
    assert master.returncode == 0, output
    assert found.verdict.kept == []
    assert (found.book.requests, len(service.sessions)) == (80, 40)

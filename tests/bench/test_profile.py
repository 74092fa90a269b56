"""A profile leaves a flame graph and the statements of a start."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from app.stack import Stack
from bench import profile
from bench.errors import BenchError
from bench.load import Client

SHORT = profile.Plan(seconds=2, workers=1, threads=2, client=Client(connections=4, threads=1, pgbench_connections=2))


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_profile_leaves_its_files(stack: Stack, tmp_path: Path) -> None:
    found = profile.measure(stack, replace(SHORT, folder=tmp_path / "out"), lambda line: None)
    files = {name: Path(path) for name, path in found["files"].items()}
    assert set(files) == {"flame_graph", "statements", "statements_json"}
    assert all(file.parent == tmp_path / "out" and file.stat().st_size > 0 for file in files.values())
    assert "<svg" in files["flame_graph"].read_text()
    assert "start_sessions" in files["statements"].read_text()
    assert any(not one["toplevel"] and "active_session" in one["query"] for one in found["statements"])
    assert found["starts"]["rps"] > 0


def test_a_sampler_that_fails_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(BenchError, match="py-spy failed"),
        profile._sampling(profile._sampler(), 2**22 - 1, tmp_path / "flame.svg", 2),
    ):
        pass

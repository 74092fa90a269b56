"""A very short run of the whole benchmark: its shape, and that what it measures is true."""

import os
import shutil
from pathlib import Path

import orjson
import psycopg
import pytest

from app.stack import Stack
from bench import core
from bench.load import Client

SHORT = core.Plan(
    rounds=1, seconds=1, warm_seconds=0, workers=1, threads=(2,), trials=1, trial_seconds=1,
    client=Client(connections=4, threads=1, pgbench_connections=2),
)  # fmt: skip
FIGURES = ("rps", "p50_ms", "p95_ms", "p99_ms", "cpu_us")


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    given = {
        "IPARKING_DATABASE_URL": os.environ["IPARKING_TEST_DATABASE_URL"],
        "IPARKING_REDIS_URL": os.environ["IPARKING_TEST_REDIS_URL"],
    }
    return Stack(tmp_path, environment=given)


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_short_run_has_every_figure_and_leaves_no_database(stack: Stack) -> None:
    found = orjson.loads(orjson.dumps(core.measure(stack, SHORT, lambda line: None)))
    assert set(found["results"]) == {"ceiling", "bare_json", "start", "stop", "map", "pgbench"}
    for name, figures in found["results"].items():
        assert all(figures[figure] > 0 for figure in FIGURES), (name, figures)
        assert figures["p50_ms"] <= figures["p95_ms"] <= figures["p99_ms"]
    assert set(found["ratios"]) == {"start", "stop", "map"}
    assert (found["rounds"], found["workers"], found["threads"]) == (1, 1, 2)
    assert found["machine"]["cores"] and found["machine"]["postgresql"]["fsync"]
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(stack.database_url("bench"))

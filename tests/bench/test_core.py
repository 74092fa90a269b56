"""A very short run of the whole benchmark: its shape, and that what it measures is true."""

import shutil

import orjson
import psycopg
import pytest

from app.stack import Stack
from bench import core
from bench.core import Plan
from bench.load import Client

SHORT = Plan(
    rounds=1, seconds=1, warm_seconds=0, workers=1, ceiling_threads=(2,), service_threads=(2, 4), trials=1,
    trial_seconds=1, client=Client(connections=4, threads=1, pgbench_connections=2),
)  # fmt: skip
FIGURES = ("rps", "p50_ms", "p95_ms", "p99_ms", "cpu_us")
RATIOS = {"start", "stop", "check", "map", "hot_zone", "open_loop_p99"}


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_short_run_has_every_figure_and_leaves_no_database(stack: Stack) -> None:
    found = orjson.loads(orjson.dumps(core.measure(stack, SHORT, lambda line: None)))
    assert list(found["results"]) == list(core.ORDER)
    for name, figures in found["results"].items():
        assert all(figures[figure] > 0 for figure in FIGURES), (name, figures)
        assert figures["p50_ms"] <= figures["p95_ms"] <= figures["p99_ms"]
        # Also where the service connects by a role of its own, of whose backends others are told little.
        asked = name not in ("map", "bare_bytes")  # which are answered from memory
        assert not asked or figures["cpu_us_by"]["postgresql"] > 0, (name, figures)
    assert set(found["ratios"]) == set(found["targets"]) == RATIOS
    assert found["open_loop"]["start"]["requests"] > 0
    assert found["open_loop"]["rate"] == pytest.approx(0.7 * found["results"]["ceiling"]["rps"], abs=0.1)
    assert (found["rounds"], found["workers"], found["threads"]["ceiling"]) == (1, 1, 2)
    assert set(found["start_by_threads"]) == {"2", "4"} and found["threads"]["service"] in (2, 4)
    assert found["map_bytes"] > 100_000
    assert found["machine"]["cores"] and found["machine"]["postgresql"]["fsync"]
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(stack.database_url("bench"))


def test_what_is_named_alone_brings_what_it_is_divided_by() -> None:
    assert Plan(only=("hot_zone", "check")).names() == ["check", "bare_read", "hot_zone", "hot_ceiling"]
    assert Plan(only=("ceiling",)).names() == ["ceiling"]
    assert (Plan(only=("open_loop",)).names(), Plan(only=("open_loop",)).has_open_loop()) == ([], True)
    assert (Plan().names(), Plan().has_open_loop()) == (list(core.ORDER), True)

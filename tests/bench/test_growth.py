"""Growth: each size beside the smallest, in paired bursts."""

import shutil

import orjson
import psycopg
import pytest

from app.stack import Stack
from bench import growth
from bench.load import Burst, Client
from bench.site import Measured

SHORT = growth.Plan(
    sizes=(200, 600), rounds=1, seconds=1, warm_seconds=0, workers=1, threads=2,
    client=Client(connections=4, threads=1, pgbench_connections=2),
)  # fmt: skip


def measured(rps: float, p50_ms: float) -> Measured:
    return Measured(Burst(round(rps * 10), 10.0, p50_ms, 2 * p50_ms, 4 * p50_ms), {"server": 100.0 * p50_ms})


def test_ratios_are_medians_of_paired_ones() -> None:
    rounds = [
        ({"start": measured(1000, 10)}, {"start": measured(900, 11)}),
        ({"start": measured(100, 100)}, {"start": measured(90, 110)}),
        ({"start": measured(1000, 10)}, {"start": measured(100, 100)}),
    ]
    assert growth.compare(rounds) == {"start": {"rps": 0.9, "p50_ms": 1.1, "p99_ms": 1.1, "cpu_us": 1.1}}


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_short_run_compares_every_call_and_leaves_no_database(stack: Stack) -> None:
    found = orjson.loads(orjson.dumps(growth.measure(stack, SHORT, lambda line: None)))
    assert [size["sessions"] for size in found["sizes"]] == [200, 600]
    assert all(size["bytes"] > 0 and size["load_seconds"] > 0 for size in found["sizes"])
    for size in found["sizes"]:
        assert set(size["ratios"]) == set(size["results"]) == set(growth.CALLS)
        for call in growth.CALLS:
            assert size["results"][call]["rps"] > 0
            assert set(size["ratios"][call]) == set(growth.FIGURES)
        assert isinstance(size["met"], bool)
    for size in SHORT.sizes:
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            psycopg.connect(stack.database_url(growth.database_of(size)))

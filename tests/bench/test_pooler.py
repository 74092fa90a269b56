"""A very short run of the pooler's benchmark: its shape, and that its loads really went through the PgBouncer."""

import shutil

import orjson
import pytest

from app.stack import Stack
from bench import pooler
from bench.load import Client
from tests.stack.conftest import open_place

# Warmed up: what the pooler spends on new connections would count among a cold burst's few requests, also one past it.
SHORT = pooler.Plan(rounds=1, seconds=2, warm_seconds=1, workers=1, threads=2, client=Client(connections=4, threads=1))


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_short_run_has_every_figure(one_run: dict[str, str]) -> None:
    with open_place() as folder:
        found = orjson.loads(orjson.dumps(pooler.measure(Stack(folder, environment=one_run), SHORT)))
    assert set(found["results"]) == {"start", "stop", "pooled_start", "pooled_stop"}
    assert all(figures["rps"] > 0 and figures["cpu_us"] > 0 for figures in found["results"].values())
    assert set(found["ratios"]) == {"start", "stop"}
    used = {name: figures["cpu_us_by"]["pgbouncer"] for name, figures in found["results"].items()}
    assert used["pooled_start"] > used["start"]

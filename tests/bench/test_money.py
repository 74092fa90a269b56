"""A very short run of the money benchmark: its shape, and that what it measures was really paid."""

import io
import shutil

import orjson
import pytest
from rich.console import Console

from app.stack import Stack
from bench import money
from bench.load import Client
from bench.money import Part

SHORT = money.Plan(
    rounds=1, seconds=1, warm_seconds=1, workers=1, threads=2, drivers=8, client=Client(connections=4, threads=1),
    only=("wallet_start",),
)  # fmt: skip


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_short_run_has_every_figure(stack: Stack) -> None:
    found = orjson.loads(orjson.dumps(money.measure(stack, SHORT, lambda line: None)))
    assert set(found["results"]) == {"free_start", "wallet_start", "free_stop", "wallet_stop"}
    assert all(figures["rps"] > 0 and figures["cpu_us"] > 0 for figures in found["results"].values())
    spent = {name: figures["cpu_us_by"]["postgresql"] for name, figures in found["results"].items()}
    assert spent["wallet_stop"] > spent["free_stop"], "a charge costs something: it was made"
    assert set(found["ratios"]) == set(found["ratio_rounds"]) == {"wallet_start", "wallet_stop"}
    assert found["targets"]["wallet_start"]["at_least"] == 0.75
    assert (found["rounds"], found["drivers"]) == (1, 8)


def test_parts_are_put_together_and_told_to_people(monkeypatch: pytest.MonkeyPatch, stack: Stack) -> None:
    monkeypatch.setattr(money, "PARTS", {"one": one_part, "other": None})
    found = money.measure(stack, money.Plan(only=("one",)), lambda line: None)
    assert (found["results"], found["ratios"], found["entries"]) == ({"one": {"seconds": 70.0}}, {"r": 0.8}, 7)
    out = io.StringIO()
    money.show(found, Console(file=out, width=100))
    assert "r: 0.80 (target at least 0.75: met)" in out.getvalue()
    assert "seconds (target at most 60: missed)" in out.getvalue()


def one_part(stack: Stack, plan: money.Plan, say: object) -> Part:
    """A part, as the bench asks for it."""
    targets = {"r": money.at_least(0.8, 0.75), "seconds": money.at_most(70.0, 60.0)}
    return Part({"one": {"seconds": 70.0}}, {"r": 0.8}, targets, {"entries": 7})

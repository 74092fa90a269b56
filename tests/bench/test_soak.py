"""Soak: the largest worker, and the line that fits a warm one."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.stack import Stack
from bench import soak
from bench.errors import BenchError
from bench.soak import MB, Sample

SHORT = soak.Plan(minutes=4 / 60, rate=50, every_seconds=0.5, workers=1, threads=2)


def samples(*sizes: float) -> list[Sample]:
    """One reading a minute of two workers: one as given, the other of 100 MB throughout."""
    return [Sample(60.0 * n, (round(size * MB), 100 * MB)) for n, size in enumerate(sizes)]


def test_growth_while_it_warms_up_does_not_count() -> None:
    found = soak.judge(samples(60, 90, 118, 120, 120, 120, 120, 120, 120, 120))
    assert (found["most_mb"], found["rise_mb"], found["met"]) == (120.0, 0.0, True)


def test_a_worker_that_goes_on_growing_is_not_flat() -> None:
    found = soak.judge(samples(*(100 + n for n in range(11))))
    assert (found["rise_mb"], found["rise_mb_an_hour"]) == (7.0, 60.0)
    assert (found["targets"]["most_mb"]["met"], found["targets"]["rise_mb"]["met"], found["met"]) == (
        True,
        False,
        False,
    )


def test_one_reading_above_the_bound_is_too_much() -> None:
    found = soak.judge(samples(100, 151, 100, 100, 100, 100))
    assert (found["most_mb"], found["met"]) == (151.0, False)


def test_too_few_readings_are_no_verdict() -> None:
    with pytest.raises(BenchError, match="soak longer"):
        soak.judge(samples(100, 100))
    with pytest.raises(BenchError, match="never read"):
        soak.judge([])


@given(st.floats(-3, 3), st.integers(10, 200), st.floats(50, 140))
def test_rise_is_that_of_a_straight_line(slope: float, number: int, begin: float) -> None:
    at = [float(n) for n in range(number)]
    assert soak._rise(at, [begin + slope * one for one in at]) == pytest.approx(slope * (number - 1), abs=1e-6)


def test_short_run_answers_every_call_and_reads_each_worker(stack: Stack) -> None:
    found = orjson.loads(orjson.dumps(soak.measure(stack, SHORT, lambda line: None)))
    assert all(found["answers"][kind] > 0 for kind in soak.MIX)
    assert 100 < sum(found["answers"].values()) < 320
    assert len(found["samples"]) >= 5
    assert all(len(sample["workers_mb"]) == 1 and sample["workers_mb"][0] > 30 for sample in found["samples"])
    assert set(found["targets"]) == {"most_mb", "rise_mb"}

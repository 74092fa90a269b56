"""Ratios are taken within a round, and their median counts."""

from hypothesis import given
from hypothesis import strategies as st

from bench import report
from bench.load import Burst
from bench.site import Measured

LOADS = ("ceiling", "bare_json", "start", "stop", "map", "pgbench")


def measured(rps: float, cpu_us: float = 100.0) -> Measured:
    return Measured(Burst(round(rps * 10), 10.0, 1.0, 2.0, 3.0), {"server": cpu_us, "postgresql": cpu_us / 2})


def one_round(**rps: float) -> dict[str, Measured]:
    return {name: measured(rps.get(name, 1000.0)) for name in LOADS}


def test_ratio_is_the_median_of_paired_ratios_and_not_the_ratio_of_medians() -> None:
    rounds = [one_round(start=900, ceiling=1000), one_round(start=90, ceiling=100), one_round(start=500, ceiling=2000)]
    found = report.summary(rounds)
    assert found["ratio_rounds"]["start"] == [0.9, 0.9, 0.25]
    assert found["ratios"]["start"] == 0.9
    assert found["targets"]["start"] == {"at_least": 0.5, "met": True}


def test_cpu_of_a_request_is_the_sum_of_all_who_served_it() -> None:
    found = report.results([one_round()])["start"]
    assert (found["cpu_us"], found["cpu_us_by"]) == (150.0, {"server": 100.0, "postgresql": 50.0})


speeds = st.floats(min_value=50, max_value=20_000)


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(LOADS, speeds)), min_size=1, max_size=9), st.floats(0.25, 4))
def test_a_machine_that_is_slower_in_some_rounds_changes_no_ratio(
    rounds: list[dict[str, float]], slower: float
) -> None:
    quiet = report.summary([one_round(**speeds) for speeds in rounds])
    noisy = report.summary(
        [
            one_round(**{name: rps * (slower if number % 2 else 1) for name, rps in speeds.items()})
            for number, speeds in enumerate(rounds)
        ]
    )
    for name, ratio in quiet["ratios"].items():
        assert abs(noisy["ratios"][name] - ratio) <= 0.03 * ratio + 0.002

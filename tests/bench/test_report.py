"""Ratios are taken within a round, and their median counts."""

from hypothesis import given
from hypothesis import strategies as st

from bench import report
from bench.load import Burst
from bench.openloop import Timings
from bench.site import Measured

LOADS = ("ceiling", "start", "stop", "check", "bare_read", "map", "bare_bytes", "hot_zone", "hot_ceiling", "pgbench")


def measured(rps: float, cpu_us: float = 100.0) -> Measured:
    return Measured(Burst(round(rps * 10), 10.0, 1.0, 2.0, 3.0), {"server": cpu_us, "postgresql": cpu_us / 2})


def one_round(**rps: float) -> dict[str, Measured]:
    return {name: measured(rps.get(name, 1000.0)) for name in LOADS}


def test_ratio_is_the_median_of_paired_ratios_and_not_the_ratio_of_medians() -> None:
    rounds = [one_round(start=900, ceiling=1000), one_round(start=90, ceiling=100), one_round(start=500, ceiling=2000)]
    found = report.summary(rounds)
    assert found["ratio_rounds"]["start"] == [0.9, 0.9, 0.25]
    assert found["ratios"]["start"] == 0.9
    assert found["targets"]["start"] == {"at_least": 1.0, "met": False}


def test_only_what_was_measured_is_reported() -> None:
    found = report.summary([{"start": measured(1100), "ceiling": measured(1000)}])
    assert (found["ratios"], set(found["targets"])) == ({"start": 1.1}, {"start"})
    assert "open_loop" not in found and "ceiling_to_pgbench" not in found


def test_open_loop_is_met_up_to_half_more_than_the_ceilings_own_p99() -> None:
    opened = report.Open(700.0)
    for slower in (1.0, 1.5, 1.6):
        opened.add("ceiling", Timings([0.0], [0.010], [0.0]))
        opened.add("start", Timings([0.0], [0.010 * slower], [0.0]))
    found = report.summary([], opened)
    assert found["ratio_rounds"]["open_loop_p99"] == [1.0, 1.5, 1.6]
    assert found["open_loop"]["target"] == {"at_most": 1.5, "met": True}
    assert (found["open_loop"]["rate"], found["open_loop"]["start"]["p99_ms"]) == (700.0, 15.0)


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

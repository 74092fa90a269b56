import io
from array import array
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.report import Latencies, Progress, milliseconds, print_demo, print_replay

seconds = st.lists(st.floats(0, 100), min_size=1, max_size=200)


def latencies(*rows: tuple[float, float, float, float]) -> Latencies:
    times = Latencies()
    for row in rows:
        times.add(*row)
    return times


def test_the_three_times_are_kept_apart() -> None:
    """due 0    ready 5 (its own last answer)   sent 5.5    answered 7"""
    times = latencies((0.0, 5.0, 5.5, 7.0)).as_dict()
    assert times["lag_ms"]["max"] == 500.0
    assert times["service_ms"]["max"] == 1500.0
    assert times["response_ms"]["max"] == 7000.0


@pytest.mark.parametrize(("late", "valid"), [(0.0099, True), (0.0101, False)])
def test_a_client_that_is_late_itself_makes_the_latencies_invalid(late: float, valid: bool) -> None:
    assert latencies(*[(0.0, 0.0, late, 1.0)] * 100).valid is valid


def test_one_late_request_of_a_thousand_does_no_harm() -> None:
    assert latencies(*[(0.0, 0.0, 0.001, 1.0)] * 999, (0.0, 0.0, 5.0, 6.0)).valid


@given(seconds, seconds)
def test_percentiles_of_parts_are_those_of_the_whole(first: list[float], second: list[float]) -> None:
    found = milliseconds(array("d", first), array("d", second))
    expected = np.percentile([*first, *second], (50, 95, 99)) * 1000
    assert list(found.values())[:3] == pytest.approx(list(expected), abs=0.01)
    assert found["p50"] <= found["p95"] <= found["p99"] <= found["max"]


def test_nothing_measured_is_zero() -> None:
    assert milliseconds() == milliseconds(array("d")) == {"p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_live_line_is_rewritten_on_a_terminal_and_rare_elsewhere() -> None:
    terminal, file = Terminal(), io.StringIO()
    for out in (terminal, file):
        progress = Progress(out)
        progress.show("too early")
        progress.show("done", last=True)
    assert terminal.getvalue() == "\r\x1b[2Kdone\n"
    assert file.getvalue() == "done\n"


def test_quiet_says_nothing() -> None:
    out = io.StringIO()
    Progress(out, quiet=True).show("x", last=True)
    assert out.getvalue() == ""


def figures(**more: Any) -> dict[str, Any]:
    times = {"p50": 1.0, "p95": 2.0, "p99": 30.0, "max": 40.0}
    return {
        "requests": 10, "seconds": 2.0, "requests_per_second": 5.0, "retries": 0, "unanswered": 0, "skipped": 0,
        "client_cpu_us": 100.0, "partial": True, "latency_valid": False, "lag_ms": times, "service_ms": times,
        "response_ms": times, **more,
    }  # fmt: skip


def test_a_replay_says_when_it_is_partial_or_invalid() -> None:
    out = io.StringIO()
    print_replay(figures(), out)
    assert "partial run" in out.getvalue()
    assert "invalid" in out.getvalue()
    assert "synthetic" in out.getvalue()


def demo(**more: Any) -> dict[str, Any]:
    money = {"revenue": 1_000_000, "ledger": 1_000_000, "receipts": 1_000_000}
    row = {"code": "002", "name": "Hoàn Kiếm", "sessions": 1234, "peak_occupancy": 0.5, **money}
    row |= {"p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0}
    return {
        **figures(), "date": "2026-11-24", "speed": 120.0, "districts": [row], "sessions": 1234, **money,
        "errors": 0, "refusals": 3, "refusals_by_code": {"zone_full": 3}, "divergences": 0, "berlin": None,
        "divergence_details": [], "url": "http://127.0.0.1:8100", **more,
    }  # fmt: skip


def test_a_demo_ends_with_its_verdict_and_its_address() -> None:
    out = io.StringIO()
    print_demo(demo(), out)
    assert "Hoàn Kiếm" in out.getvalue()
    assert "ledger 1,000,000 VND, receipts 1,000,000 VND: as the bills, in every district" in out.getvalue()
    assert "1,000,000" in out.getvalue()
    assert "3 zone_full" in out.getvalue()
    assert out.getvalue().rstrip().splitlines()[-2:] == [
        "0 divergences",
        "goes on serving at 1x: http://127.0.0.1:8100",
    ]


def test_a_demo_prints_what_diverges_as_it_is() -> None:
    """Also where it looks like markup."""
    out = io.StringIO()
    print_demo(demo(divergences=1, divergence_details=["count: [bold]HK-001"], url=None), out)
    assert "count: [bold]HK-001" in out.getvalue()
    assert out.getvalue().rstrip().endswith("1 divergences")

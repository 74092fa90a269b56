"""A burst that met an error is no result."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.errors import BenchError
from bench.load import libpq_environment, read_pgbench, read_wrk

NO_ERRORS = {"connect": 0, "read": 0, "write": 0, "status": 0, "timeout": 0}


def output(**changed: Any) -> str:
    """What wrk prints: its own report, and our line of JSON."""
    found = {"requests": 300, "seconds": 1.5, "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0, "errors": NO_ERRORS}
    return f"Running 1s test\n  300 requests in 1.50s\n\n{json.dumps(found | changed)}\n".replace(": ", ":")


def test_a_clean_burst_is_read() -> None:
    burst = read_wrk("start", output())
    assert (burst.requests, burst.rps, burst.p99_ms) == (300, 200.0, 3.0)


@pytest.mark.parametrize("kind", sorted(NO_ERRORS))
def test_one_error_of_any_kind_spoils_the_burst(kind: str) -> None:
    with pytest.raises(BenchError, match=kind):
        read_wrk("start", output(errors=NO_ERRORS | {kind: 1}))


def test_a_burst_without_an_answer_is_no_result() -> None:
    with pytest.raises(BenchError):
        read_wrk("start", output(requests=0))


def test_a_client_that_printed_no_figures_is_named_with_what_it_said() -> None:
    with pytest.raises(BenchError, match="unable to connect"):
        read_wrk("start", "unable to connect to 127.0.0.1:1 Connection refused\n")


def test_percentiles_of_pgbench_come_from_all_of_its_logs(tmp_path: Path) -> None:
    for part in range(2):
        lines = [f"0 {n} {n * 1000} 0 1700000000 0" for n in range(1 + part, 101, 2)]
        (tmp_path / f"transactions.1.{part}").write_text("\n".join(lines) + "\n")
    burst = read_pgbench(tmp_path, 4)
    assert (burst.rps, burst.p50_ms, burst.p95_ms, burst.p99_ms) == (25.0, 51.0, 96.0, 100.0)


def test_password_reaches_libpq_programs_through_the_environment() -> None:
    assert libpq_environment("postgresql://anna:geheim@127.0.0.1:5433/bench") == {
        "PGHOST": "127.0.0.1", "PGPORT": "5433", "PGUSER": "anna", "PGPASSWORD": "geheim", "PGDATABASE": "bench",
    }  # fmt: skip

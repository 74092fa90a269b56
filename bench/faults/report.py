"""The faults as a table and as one document."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.faults.kinds import BY_NAME
from bench.faults.trial import Result


def summary(results: Sequence[Result], seed: int, took: float) -> dict[str, Any]:
    """All that was found; `divergences` are those of all faults together."""
    return {
        "seed": seed,
        "faults": [result.as_dict() for result in results],
        "divergences": sum(result.divergences for result in results),
        "lost": sum(result.lost for result in results),
        "doubled": sum(result.doubled for result in results),
        "violations": sum(len(result.violations) for result in results),
        "took_seconds": round(took, 1),
    }


def show(found: dict[str, Any], console: Console) -> None:
    """Print a run for people."""
    table = Table(title=f"bench faults (seed {found['seed']}, {found['took_seconds']:.0f} s)", title_justify="left")
    for heading in ("fault", "requests", "in flight", "errors by kind", "slowest 503", "recovered", "lost", "doubled"):
        table.add_column(heading, justify="left" if heading in ("fault", "errors by kind") else "right")
    for result in found["faults"]:
        table.add_row(*_cells(result))
    console.print(table)
    for result in found["faults"]:
        for violation in result["violations"]:
            console.print(f"{result['name']}: {violation}", style="red", markup=False)
    console.print(f"{found['lost']} starts lost, {found['doubled']} doubled", style="bold")
    console.print(f"{found['divergences']} divergences", style="bold")


def _cells(result: dict[str, Any]) -> list[str]:
    words = BY_NAME[result["name"]].words
    if result["skipped"]:
        return [words, "", "", f"skipped: {result['skipped']}", "", "", "", ""]
    kinds = ", ".join(f"{number} {kind}" for kind, number in result["errors_by_kind"].items()) or "none"
    slowest = "" if result["slowest_503_s"] is None else f"{result['slowest_503_s']:.2f} s"
    return [
        words, str(result["requests"]), str(result["in_flight"]), kinds, slowest, f"{result['recovered_s']:.1f} s",
        str(result["lost"]), str(result["doubled"]),
    ]  # fmt: skip

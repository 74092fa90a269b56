"""`./iparking bench money`: what money costs, and whether a large ledger can be checked and reconciled in time.

Each part stands in a module of its own, and has a function in PARTS that gives what it found as a Part.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from app.stack import Stack
from bench import machine
from bench.core import Say, give, progress
from bench.errors import BenchError
from bench.load import Client

ROUNDS = 7
SECONDS = 3
MOST_SECONDS_TO_RECONCILE = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. `only` names parts (None: all); rounds and bursts are those of the parts that have some.
    `keep` leaves the database of the ledger check, and takes the one that is there."""

    rounds: int = ROUNDS
    seconds: int = SECONDS
    warm_seconds: int = 1
    workers: int = 2
    threads: int = 16
    drivers: int = 1_000
    only: Sequence[str] | None = None
    keep: bool = False
    client: Client = field(default_factory=Client)

    def names(self) -> list[str]:
        """The parts to be measured, in their order."""
        return [name for name in PARTS if self.only is None or name in self.only]


@dataclass(frozen=True, slots=True)
class Part:
    """What a part found: figures by the name of what was measured, ratios, and what each figure or ratio should reach
    (`at_least` or `at_most`, and `met`). `details` go into the JSON as they are."""

    results: Mapping[str, Mapping[str, Any]]
    ratios: Mapping[str, float] = field(default_factory=dict)
    targets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


def _wallet_start(stack: Stack, plan: Plan, say: Say) -> Part:
    from bench import money_starts  # each part is imported when it is measured

    return money_starts.measure(stack, plan, say)


def _ledger_check(stack: Stack, plan: Plan, say: Say) -> Part:
    from bench import money_ledger

    found = money_ledger.ledger_check(stack, keep=plan.keep)
    if not found["ok"]:
        raise BenchError("the check found that the ledger which was loaded is not whole")
    targets = {
        "ledger_check": at_most(found["seconds"], money_ledger.MOST_SECONDS),
        "ledger_check_mb": at_most(found["mb"], money_ledger.MOST_MB),
    }
    return Part({"ledger_check": found}, targets=targets)


def _reconcile(stack: Stack, plan: Plan, say: Say) -> Part:
    from bench import money_reconcile

    try:
        found = money_reconcile.measure_month(stack, say)
    finally:
        stack.drop_database(money_reconcile.DATABASE)
    return Part({"reconcile": found}, targets={"reconcile": at_most(found["seconds"], MOST_SECONDS_TO_RECONCILE)})


# By name, in their order.
PARTS: dict[str, Callable[[Stack, Plan, Say], Part]] = {
    "wallet_start": _wallet_start,
    "ledger_check": _ledger_check,
    "reconcile": _reconcile,
}


def run(json: bool = False, **given: Any) -> int:
    """Measure on the private servers and print the figures; the exit code. Raises StackError, BenchError.

    `given` are fields of Plan.
    """
    with Stack() as stack:
        found = measure(stack, Plan(**given))
    give(found, show, json)
    return 0


def measure(stack: Stack, plan: Plan, say: Say | None = None) -> dict[str, Any]:
    """All parts together. Raises BenchError where a figure would not be true."""
    began = time.monotonic()
    found: dict[str, Any] = {"machine": machine.describe_stack(stack), "results": {}, "ratios": {}, "targets": {}}
    for name in plan.names():
        part = PARTS[name](stack, plan, say or progress)
        for key in ("results", "ratios", "targets"):
            found[key] |= getattr(part, key)
        found |= part.details
    return found | {"took_seconds": round(time.monotonic() - began, 1)}


def at_least(value: float, bound: float) -> dict[str, Any]:
    """A target that a figure should not fall below."""
    return {"at_least": bound, "met": value >= bound}


def at_most(value: float, bound: float) -> dict[str, Any]:
    """A target that a figure should not pass."""
    return {"at_most": bound, "met": value <= bound}


def show(found: Mapping[str, Any], console: Console) -> None:
    """Print a run for people."""
    table = Table(title="bench money")
    for heading in ("", "figures"):
        table.add_column(heading)
    for name, figures in found["results"].items():
        table.add_row(name, ", ".join(_figure(*figure) for figure in figures.items()))
    console.print(table)
    for name, ratio in found["ratios"].items():
        console.print(f"{name}: {ratio:.2f}{_verdict(found['targets'].get(name))}")
    for name in found["targets"]:
        if name not in found["ratios"]:
            console.print(f"{name}{_verdict(found['targets'][name])}")


def _figure(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{name} ({', '.join(_figure(*part) for part in value.items())})"
    return f"{name} {value:,}" if isinstance(value, int | float) else f"{name} {value}"


def _verdict(target: Mapping[str, Any] | None) -> str:
    if target is None:
        return ""
    bound = f"at least {target['at_least']:g}" if "at_least" in target else f"at most {target['at_most']:g}"
    return f" (target {bound}: {'met' if target['met'] else 'missed'})"

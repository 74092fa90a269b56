"""Whether what many clients were answered at once is what a service could have answered that does one thing after
another: no zone oversold, no place kept from anybody, one session a plate, nothing lost, nothing doubled.

    history = record.read(files)
    report = check(history, {("HK-001", "car"): ZoneModel(4)})
    report.violations   # [] where all is well

The history is checked zone by zone and plate by plate (a history is linearizable where each object's part of it is, and
what is asked of an object is asked in its part). A start is part of two, its zone's and its plate's; that one instant
suits both at once is not asked. Advisory zones admit always; of them only the counts are checked.

It says yes or no to what the clients saw. What the database holds is the auditor's.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from msgspec.structs import replace

from simulator.history import bounds, linearizability, record
from simulator.history.models import Model, PlateModel, ZoneModel
from simulator.history.record import Operation
from simulator.history.repeats import settle
from simulator.history.violation import Violation

__all__ = ["Operation", "PlateModel", "Report", "Violation", "ZoneModel", "check", "record"]

ZoneAndClass = tuple[str, str]
PlateAndClass = tuple[str, str]
OF_A_ZONE = frozenset({"start", "stop", "expiry", "capacity", "count"})
OF_A_PLATE = frozenset({"start", "stop", "extend", "look", "expiry"})
# Tried before a count may be as old as is allowed: a part of that age, and so many configurations an operation.
FRESHER = (256, 16)
FRESH_CONFIGURATIONS = 10
CHANGES = (record.DONE, record.MAYBE)


@dataclass(slots=True)
class Report:
    """What a history shows. `unanswered` operations may have happened; `objects` are zones and plates, by class."""

    operations: int = 0
    unanswered: int = 0
    objects: int = 0
    violations: list[Violation] = field(default_factory=list)


def check(
    operations: Iterable[Operation],
    zones: Mapping[ZoneAndClass, ZoneModel],
    *,
    count_age: int = 0,
    exact: bool = True,
    max_configurations: int = linearizability.MAX_CONFIGURATIONS,
) -> Report:
    """Check a history against zones as they were at its beginning, when no plate had a session that it names.

    `count_age`: how old a count may be, in nanoseconds. With `exact` an order of the operations is searched for, in as
    many configurations an object, else only the bounds are checked. Raises KeyError where the history names a zone that
    is not given.
    """
    history = list(operations)
    effects = settle(history)
    report = Report(len(history), sum(one.is_open for one in history), violations=effects.violations)
    for zone, part in _parts(effects.operations, _zone_of).items():
        model = zones[zone]
        facts = {"strict": model.strict, "occupied": model.initial.occupied, "count_age": count_age}
        report.violations += bounds.check_zone(part, model.initial.capacity, **facts)  # type: ignore[arg-type]
        _search(report, f"zone {zone}", model, part, max_configurations if exact else 0, count_age)
    for plate, part in _parts(effects.operations, _plate_of).items():
        report.violations += bounds.check_plate(part)
        _search(report, f"plate {plate}", PlateModel(), part, max_configurations if exact else 0)
    return report


def _search(
    report: Report, name: str, model: Model, operations: list[Operation], max_configurations: int, count_age: int = 0
) -> None:
    report.objects += 1
    if not max_configurations or _is_fresh(model, operations, count_age):
        return
    try:
        stuck = linearizability.check(model, [_aged(one, count_age) for one in operations], max_configurations)
    except linearizability.Undecided as undecided:
        report.violations.append(Violation("undecided", f"{name}: {undecided}", ()))
        return
    if stuck is not None:
        detail = f"{name}: after {stuck.ordered} operations it is {stuck.state}, and nothing can be next"
        report.violations.append(Violation("not_linearizable", detail, stuck.candidates))


def _is_fresh(model: Model, operations: list[Operation], count_age: int) -> bool:
    """Whether the history has an order already where counts are far less old than they may be.

    It proves more, and is found soon: a few counts wait at a time. Where each may be seconds old, hundreds wait for a
    state that answers them, and the search may grow without bound. That is left for histories with a count that is.
    """
    for part in FRESHER if count_age else ():
        aged = [_aged(one, count_age // part) for one in operations]
        with suppress(linearizability.Undecided):
            if linearizability.check(model, aged, FRESH_CONFIGURATIONS * len(aged)) is None:
                return True
    return False


def _parts(
    operations: list[Operation], part_of: Callable[[Operation], tuple[str, str] | None]
) -> dict[tuple[str, str], list[Operation]]:
    parts: dict[tuple[str, str], list[Operation]] = defaultdict(list)
    for operation in operations:
        part = part_of(operation)
        if part is not None:
            parts[part].append(operation)
    return parts


def _zone_of(operation: Operation) -> ZoneAndClass | None:
    """Which zone the operation tells about: refused starts only where it was full, other refusals not at all."""
    tells = operation.outcome in CHANGES or (operation.action, operation.outcome) == ("start", "zone_full")
    return (operation.zone, operation.vehicle_class) if operation.action in OF_A_ZONE and tells else None


def _plate_of(operation: Operation) -> PlateAndClass | None:
    is_about_it = operation.action in OF_A_PLATE and operation.outcome != "zone_full"
    return (operation.plate, operation.vehicle_class) if is_about_it else None


def _aged(operation: Operation, age: int) -> Operation:
    """A count that may be old is one that may have been taken earlier."""
    return replace(operation, invoked=operation.invoked - age) if age and operation.action == "count" else operation

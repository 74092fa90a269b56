"""Histories as short as they can be written: instants are small numbers, and operations are named by what they are."""

from typing import Any

from simulator import history
from simulator.history import Operation, Report, ZoneModel
from simulator.history.record import DONE, MAYBE

ZONE, CAR, PLATE = "HK-001", "car", "30A-000.01"


def operation(action: str, invoked: int, returned: int | None, outcome: str = DONE, **facts: Any) -> Operation:
    """An operation in the zone ZONE; what got no answer is MAYBE."""
    outcome = MAYBE if returned is None else outcome
    known = {"zone": ZONE, "vehicle_class": CAR, "plate": PLATE, "client": "driver"} | facts
    return Operation(action, outcome, invoked, returned, **known)


def start(invoked: int, returned: int | None, session: str = "", outcome: str = DONE, **facts: Any) -> Operation:
    """A start that made `session` (of a plate of its own, unless one is given), or none."""
    facts.setdefault("plate", f"plate of {session or invoked}")
    return operation("start", invoked, returned, outcome, session=session or None, **facts)


def stop(invoked: int, returned: int | None, session: str, outcome: str = DONE, **facts: Any) -> Operation:
    facts.setdefault("plate", f"plate of {session}")
    return operation("stop", invoked, returned, outcome, session=session, **facts)


def full(invoked: int, returned: int, **facts: Any) -> Operation:
    return start(invoked, returned, outcome="zone_full", **facts)


def parked(invoked: int, returned: int, **facts: Any) -> Operation:
    """A start of PLATE that was refused, as it is parked already."""
    return start(invoked, returned, outcome="already_parked", plate=PLATE, **facts)


def expiry(invoked: int, returned: int, session: str) -> Operation:
    return operation("expiry", invoked, returned, session=session, plate=f"plate of {session}")


def places(invoked: int, returned: int, number: int) -> Operation:
    """A change of the zone's capacity."""
    return operation("capacity", invoked, returned, number=number, plate="")


def rules(operations: list[Operation], capacity: int = 1, *, strict: bool = True, **how: Any) -> set[str]:
    """What is wrong with a history of the one zone."""
    return {violation.rule for violation in report(operations, capacity, strict=strict, **how).violations}


def report(operations: list[Operation], capacity: int = 1, *, strict: bool = True, **how: Any) -> Report:
    return history.check(operations, {(ZONE, CAR): ZoneModel(capacity, strict=strict)}, **how)

"""Rights where prices come in: which stay costs a vehicle nothing, though its rate asks something."""

from datetime import datetime
from zoneinfo import ZoneInfo

from app.resources import Resources
from billing.errors import NotFree
from zones import plates, rights
from zones.places import Place

HANOI = ZoneInfo("Asia/Ho_Chi_Minh")


def free_until(
    resources: Resources, place: Place, plate: str, vehicle_class: str, start: datetime, end: datetime | None, *,
    is_needed: bool,
) -> datetime | None:  # fmt: skip
    """Until when a vehicle may stand there from `start` on without paying, by its rights; None where it has none then.

    Where a right is needed, raises NotFree if that is before `end`; without an end, if it is not now.
    """
    until = rights.covered_until(resources.connections.get(), plate, vehicle_class, place, start)
    if not is_needed:
        return until
    if until is None:
        raise NotFree("this stay is not free of charge: choose how it is to be paid")
    if end is not None and end > until:
        held = until.astimezone(HANOI).isoformat(timespec="milliseconds")
        raise NotFree(f"the vehicle's right holds here until {held}: ask for less, or choose how it is to be paid")
    return until


def cover(resources: Resources, place: Place, plate: str, vehicle_class: str, start: datetime, end: datetime) -> bool:
    """Whether a vehicle's rights cover a whole stay. Raises InvalidPlate."""
    text = plates.parse(plate, vehicle_class).text
    until = rights.covered_until(resources.connections.get(), text, vehicle_class, place, start)
    return until is not None and until >= end

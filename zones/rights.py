"""Rights: a vehicle may stand in a zone, a district or the whole city without paying; a permit is a right that lasts.

A right belongs to a plate with its class, and holds from `valid_from` (inclusive) until `valid_until` (exclusive) or
until it is revoked, if that comes before. It is never changed otherwise, so what held at any past instant can still be
told. Rights may overlap: a vehicle may stand where any of its rights lets it, and those that follow each other without
a gap are as good as one. Only the same right twice (vehicle, kind, place) is refused.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from zones import errors, plates, sessions
from zones.places import Place, Places
from zones.terms import VEHICLE_CLASSES

# Why a vehicle need not pay. `monthly`: its month was paid for elsewhere.
KINDS = ("resident", "disabled", "official", "event", "monthly")
STATES = ("upcoming", "valid", "over", "revoked")


class Wanted(NamedTuple):
    """A right to be granted: in a zone, a district or (neither) the whole city. `reference` is a paper's number."""

    kind: str
    plate: str
    vehicle_class: str
    zone: str | None
    district: str | None
    valid_from: datetime
    valid_until: datetime
    reference: str | None


class Right(NamedTuple):
    """A right as it stands at an instant."""

    id: UUID
    kind: str
    plate: str
    vehicle_class: str
    zone_code: str | None
    district_code: str | None
    valid_from: datetime
    valid_until: datetime
    state: str
    reference: str | None
    reason: str
    granted_at: datetime
    granted_by: str
    revoked_at: datetime | None
    revoked_by: str | None
    revocation: str | None


_STATE = """CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN valid_until <= %(now)s THEN 'over'
    WHEN valid_from > %(now)s THEN 'upcoming' ELSE 'valid' END"""
_COLUMNS = ", ".join(f"{_STATE} AS state" if name == "state" else name for name in Right._fields)


def grant(connection: psycopg.Connection, places: Places, wanted: Wanted, by: str, now: datetime, reason: str) -> Right:
    """Grant a right. Raises InvalidPlate, ClassNotServed, UnknownZone, UnknownDistrict, AlreadyGranted."""
    if wanted.vehicle_class not in VEHICLE_CLASSES:
        raise errors.ClassNotServed(f"{wanted.vehicle_class} is not served; served are {', '.join(VEHICLE_CLASSES)}")
    if wanted.zone is not None and wanted.zone not in places.by_code:
        raise errors.UnknownZone(f"no zone {wanted.zone}")
    if wanted.district is not None and wanted.district not in {area.code for area in places.districts}:
        raise errors.UnknownDistrict(f"no district {wanted.district}")
    values = wanted._asdict() | {
        "id": sessions.new_id(now),
        "plate": plates.parse(wanted.plate, wanted.vehicle_class).text,
        "now": now,
        "by": by,
        "reason": reason,
    }
    try:
        with connection.transaction():
            connection.execute(_LOCK, values)
            granted = _one(connection, _GRANT, values)
    except psycopg.errors.ExclusionViolation:
        raise errors.AlreadyGranted("the vehicle has a right of this kind there for some of this time") from None
    assert granted is not None
    return granted


# Two who insert the same at once would each find the other's row and wait for it.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('parking_right'), hashtext(%(plate)s))"
_GRANT = f"""
INSERT INTO parking_right (id, kind, plate, vehicle_class, zone_code, district_code, valid_from, valid_until, reference,
                           reason, granted_at, granted_by)
VALUES (%(id)s, %(kind)s, %(plate)s, %(vehicle_class)s, %(zone)s, %(district)s, %(valid_from)s, %(valid_until)s,
        %(reference)s, %(reason)s, %(now)s, %(by)s)
RETURNING {_COLUMNS}
"""


def _one(connection: psycopg.Connection, query: str, values: dict[str, object]) -> Right | None:
    with connection.cursor(row_factory=class_row(Right)) as cursor:
        return cursor.execute(query, values).fetchone()


def revoke(connection: psycopg.Connection, right_id: UUID, by: str, now: datetime, reason: str) -> tuple[Right, bool]:
    """End a right now: the right, and whether it was this call that did it. The first revocation stands.

    Sessions that began by it stay free as agreed. Raises UnknownRight, RightOver.
    """
    revoked = _one(connection, _REVOKE, {"id": right_id, "by": by, "now": now, "reason": reason})
    if revoked is not None:
        return revoked, True
    found = find(connection, right_id, now)
    if found.state != "revoked":
        raise errors.RightOver("the right's time is over: there is nothing to revoke")
    return found, False


_REVOKE = f"""
UPDATE parking_right SET revoked_at = %(now)s, revoked_by = %(by)s, revocation = %(reason)s
 WHERE id = %(id)s AND revoked_at IS NULL AND valid_until > %(now)s
RETURNING {_COLUMNS}
"""


def find(connection: psycopg.Connection, right_id: UUID, now: datetime) -> Right:
    """One right as it stands at `now`. Raises UnknownRight."""
    found = _one(connection, f"SELECT {_COLUMNS} FROM parking_right WHERE id = %(id)s", {"id": right_id, "now": now})
    if found is None:
        raise errors.UnknownRight("no such permit")
    return found


def find_all(
    connection: psycopg.Connection,
    now: datetime,
    limit: int,
    *,
    texts: Sequence[str] | None = None,
    zone: str | None = None,
    district: str | None = None,
    state: str | None = None,
    before: UUID | None = None,
) -> list[Right]:
    """Rights as they stand at `now`, the last granted first, at most `limit`, granted before `before`.

    `texts` are canonical plates; `zone` and `district` are those for which the right was granted.
    """
    values = {"now": now, "limit": limit, "texts": texts, "zone": zone, "district": district, "state": state}
    with connection.cursor(row_factory=class_row(Right)) as cursor:
        return cursor.execute(_LIST, values | {"before": before}).fetchall()


_LIST = f"""
SELECT {_COLUMNS} FROM parking_right
 WHERE (%(texts)s::text[] IS NULL OR plate = ANY (%(texts)s::text[]))
   AND (%(zone)s::text IS NULL OR zone_code = %(zone)s::text)
   AND (%(district)s::text IS NULL OR district_code = %(district)s::text)
   AND (%(state)s::text IS NULL OR {_STATE} = %(state)s::text)
   AND (%(before)s::uuid IS NULL OR id < %(before)s::uuid)
 ORDER BY id DESC LIMIT %(limit)s
"""


def covered_until(
    connection: psycopg.Connection, plate: str, vehicle_class: str, place: Place, at: datetime
) -> datetime | None:
    """Until when a vehicle that stands in a zone at `at` may stay there by its rights; None where it has none then."""
    until = at
    held = connection.execute(_COVERING, (plate, vehicle_class, at, place.code, place.district))
    for begins, ends in held.fetchall():
        if begins > until:
            break
        until = max(until, ends)
    return until if until > at else None


_COVERING = """
SELECT valid_from, LEAST(valid_until, revoked_at) FROM parking_right
 WHERE plate = %s AND vehicle_class = %s AND LEAST(valid_until, revoked_at) > %s
   AND (zone_code = %s OR district_code = %s OR COALESCE(zone_code, district_code) IS NULL)
 ORDER BY valid_from
"""

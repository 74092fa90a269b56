"""Finished sessions as papers about them tell them: with the names that zone and district had when they began."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from zones.sessions import started_at_of


class Stay(NamedTuple):
    """One finished session. `district_name` is that of the district that was asked for with it."""

    id: UUID
    zone: str
    zone_name: str
    street: str
    district_name: str
    plate: str
    vehicle_class: str
    started_at: datetime
    ends_at: datetime | None
    ended_at: datetime
    payment_method: str
    rate_version: str


# A zone or district that began later than the session (the city was loaded after it) goes by its first name.
_STAYS = """
SELECT s.id, s.zone_code AS zone, COALESCE(z.name, s.zone_code) AS zone_name, COALESCE(z.street, '') AS street,
       COALESCE(d.name, w.district) AS district_name, s.plate, s.vehicle_class, s.started_at, s.ends_at, s.ended_at,
       s.payment_method, s.rate_version
  FROM unnest(%s::uuid[], %s::timestamptz[], %s::text[]) w(id, started_at, district)
  JOIN parking_session s ON s.id = w.id AND s.started_at = w.started_at
  LEFT JOIN LATERAL (
       SELECT z.name, z.street FROM zone z WHERE z.code = s.zone_code
        ORDER BY z.valid_from <= s.started_at DESC, abs(extract(epoch FROM z.valid_from - s.started_at))
        LIMIT 1) z ON true
  LEFT JOIN LATERAL (
       SELECT d.name FROM district d WHERE d.code = w.district
        ORDER BY d.valid_from <= s.started_at DESC, abs(extract(epoch FROM d.valid_from - s.started_at))
        LIMIT 1) d ON true
"""


def finished(connection: psycopg.Connection, districts: Mapping[UUID, str]) -> dict[UUID, Stay]:
    """Sessions by id, those that are finished; `districts` gives each one's district, whose name is looked up."""
    ids = list(districts)
    values = (ids, [started_at_of(one) for one in ids], list(districts.values()))
    with connection.cursor(row_factory=class_row(Stay)) as cursor:
        return {stay.id: stay for stay in cursor.execute(_STAYS, values).fetchall()}

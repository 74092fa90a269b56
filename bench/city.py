"""What the loads need of the bench's database: places for everyone, free zones, map boxes of a known size, sessions to
stop."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import psycopg

from bench.errors import BenchError

# No burst may meet a full zone: a refusal is cheaper than a start, and the figures would be those of refusals.
CAPACITY = 10_000_000
ZONES_IN_BOX = 500
# How often each shipped zone is repeated beside itself (degrees east and north, some 60 m), so that a map of 500 zones
# has zones to leave out. No two copies have a side in line.
COPIES = ((0.000613, 0.000207), (-0.000271, 0.000659), (0.000347, -0.000533))
# Where parking costs nothing, a session need not be paid for: it is started with the method `free`.
FREE_AREA = "bench_free"
_FREE_PLAN = f"""
INSERT INTO rate_plan (version, rate_area, vehicle_class, unit, valid_from, timezone)
VALUES ('{FREE_AREA}-car', '{FREE_AREA}', 'car', 'hour', '2018-01-01T00:00+07:00', 'Asia/Ho_Chi_Minh')"""
_FREE_PRICE = f"""
INSERT INTO rate_line (version, part, from_unit, price, source) VALUES ('{FREE_AREA}-car', 'day', 1, 0, 'assumed')"""
_COPY = """
WITH copied AS (
    INSERT INTO zone (id, code, name, street, district_code, rate_area, kind, admission, max_stay_minutes,
                      capacity_source, geometry, published_at, updated_at, valid_from)
    SELECT gen_random_uuid(), code || '-' || %(copy)s, name, street, district_code, rate_area, kind, admission,
           max_stay_minutes, capacity_source, ST_Translate(geometry, %(east)s, %(north)s), published_at, updated_at,
           valid_from
      FROM zone WHERE valid_to IS NULL AND code = ANY (%(codes)s)
    RETURNING code
)
INSERT INTO zone_occupancy (zone_code, vehicle_class, admission, capacity)
SELECT copied.code, o.vehicle_class, o.admission, o.capacity
  FROM zone_occupancy o JOIN copied ON copied.code = o.zone_code || '-' || %(copy)s
"""


def repeat(connection: psycopg.Connection) -> None:
    """Put the copies of the shipped zones beside them: same shapes, names and rates, codes of their own."""
    codes = [row[0] for row in connection.execute("SELECT code FROM zone WHERE valid_to IS NULL").fetchall()]
    for copy, (east, north) in enumerate(COPIES, 1):
        connection.execute(_COPY, {"copy": str(copy), "east": east, "north": north, "codes": codes})
    connection.execute("ANALYZE zone, zone_occupancy")


def empty(connection: psycopg.Connection) -> None:
    """Take away what loads wrote, but for the past sessions (bench/history.py), which are many."""
    connection.execute("TRUNCATE active_session, parking_check, idempotency_key")
    connection.execute("UPDATE zone_occupancy SET occupied = 0, next_over = DEFAULT, version = version + 1")


def open_wide(connection: psycopg.Connection) -> list[str]:
    """Give every zone room for all plates there are; the codes of those that serve cars."""
    connection.execute("UPDATE zone_occupancy SET capacity = %s", (CAPACITY,))
    query = "SELECT zone_code FROM zone_occupancy WHERE vehicle_class = 'car' ORDER BY zone_code"
    return [row[0] for row in connection.execute(query).fetchall()]


def make_free(connection: psycopg.Connection, codes: Sequence[str]) -> None:
    """Let parking in these zones cost nothing: a rate area of the bench's own, whose only price is 0 by the hour."""
    with connection.transaction():
        connection.execute(_FREE_PLAN)
        connection.execute(_FREE_PRICE)
        connection.execute(
            "UPDATE zone SET rate_area = %s WHERE valid_to IS NULL AND code = ANY (%s)", (FREE_AREA, list(codes))
        )


def running(connection: psycopg.Connection, drivers: Sequence[str], method: str, most: int) -> list[str]:
    """At most `most` running sessions of a payment method, oldest first, as stop.lua wants them: id, space, the
    driver's bearer key."""
    keys = {f"driver-{n}": key for n, key in enumerate(drivers, 1)}
    query = "SELECT id, client FROM active_session WHERE payment_method = %s ORDER BY id LIMIT %s"
    rows = connection.execute(query, (method, most)).fetchall()
    return [f"{session} {keys[client]}" for session, client in rows]


def sightings(connection: psycopg.Connection, most: int) -> list[str]:
    """At most `most` running sessions of cars, as check.lua wants them: plate, zone, and a point in it (lat, lng)."""
    rows = connection.execute(
        """SELECT plate, zone_code, ST_Y(p.point), ST_X(p.point)
             FROM (SELECT plate, zone_code FROM active_session WHERE vehicle_class = 'car' ORDER BY id DESC LIMIT %s) a
             JOIN zone z ON z.code = a.zone_code AND z.valid_to IS NULL
            CROSS JOIN LATERAL (SELECT ST_PointOnSurface(z.geometry) AS point) p""",
        (most,),
    ).fetchall()
    return [f"{plate} {zone} {lat:.6f} {lng:.6f}" for plate, zone, lat, lng in rows]


def boxes(features: Sequence[dict[str, Any]], number: int = ZONES_IN_BOX) -> list[str]:
    """Four boxes (west,south,east,north) with exactly `number` zones each: those farthest south, north, west and east.

    A side of each lies outside the city and ends in %06d: whatever digits are put there, the zones stay the same.
    Raises BenchError where the city has fewer zones.
    """
    if len(features) <= number:
        raise BenchError(f"the city has {len(features)} zones; a map of {number} needs more")
    bounds = [_bounds(feature) for feature in features]
    west, south = (min(bound[side] for bound in bounds) - 0.001 for side in (0, 1))
    east, north = (max(bound[side] for bound in bounds) + 0.001 for side in (2, 3))
    least = [_between(sorted(bound[side] for bound in bounds), number) for side in (0, 1)]
    most = [_between(sorted((bound[side] for bound in bounds), reverse=True), number) for side in (2, 3)]
    return [
        f"{west:.4f}%06d,{south:.4f},{east:.4f},{least[1]:.7f}",
        f"{west:.4f}%06d,{most[1]:.7f},{east:.4f},{north:.4f}",
        f"{west:.4f}%06d,{south:.4f},{least[0]:.7f},{north:.4f}",
        f"{most[0]:.7f},{south:.4f},{east:.4f}%06d,{north:.4f}",
    ]


def _between(sides: Sequence[float], number: int) -> float:
    """A line that `number` of these sides lie before."""
    return (sides[number - 1] + sides[number]) / 2


def _bounds(feature: dict[str, Any]) -> tuple[float, float, float, float]:
    points = list(_points(feature["geometry"]["coordinates"]))
    lngs, lats = [point[0] for point in points], [point[1] for point in points]
    return min(lngs), min(lats), max(lngs), max(lats)


def _points(coordinates: Iterable[Any]) -> Iterator[Sequence[float]]:
    for part in coordinates:
        if isinstance(part[0], int | float):
            yield part
        else:
            yield from _points(part)

"""Do the counts agree? The service's own check of its rows against each other and of the copies in Redis."""

from dataclasses import dataclass, field
from datetime import datetime

import psycopg

from zones import occupancy
from zones.occupancy import Copies, CopiesAway
from zones.sessions import Count

DETAILS = 20


@dataclass(slots=True)
class Check:
    """One check: how many rows diverge, and the first of them in words."""

    name: str
    divergences: int = 0
    details: list[str] = field(default_factory=list)

    def add(self, detail: str) -> None:
        """One more divergence."""
        self.divergences += 1
        if len(self.details) < DETAILS:
            self.details.append(detail)


# Each query gives a row a divergence: what diverges, in words.
_QUERIES = {
    "counts": """
        SELECT format('%%s %%s: counted %%s, sessions %%s', o.zone_code, o.vehicle_class, o.occupied, count(a.id))
          FROM zone_occupancy o
          LEFT JOIN active_session a ON a.zone_code = o.zone_code AND a.vehicle_class = o.vehicle_class AND a.counted
         GROUP BY o.zone_code, o.vehicle_class HAVING o.occupied <> count(a.id)""",
    "uncounted": """
        SELECT format('session %%s stands in %%s %%s, which keeps no count', a.id, a.zone_code, a.vehicle_class)
          FROM active_session a
         WHERE NOT EXISTS (SELECT FROM zone_occupancy o
                            WHERE o.zone_code = a.zone_code AND o.vehicle_class = a.vehicle_class)""",
    "doubled": """
        SELECT format('session %%s is both running and over', a.id)
          FROM active_session a JOIN parking_session p ON p.id = a.id AND p.started_at = a.started_at""",
    "released_early": """
        SELECT format('session %%s gave its place back before %%s', a.id, a.over_at)
          FROM active_session a WHERE NOT a.counted AND a.over_at > %(now)s""",
    "next_over": """
        SELECT format('%%s %%s: next_over %%s, a session is over at %%s',
                      o.zone_code, o.vehicle_class, o.next_over, min(a.over_at))
          FROM zone_occupancy o JOIN active_session a USING (zone_code, vehicle_class)
         WHERE a.counted AND a.admission = 'advisory'
         GROUP BY o.zone_code, o.vehicle_class HAVING o.next_over IS NULL OR o.next_over > min(a.over_at)""",
}


def check(connection: psycopg.Connection, copies: Copies, now: datetime) -> list[Check]:
    """Every check, in one snapshot of PostgreSQL."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        checks = [_run(connection, name, query, now) for name, query in _QUERIES.items()]
        held = occupancy.rows(connection)
    return [*checks, _check_copies(connection, copies, held)]


def _run(connection: psycopg.Connection, name: str, query: str, now: datetime) -> Check:
    check = Check(name)
    for (detail,) in connection.execute(query, {"now": now}):
        check.add(detail)
    return check


def _was_true(copy: Count, before: Count, after: Count) -> bool:
    """Whether a copy read between two looks at its row is what the row was at some instant between them."""
    return copy in (before, after) or before.version < copy.version < after.version


def _check_copies(connection: psycopg.Connection, copies: Copies, held: dict) -> Check:
    """A copy older than its row, or of another value. Redis away is no divergence: nothing reads it then."""
    check = Check("redis")
    try:
        copied = copies.read(list(held))
    except CopiesAway:
        return check
    again = occupancy.rows(connection)
    for key, row in held.items():
        copy = copied.get(key)
        if copy is not None and not _was_true(copy, row, again.get(key, row)):
            check.add(
                f"{key[0]} {key[1]}: copy {copy.occupied} (version {copy.version}), row {row.occupied} ({row.version})"
            )
    return check

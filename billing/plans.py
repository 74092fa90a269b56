"""Rates as they lie in the database."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, select

from billing.models import RateLine, RatePlan
from billing.rates import Rate, RateTable, Step

# One statement, so that plans and lines are of one moment.
_PLANS = (
    select(*RatePlan.__table__.columns, RateLine.part, RateLine.from_unit, RateLine.price, RateLine.source)
    .join(RateLine, RateLine.version == RatePlan.version)
    .order_by(RatePlan.version, RateLine.part, RateLine.from_unit)
)
_SETTINGS = tuple(column.name for column in RatePlan.__table__.columns)


def load(connection: Connection) -> RateTable:
    """All rates of all times."""
    return RateTable(stored(connection))


def known_areas(connection: Connection) -> frozenset[str]:
    """The rate areas in which a zone may lie: a stay has, had or will have a price there."""
    return load(connection).areas


def stored(connection: Connection) -> list[Rate]:
    """Every version, also those withdrawn before they began."""
    by_version: dict[str, list[Any]] = defaultdict(list)
    for row in connection.execute(_PLANS):
        by_version[row.version].append(row)
    return [_rate(rows) for rows in by_version.values()]


def _rate(rows: list[Any]) -> Rate:
    settings = {name: getattr(rows[0], name) for name in _SETTINGS}
    return Rate(**settings, **parts((row.part, Step(row.from_unit, row.price, row.source)) for row in rows))


def parts(lines: Iterable[tuple[str, Step]]) -> dict[str, Any]:
    """Priced lines as the fields of a Rate: `day` in order, `night`, `full_day`."""
    by_part: dict[str, list[Step]] = defaultdict(list)
    for part, step in lines:
        by_part[part].append(step)
    once = {part: steps[0] for part, steps in by_part.items() if part != "day"}
    return {"day": tuple(sorted(by_part["day"])), **once}


def lines(rate: Rate) -> list[tuple[str, Step]]:
    """The other way round: every priced line of a rate."""
    once = [("night", rate.night), ("full_day", rate.full_day)]
    return [*(("day", step) for step in rate.day), *((part, step) for part, step in once if step is not None)]

"""Imported records against the tables: what differs is written, in the caller's transaction."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from operator import itemgetter
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import shapely
from geoalchemy2.shape import from_shape, to_shape
from shapely.geometry.base import BaseGeometry
from sqlalchemy import Connection, Row, column, func, select, update, values
from sqlalchemy.dialects.postgresql import insert

from zones.imports.files import Kind
from zones.imports.reader import Record
from zones.imports.report import Problems, Report
from zones.imports.shapes import canonical
from zones.models import District, Ward, Zone, ZoneOccupancy

HANOI = ZoneInfo("Asia/Ho_Chi_Minh")  # a day of the dated layers is a Hanoi day
IMPORT_LOCK = 7_264_010  # of PostgreSQL's advisory locks: one import at a time in a database
SRID = 4326
BATCH = 1_000  # rows of one UPDATE

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Layer:
    """A table of dated versions, and what an import writes in it besides the outline."""

    table: type[District] | type[Ward] | type[Zone]
    attributes: tuple[str, ...]
    at: date | datetime  # when an old version ends and its successor begins
    opening: Callable[[Any], Values]  # columns of a record's first version that are not in the file
    changing: Values  # columns that change with any attribute


@dataclass(slots=True)
class Changes:
    """The records of a file by what they are to the table; rows beside those that have one."""

    created: list[Any] = field(default_factory=list)
    changed: list[tuple[Any, Row[Any]]] = field(default_factory=list)
    reshaped: list[tuple[Any, Row[Any]]] = field(default_factory=list)
    unchanged: int = 0

    def report(self, kind: Kind, dry_run: bool) -> Report:
        written = [*self.created, *(record for record, _ in [*self.changed, *self.reshaped])]
        codes = tuple(sorted(record.code for record in written))
        counts = (len(self.created), len(self.changed), len(self.reshaped), self.unchanged)
        return Report(kind, *counts, codes, dry_run)


def current_districts(connection: Connection) -> dict[str, BaseGeometry]:
    """The outlines of the districts in force, by code."""
    rows = connection.execute(select(District.code, District.geometry).where(District.valid_to.is_(None)))
    return {code: to_shape(geometry) for code, geometry in rows}


def apply(
    kind: Kind, connection: Connection, records: Sequence[Record], now: datetime, dry_run: bool = False
) -> Report:
    """Write what differs from the database, and report it; a dry run only reports.

    A record that stands already as it is costs no write. A changed outline closes the version in force at `now` and
    opens a new one (CDS). What the file does not name is left alone. Counts of parked vehicles stay, also over a
    capacity that is lowered. The caller commits. Raises ImportRefused where `now` lies before the start of a version
    to be closed.
    """
    if not dry_run:
        connection.execute(select(func.pg_advisory_xact_lock(IMPORT_LOCK)))
    counts = count_changes(connection, records) if kind == "zones" else []
    layer = layer_of(kind, now)
    changes = compare(connection, layer, records, {count["zone_code"] for count in counts})
    if not dry_run:
        write_versions(connection, layer, changes)
        write_counts(connection, counts)
    return changes.report(kind, dry_run)


def layer_of(kind: Kind, now: datetime) -> Layer:
    today = now.astimezone(HANOI).date()
    if kind == "districts":
        return Layer(District, ("name", "joined"), today, lambda record: {"valid_from": since(record, today)}, {})
    if kind == "wards":
        return Layer(Ward, ("name", "district_code"), today, lambda record: {"valid_from": today}, {})
    described = (
        "name",
        "street",
        "district_code",
        "rate_area",
        "kind",
        "admission",
        "max_stay_minutes",
        "capacity_source",
    )
    stamps = {"published_at": now, "updated_at": now, "valid_from": now}
    return Layer(Zone, described, now, lambda record: {"id": uuid4(), **stamps}, {"updated_at": now})


def since(record: Any, today: date) -> date:
    """A district is part of the service since it joined; one that is yet to join, since today."""
    return min(record.joined or today, today)


def compare(connection: Connection, layer: Layer, records: Iterable[Any], counted: set[str]) -> Changes:
    """Sort the records; `counted` are codes whose capacity changes."""
    rows = connection.execute(select(layer.table.__table__).where(layer.table.valid_to.is_(None)))
    current = {row.code: row for row in rows}
    changes, problems = Changes(), Problems()
    for record in records:
        row = current.get(record.code)
        if row is None:
            changes.created.append(record)
        elif not same_outline(record.geometry, row.geometry):
            check_order(layer, row, problems)
            changes.reshaped.append((record, row))
        elif record.code in counted or any(getattr(record, name) != getattr(row, name) for name in layer.attributes):
            changes.changed.append((record, row))
        else:
            changes.unchanged += 1
    problems.refuse_if_any()
    return changes


def same_outline(shape: BaseGeometry, stored: Any) -> bool:
    return shapely.equals_exact(shape, canonical(to_shape(stored)), 0.0)


def check_order(layer: Layer, row: Row[Any], problems: Problems) -> None:
    """A version cannot end before it began."""
    if layer.at < row.valid_from:
        problems.add("file", "older_than_stored", f"in force since {row.valid_from}, after {layer.at}", id=row.code)


def write_versions(connection: Connection, layer: Layer, changes: Changes) -> None:
    """Close, change and open rows."""
    closed = [{"id": row.id, "valid_to": layer.at} for _, row in changes.reshaped]
    changed = [{"id": row.id, **attributes(layer, record), **layer.changing} for record, row in changes.changed]
    update_by_id(connection, layer.table, closed)
    update_by_id(connection, layer.table, changed)
    created = [new_row(layer, record) for record in changes.created]
    reopened = [new_row(layer, record) | {"valid_from": layer.at} for record, _ in changes.reshaped]
    insert_all(connection, insert(layer.table).returning(layer.table.id), created + reopened)


def new_row(layer: Layer, record: Any) -> Values:
    outline = from_shape(record.geometry, srid=SRID)
    return {"code": record.code, "geometry": outline, **attributes(layer, record), **layer.opening(record)}


def attributes(layer: Layer, record: Any) -> Values:
    return {name: getattr(record, name) for name in layer.attributes}


def count_changes(connection: Connection, records: Iterable[Any]) -> list[Values]:
    """The counts that are new, or whose capacity or admission changes.

    A class that the record leaves out is no longer served: its capacity becomes 0, who is parked there stays counted.
    """
    stored = stored_counts(connection)
    changes: list[Values] = []
    for record in records:
        rows = stored.get(record.code, {})
        for vehicle_class in rows | record.capacity:
            wanted = {"admission": record.admission, "capacity": record.capacity.get(vehicle_class, 0)}
            if rows.get(vehicle_class) != wanted:
                changes.append({"zone_code": record.code, "vehicle_class": vehicle_class, **wanted})
    return sorted(changes, key=itemgetter("zone_code", "vehicle_class"))  # rows are locked in one order


def stored_counts(connection: Connection) -> dict[str, dict[str, Values]]:
    """Admission and capacity by zone code and vehicle class."""
    stored: dict[str, dict[str, Values]] = {}
    for row in connection.execute(select(ZoneOccupancy.__table__)):
        values = {"admission": row.admission, "capacity": row.capacity}
        stored.setdefault(row.zone_code, {})[row.vehicle_class] = values
    return stored


def write_counts(connection: Connection, changes: Iterable[Values]) -> None:
    """New counts begin at 0; those that stand keep `occupied` and get the next version."""
    new = insert(ZoneOccupancy)
    renewed = {"admission": new.excluded.admission, "capacity": new.excluded.capacity}
    upsert = new.on_conflict_do_update(
        index_elements=[ZoneOccupancy.zone_code, ZoneOccupancy.vehicle_class],
        set_={**renewed, "version": ZoneOccupancy.version + 1},
    )
    rows = [{**change, "occupied": 0, "version": 1} for change in changes]
    insert_all(connection, upsert.returning(ZoneOccupancy.zone_code), rows)


# A statement for each row would bump the revision each time, and the time taken would grow with the square of the file.


def insert_all(connection: Connection, statement: Any, rows: list[Values]) -> None:
    """Insert in few statements; SQLAlchemy joins rows into one only where something is returned."""
    if rows:
        connection.execute(statement, rows).close()


def update_by_id(connection: Connection, table: Any, rows: list[Values]) -> None:
    """Set the columns of rows that are found by `id`, a thousand at a time."""
    columns = table.__table__.columns
    for batch in (rows[start : start + BATCH] for start in range(0, len(rows), BATCH)):
        new = values(*(column(name, columns[name].type) for name in batch[0]), name="new").data(
            [tuple(row.values()) for row in batch]
        )
        setting = {name: new.c[name] for name in batch[0] if name != "id"}
        connection.execute(update(table).where(columns.id == new.c.id).values(setting))

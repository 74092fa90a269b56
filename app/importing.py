"""A file of districts, wards, zones or rates into one database, all or nothing; or a bank's statement."""

from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

import psycopg
from sqlalchemy import Connection, create_engine

from app.database import NO_PREPARED, sqlalchemy_url
from billing import imports as rate_imports
from billing.gateways import statements
from billing.imports import statement
from zones import imports as zone_imports

Kind = Literal["districts", "wards", "zones", "rates", "statement"]
Report = zone_imports.Report | rate_imports.Report | statement.Report
KINDS: tuple[Kind, ...] = get_args(Kind)
REFUSALS = (zone_imports.ImportRefused, rate_imports.ImportRefused)


def import_file(url: str, kind: Kind, path: Path, now: datetime, dry_run: bool = False) -> Report:
    """Write what differs from the database at `url` (libpq), in force from `now`; a dry run only reports it.

    Raises one of REFUSALS, with every bad record, and then nothing is written.
    """
    if kind == "statement":
        return _receive(url, path, now, dry_run)
    engine = create_engine(sqlalchemy_url(url), connect_args=NO_PREPARED)
    try:
        with engine.begin() as connection:
            return _apply(connection, kind, path, now, dry_run)
    finally:
        engine.dispose()


def _receive(url: str, path: Path, now: datetime, dry_run: bool) -> statement.Report:
    movements = statements.read_bank(path)
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        return statement.apply(connection, movements, now, dry_run)


def _apply(
    connection: Connection, kind: zone_imports.Kind | Literal["rates"], path: Path, now: datetime, dry_run: bool
) -> Report:
    if kind == "rates":
        return rate_imports.apply(connection, rate_imports.read(path), now, dry_run)
    surroundings: dict[str, Any] = {}
    if kind == "zones":
        surroundings = {
            "rate_areas": rate_imports.known_areas(connection),
            "districts": zone_imports.current_districts(connection),
        }
    return zone_imports.apply(kind, connection, zone_imports.read(kind, path, **surroundings), now, dry_run)

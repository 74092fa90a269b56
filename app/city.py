"""The city that is shipped: nine districts, their zones and the rates, loaded into a database that has no city yet."""

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, create_engine, func, pool, select, text

import billing.imports
import zones.imports
from app.database import NO_PREPARED, sqlalchemy_url

ROOT = Path(__file__).resolve().parent.parent
DISTRICTS = ROOT / "zones" / "data" / "districts.geojson"
ZONES = ROOT / "zones" / "data" / "zones.geojson"
RATES = ROOT / "billing" / "data" / "rates.csv"
# By this day all nine districts had joined. The rates are older (1 January 2018), and dated so in their file.
COMPLETE = datetime(2018, 3, 20, tzinfo=ZoneInfo("Asia/Ho_Chi_Minh"))
CITY_LOCK = 7_264_003  # of PostgreSQL's advisory locks: two that start at once load one after the other

_HAS_CITY = text("SELECT EXISTS (TABLE district) OR EXISTS (TABLE zone) OR EXISTS (TABLE rate_plan)")


def load_default_city(database_url: str) -> None:
    """Load the shipped city, all or nothing, into the migrated database at `database_url` (libpq).

    A database that has a district, a zone or a rate is left as it is: what an operator imported or changed there is
    never overwritten, and to repeat the call does nothing.
    """
    engine = create_engine(sqlalchemy_url(database_url), poolclass=pool.NullPool, connect_args=NO_PREPARED)
    with engine.begin() as connection:
        connection.execute(select(func.pg_advisory_xact_lock(CITY_LOCK)))
        if not connection.execute(_HAS_CITY).scalar_one():
            _load(connection)


def _load(connection: Connection) -> None:
    """Rates first: zones lie in their areas, and in the districts."""
    billing.imports.apply(connection, billing.imports.read(RATES), COMPLETE)
    zones.imports.apply("districts", connection, zones.imports.read("districts", DISTRICTS), COMPLETE)
    records = zones.imports.read(
        "zones",
        ZONES,
        rate_areas=billing.imports.known_areas(connection),
        districts=zones.imports.current_districts(connection),
    )
    zones.imports.apply("zones", connection, records, COMPLETE)

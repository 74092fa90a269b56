"""Zones and sessions put straight into a database, as the service itself would have left them there."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import psycopg

from zones.sessions import new_id

HANOI = ZoneInfo("Asia/Ho_Chi_Minh")
SQUARE = "POLYGON((105.85 21.02, 105.851 21.02, 105.851 21.021, 105.85 21.021, 105.85 21.02))"
LONG_AGO = datetime(2018, 1, 1, tzinfo=UTC)
NEVER_PRICED = 2**60
MAX_STAY = timedelta(hours=24)


def at(text: str) -> datetime:
    """An instant; Hanoi's where it has no offset."""
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=HANOI)


def insert(connection: psycopg.Connection, table: str, **values: Any) -> None:
    columns, marks = ", ".join(values), ", ".join(["%s"] * len(values))
    connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", list(values.values()))


def zone(
    connection: psycopg.Connection,
    code: str,
    district: str = "002",
    *,
    admission: str = "advisory",
    valid_from: datetime = LONG_AGO,
    valid_to: datetime | None = None,
    **capacity: int,
) -> None:
    """A zone version with its counts; one whose counts are there already gets none."""
    insert(
        connection, "zone", id=uuid4(), code=code, name=code, street="Phố Huế", district_code=district,
        rate_area="core", kind="kerb", admission=admission, max_stay_minutes=MAX_STAY // timedelta(minutes=1),
        capacity_source="illustrative", geometry=f"SRID=4326;{SQUARE}", published_at=valid_from,
        updated_at=valid_from, valid_from=valid_from, valid_to=valid_to,
    )  # fmt: skip
    for vehicle_class, places in capacity.items():
        insert(
            connection, "zone_occupancy", zone_code=code, vehicle_class=vehicle_class, admission=admission,
            capacity=places,
        )  # fmt: skip


def past(
    connection: psycopg.Connection,
    started_at: datetime,
    ended_at: datetime,
    *,
    zone: str = "HK-001",
    plate: str = "30A-123.45",
    vehicle_class: str = "car",
    ends_at: datetime | None = None,
    fee: int = 25_000,
    admission: str = "advisory",
) -> UUID:
    """A session that is over and tidied away; prepaid until ends_at, or open and paid for until the maximum stay."""
    session_id = new_id(started_at)
    insert(
        connection, "parking_session", id=session_id, plate=plate, vehicle_class=vehicle_class, client="driver",
        zone_code=zone, admission=admission, started_at=started_at, ends_at=ends_at,
        over_at=ends_at or started_at + MAX_STAY, ended_at=ended_at, ended_by="driver", received_at=ended_at,
        payment_method="wallet", rate_version="v", fee=fee,
    )  # fmt: skip
    return session_id


def active(
    connection: psycopg.Connection,
    started_at: datetime,
    over_at: datetime,
    *,
    zone: str = "HK-001",
    plate: str = "30A-123.45",
    vehicle_class: str = "car",
    fee: int = 25_000,
    admission: str = "advisory",
) -> UUID:
    """A session that nobody has stopped; prepaid until over_at, at a flat fee."""
    session_id = new_id(started_at)
    insert(
        connection, "active_session", plate=plate, vehicle_class=vehicle_class, id=session_id, client="driver",
        zone_code=zone, admission=admission, started_at=started_at, ends_at=over_at, over_at=over_at,
        max_over_at=over_at + timedelta(hours=24), payment_method="wallet", rate_version="v", refund="unused",
        fee_after=[0, NEVER_PRICED], fee_amount=[fee],
    )  # fmt: skip
    return session_id


def right(
    connection: psycopg.Connection,
    valid_from: datetime,
    valid_until: datetime,
    *,
    zone: str | None = "HK-001",
    district: str | None = None,
    plate: str = "30A-123.45",
    vehicle_class: str = "car",
    kind: str = "resident",
    revoked_at: datetime | None = None,
) -> UUID:
    """A right that was granted when it began; without a zone and a district it holds in the whole city."""
    right_id = uuid4()
    insert(
        connection, "parking_right", id=right_id, kind=kind, plate=plate, vehicle_class=vehicle_class, zone_code=zone,
        district_code=district, valid_from=valid_from, valid_until=valid_until, reason="r", granted_at=valid_from,
        granted_by="operator", revoked_at=revoked_at, revoked_by=revoked_at and "operator",
        revocation=revoked_at and "r",
    )  # fmt: skip
    return right_id

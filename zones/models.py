"""The tables of where vehicles are, as SQLAlchemy reads them (migrations/versions/0001_create_zones.sql makes them)."""

from datetime import date, datetime
from typing import ClassVar
from uuid import UUID

from geoalchemy2 import Geometry, WKBElement
from sqlalchemy import BigInteger, Identity, Text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Instants are timezone-aware; text has no length limit of its own."""

    type_annotation_map: ClassVar = {datetime: TIMESTAMP(timezone=True), str: Text}


class District(Base):
    """One version of a service district's outline; the current one has no `valid_to`."""

    __tablename__ = "district"
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    code: Mapped[str]
    name: Mapped[str]
    joined: Mapped[date | None]
    geometry: Mapped[WKBElement] = mapped_column(Geometry("MULTIPOLYGON", srid=4326, spatial_index=False))
    valid_from: Mapped[date]
    valid_to: Mapped[date | None]


class Ward(Base):
    """One version of a ward's outline; the current one has no `valid_to`."""

    __tablename__ = "ward"
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    code: Mapped[str]
    name: Mapped[str]
    district_code: Mapped[str | None]
    geometry: Mapped[WKBElement] = mapped_column(Geometry("MULTIPOLYGON", srid=4326, spatial_index=False))
    valid_from: Mapped[date]
    valid_to: Mapped[date | None]


class Zone(Base):
    """One version of a zone: a changed geometry makes a new row with a new id (CDS), the code stays."""

    __tablename__ = "zone"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    code: Mapped[str]
    name: Mapped[str]
    street: Mapped[str]
    district_code: Mapped[str]
    rate_area: Mapped[str]
    kind: Mapped[str]
    admission: Mapped[str]
    max_stay_minutes: Mapped[int]
    capacity_source: Mapped[str]
    geometry: Mapped[WKBElement] = mapped_column(Geometry("POLYGON", srid=4326, spatial_index=False))
    published_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    valid_from: Mapped[datetime]
    valid_to: Mapped[datetime | None]


class ZoneOccupancy(Base):
    """The count of one vehicle class in one zone. `version` rises with every change of the row."""

    __tablename__ = "zone_occupancy"
    zone_code: Mapped[str] = mapped_column(primary_key=True)
    vehicle_class: Mapped[str] = mapped_column(primary_key=True)
    admission: Mapped[str]
    capacity: Mapped[int]
    occupied: Mapped[int]
    version: Mapped[int] = mapped_column(BigInteger)
    next_over: Mapped[datetime | None]

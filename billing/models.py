"""The tables of what is owed, as SQLAlchemy reads them (migrations 0002 and 0005 make them)."""

from datetime import datetime, time
from typing import ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Instants are timezone-aware; text has no length limit of its own."""

    type_annotation_map: ClassVar = {datetime: TIMESTAMP(timezone=True), str: Text}


class RatePlan(Base):
    """One version of a price, all but its lines. Never changed, but for `valid_to` when a later one takes its place."""

    __tablename__ = "rate_plan"
    version: Mapped[str] = mapped_column(primary_key=True)
    rate_area: Mapped[str]
    vehicle_class: Mapped[str]
    unit: Mapped[str]
    valid_from: Mapped[datetime]
    valid_to: Mapped[datetime | None]
    timezone: Mapped[str]
    day_start: Mapped[time | None]
    night_start: Mapped[time | None]
    night_cap: Mapped[int | None] = mapped_column(BigInteger)
    daily_cap: Mapped[int | None] = mapped_column(BigInteger)
    free_minutes: Mapped[int]
    max_stay_minutes: Mapped[int | None]
    refund: Mapped[str]


class RateLine(Base):
    """What one unit of one part costs, from the unit numbered `from_unit` on, and who set it (decree or assumed)."""

    __tablename__ = "rate_line"
    version: Mapped[str] = mapped_column(ForeignKey("rate_plan.version"), primary_key=True)
    part: Mapped[str] = mapped_column(primary_key=True)
    from_unit: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[int] = mapped_column(BigInteger)
    source: Mapped[str]


class Payment(Base):
    """A movement of money at a gateway or in an attendant's hand: for a session, a top-up, or what was owed before."""

    __tablename__ = "payment"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    client: Mapped[str]
    purpose: Mapped[str]
    session_id: Mapped[UUID | None]
    method: Mapped[str]
    amount: Mapped[int] = mapped_column(BigInteger)
    paid: Mapped[int | None] = mapped_column(BigInteger)
    state: Mapped[str]
    reference: Mapped[str]
    gateway_reference: Mapped[str | None]
    failure: Mapped[str | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]

"""The one place that reads the time. Business instants come from here and are handed down as arguments."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from app.config import Settings


class Clock(Protocol):
    """Gives the business instant, aware and in UTC."""

    speed: float

    def now(self) -> datetime: ...


@dataclass(frozen=True, slots=True)
class RealClock:
    """Business time is real time."""

    speed: float = 1.0

    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class ScaledClock:
    """A simulation's business time: it stood at `start` at the real instant `anchor` and runs `speed` times as fast."""

    start: datetime
    anchor: datetime
    speed: float

    def now(self) -> datetime:
        return self.start + (datetime.now(UTC) - self.anchor) * self.speed


def make_clock(settings: Settings) -> Clock:
    """The clock that the settings ask for (they refuse a scaled one outside a simulation)."""
    if settings.clock_start is None or settings.clock_anchor is None:
        return RealClock()
    return ScaledClock(settings.clock_start.astimezone(UTC), settings.clock_anchor, settings.clock_speed)

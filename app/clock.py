"""The one place that reads the time. Business instants come from here and are handed down as arguments.

A wall clock can be set while a process runs, by an hour or by years, and every fee and every expiry of that moment
would be wrong. So the service looks at it once, when it begins, and counts on by CLOCK_BOOTTIME, which nobody can set:
it is slewed with the wall clock (NTP, adjtime), goes on while the machine sleeps, and makes no jumps. All processes of
a machine read the same from it. So one that is started later, in place of one that died, is told when it was 0
(`clock_booted`), and agrees with the others. What the wall clock shows since is told as `off`, for an operator; a
restarted service goes by it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from app.config import Settings

Wall = Callable[[], datetime]


class Clock(Protocol):
    """Gives the business instant, aware and in UTC."""

    @property
    def speed(self) -> float: ...

    def now(self) -> datetime: ...

    def off(self) -> float:
        """By how many real seconds the wall clock was set forward (or back) since the service began."""
        ...


def wall_clock() -> datetime:
    """What the machine's clock shows."""
    return datetime.now(UTC)


def booted(wall: Wall = wall_clock) -> datetime:
    """The instant at which CLOCK_BOOTTIME was 0, by what the wall clock shows now."""
    return wall() - _since_boot()


def _since_boot() -> timedelta:
    return timedelta(microseconds=time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000)


class SteadyTime:
    """Real time, whatever the wall clock is set to meanwhile. Without `zero`, the instant at which CLOCK_BOOTTIME was
    0, the wall clock is right when this is made."""

    __slots__ = ("_wall", "_zero")

    def __init__(self, wall: Wall = wall_clock, zero: datetime | None = None) -> None:
        self._wall = wall
        self._zero = zero or booted(wall)

    def now(self) -> datetime:
        """The real instant."""
        return self._zero + _since_boot()

    def off(self) -> float:
        """The wall clock less this, in seconds."""
        return (self._wall() - self.now()).total_seconds()


@dataclass(frozen=True, slots=True)
class RealClock:
    """Business time is real time."""

    speed: float = 1.0
    time: SteadyTime = field(default_factory=SteadyTime)

    def now(self) -> datetime:
        return self.time.now()

    def off(self) -> float:
        return self.time.off()


@dataclass(frozen=True, slots=True)
class ScaledClock:
    """A simulation's business time: it stood at `start` at the real instant `anchor` and runs `speed` times as fast."""

    start: datetime
    anchor: datetime
    speed: float
    time: SteadyTime = field(default_factory=SteadyTime)

    def now(self) -> datetime:
        return self.start + (self.time.now() - self.anchor) * self.speed

    def off(self) -> float:
        return self.time.off()


def make_clock(settings: Settings, wall: Wall = wall_clock) -> Clock:
    """The clock that the settings ask for (they refuse a scaled one outside a simulation)."""
    steady = SteadyTime(wall, settings.clock_booted)
    if settings.clock_start is None or settings.clock_anchor is None:
        return RealClock(time=steady)
    return ScaledClock(settings.clock_start.astimezone(UTC), settings.clock_anchor, settings.clock_speed, steady)

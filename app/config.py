"""Settings: read from the environment once, checked, then frozen."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

ENVIRONMENTS = ("production", "development", "test", "simulation")
REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")


class BadSetting(Exception):
    """A setting is missing or wrong; the text names the variable and the rule."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service needs to know of its surroundings. URLs are libpq and Redis URLs."""

    database_url: str
    redis_url: str
    keys_path: Path | None = None
    environment: str = "production"
    clock_start: datetime | None = None
    clock_speed: float = 1.0
    clock_anchor: datetime | None = None
    max_body_bytes: int = 64 * 1024
    redis_timeout_seconds: float = 0.25
    lock_timeout_seconds: float = 5.0
    connect_timeout_seconds: int = 2

    def __post_init__(self) -> None:
        if self.environment not in ENVIRONMENTS:
            raise BadSetting(f"IPARKING_ENV: {self.environment!r} is none of {', '.join(ENVIRONMENTS)}")
        if self.redis_url.partition("://")[0] not in REDIS_SCHEMES:
            raise BadSetting(f"IPARKING_REDIS_URL: does not begin with {', '.join(REDIS_SCHEMES)} and ://")
        if self.clock_start is None and self.clock_anchor is None and self.clock_speed == 1.0:
            return
        if self.environment != "simulation":
            raise BadSetting("IPARKING_CLOCK_START, _SPEED and _ANCHOR need IPARKING_ENV=simulation")
        if self.clock_start is None or self.clock_anchor is None:
            raise BadSetting("a simulated clock needs both IPARKING_CLOCK_START and IPARKING_CLOCK_ANCHOR")
        if not 0 < self.clock_speed <= 100_000:
            raise BadSetting("IPARKING_CLOCK_SPEED: must be above 0 and at most 100000")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """The settings of this process. Raises BadSetting, which names the variable at fault."""
        keys = environment.get("IPARKING_KEYS")
        return cls(
            database_url=_required(environment, "IPARKING_DATABASE_URL"),
            redis_url=_required(environment, "IPARKING_REDIS_URL"),
            keys_path=Path(keys) if keys else None,
            environment=environment.get("IPARKING_ENV", "production"),
            clock_start=_instant(environment, "IPARKING_CLOCK_START"),
            clock_speed=_number(environment, "IPARKING_CLOCK_SPEED", 1.0),
            clock_anchor=_instant(environment, "IPARKING_CLOCK_ANCHOR"),
        )


def _required(environment: Mapping[str, str], name: str) -> str:
    if not environment.get(name):
        raise BadSetting(f"{name} is not set")
    return environment[name]


def _number(environment: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(environment.get(name) or default)
    except ValueError:
        raise BadSetting(f"{name}: {environment[name]!r} is not a number") from None


def _instant(environment: Mapping[str, str], name: str) -> datetime | None:
    if not environment.get(name):
        return None
    try:
        instant = datetime.fromisoformat(environment[name])
    except ValueError:
        raise BadSetting(f"{name}: {environment[name]!r} is not an RFC 3339 instant") from None
    if instant.tzinfo is None:
        raise BadSetting(f"{name}: the offset is missing")
    return instant

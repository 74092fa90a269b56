"""Where local clocks cut a stay: at the start of day and night, at midnight, at the first of a month.

Instants are microseconds since 1970 (UTC), so that nothing is rounded and daylight saving is met in one place only.
A cut that the clock shows twice (an hour put back) is the first of the two; one that it skips (an hour put forward)
lies where the clock would have shown it without the change (PEP 495, fold=0).
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_MIDNIGHT = time()


class Cut(NamedTuple):
    """From `at` on it is day or night, or (midnight) another calendar day in the same part."""

    at: int
    kind: str


class Windows(NamedTuple):
    """The local clock of a rate. Without `day_start` and `night_start` it is always day."""

    timezone: str
    day_start: time | None
    night_start: time | None
    midnight: bool  # whether midnight is a cut


def cuts(windows: Windows, begin: int, end: int) -> list[Cut]:
    """The part in which `begin` lies, as a cut at `begin`, then every cut after `begin` and before `end`."""
    part = "day"
    later = []
    for day in range(begin // DAY, max(begin, end) // DAY + 1):
        before, of_day = _cuts_of_day(windows, day)
        if day == begin // DAY:
            part = before
        for cut in of_day:
            if begin < cut.at < end:
                later.append(cut)
            elif cut.at <= begin and cut.kind != "midnight":
                part = cut.kind
    return [Cut(begin, part), *later]


@lru_cache(maxsize=4096)
def _cuts_of_day(windows: Windows, day: int) -> tuple[str, list[Cut]]:
    """The part in force when a UTC day (counted from 1970) begins, and the cuts of that day in order."""
    begin = day * DAY
    # No clock is a whole day off UTC, so three local days hold the UTC day and a cut of each kind before it.
    around = sorted(cut for offset in (-2, -1, 0, 1) for cut in _cuts_of_date(windows, day + offset))
    parts = [cut.kind for cut in around if cut.at < begin and cut.kind != "midnight"]
    return parts[-1] if parts else "day", [cut for cut in around if begin <= cut.at < begin + DAY]


def _cuts_of_date(windows: Windows, day: int) -> Iterator[Cut]:
    """The cuts of one local calendar day, unordered."""
    midnight = _MIDNIGHT if windows.midnight else None
    kinds = {"day": windows.day_start, "night": windows.night_start, "midnight": midnight}
    for kind, clock_time in kinds.items():
        if clock_time is not None:
            yield Cut(_instant(windows.timezone, date.fromordinal(_EPOCH_DAY + day), clock_time), kind)


def months(timezone: str, begin: int, end: int) -> Iterator[int]:
    """Every local first of a month, 00:00, after `begin` and before `end`."""
    first = (EPOCH + begin * MICROSECOND).astimezone(ZoneInfo(timezone)).date().replace(day=1)
    while True:
        first = (first + timedelta(days=31)).replace(day=1)
        at = _instant(timezone, first, _MIDNIGHT)
        if at >= end:
            return
        yield at


def _instant(timezone: str, day: date, clock_time: time) -> int:
    return microseconds(datetime.combine(day, clock_time, ZoneInfo(timezone)))


def microseconds(instant: datetime) -> int:
    """Microseconds since 1970. Raises ValueError for an instant without a time zone."""
    if instant.tzinfo is None:
        raise ValueError("an instant needs its time zone")
    return (instant - EPOCH) // MICROSECOND


def instant(microseconds_since_1970: int) -> datetime:
    """The instant in UTC."""
    return EPOCH + microseconds_since_1970 * MICROSECOND

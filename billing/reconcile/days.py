"""Which instants belong to a day, and how far a line and its booking may lie apart."""

from datetime import date, datetime, time, timedelta
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

HANOI = ZoneInfo("Asia/Ho_Chi_Minh")
# A line of a list is looked for so long before and behind the day on which it was booked: webhooks are repeated for
# hours, and banks date what comes in the evening to the next morning.
LATE = timedelta(days=1)


class Span(NamedTuple):
    """Instants from `since` to before `until`."""

    since: datetime
    until: datetime

    def with_late(self) -> "Span":
        """The span with what may be late before and behind it."""
        return Span(self.since - LATE, self.until + LATE)


def span_of(day: date) -> Span:
    """A day of Hanoi, from its midnight to before the next."""
    return Span(*(datetime.combine(day + timedelta(days=n), time(), HANOI) for n in (0, 1)))


def least_id(instant: datetime) -> UUID:
    """A UUID that is not above any UUIDv7 of the instant, and above all before it."""
    return UUID(int=int(instant.timestamp() * 1000) << 80)

"""What docs/sessions.md says, in memory: zones, sessions, and what each call must be answered."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

LATEST_STOP = timedelta(minutes=15)
KEY_MEMORY = timedelta(hours=24)


@dataclass
class ZoneFacts:
    """A zone as it is now. `redrawn` counts its outlines."""

    admission: str
    capacity: int
    max_stay: int = 720
    is_open: bool = True
    redrawn: int = 0


@dataclass
class Stay:
    """One session. `ended_by` is None while nobody has ended it; `released`: a job gave its place back."""

    number: int
    zone: str
    plate: str
    is_strict: bool
    started_at: datetime
    minutes: int | None
    ends_at: datetime | None
    max_over_at: datetime
    key: str | None
    released: bool = False
    ended_by: str | None = None
    ended_at: datetime | None = None
    id: str = ""
    first_answer: bytes = b""

    @property
    def over_at(self) -> datetime:
        return self.ends_at or self.max_over_at

    def is_over(self, now: datetime) -> bool:
        return self.over_at <= now

    def end(self, by: str, at: datetime) -> None:
        self.ended_by, self.ended_at = by, at

    def state(self, now: datetime) -> str:
        if self.ended_by is None:
            return "expired" if self.is_over(now) else "running"
        return "ended" if self.ended_by == "driver" else "expired"

    def shown_end(self, now: datetime) -> datetime | None:
        """`ended_at` as a look at it answers."""
        if self.ended_by is None and not self.is_strict and self.is_over(now):
            return self.over_at
        return self.ended_at


@dataclass
class City:
    """The whole city of one driver. Calls change it and return what must be answered: a code, or the stay."""

    zones: dict[str, ZoneFacts]
    now: datetime
    stays: list[Stay] = field(default_factory=list)

    def active(self) -> list[Stay]:
        return [stay for stay in self.stays if stay.ended_by is None]

    def occupied(self, zone: str) -> int:
        """How many stand there, as an answer says: an advisory stay stands until its time is over."""
        return sum(stay.zone == zone and (stay.is_strict or not stay.is_over(self.now)) for stay in self.active())

    def counted(self, zone: str, but: Stay | None) -> int:
        """How many a strict zone counts beside one; a stay that began under advisory rule goes by a job."""
        return sum(stay.zone == zone and not stay.released and stay is not but for stay in self.active())

    def start(self, plate: str, zone: str, minutes: int | None, key: str | None) -> str | Stay:
        before = self.remembered(key)
        if before is not None:
            same = (before.plate, before.zone, before.minutes) == (plate, zone, minutes)
            return before if same else "idempotency_conflict"
        facts = self.zones[zone]
        refusal = self.refusal(facts, minutes)
        if refusal:
            return refusal
        last = next((stay for stay in self.active() if stay.plate == plate), None)
        if last and not last.is_over(self.now):
            return "already_parked"
        is_strict = facts.admission == "strict"
        if is_strict and self.counted(zone, but=last) >= facts.capacity:
            return "zone_full"
        if last:
            last.end("restart", self.now if last.is_strict else last.over_at)
        ends_at = None if minutes is None else self.now + timedelta(minutes=minutes)
        longest = self.now + timedelta(minutes=facts.max_stay)
        new = Stay(len(self.stays), zone, plate, is_strict, self.now, minutes, ends_at, longest, key)
        self.stays.append(new)
        return new

    def remembered(self, key: str | None) -> Stay | None:
        mine = [stay for stay in self.stays if key is not None and stay.key == key]
        return next(
            (stay for stay in reversed(mine) if not stay.ended_by or stay.started_at > self.now - KEY_MEMORY), None
        )

    def refusal(self, facts: ZoneFacts, minutes: int | None) -> str | None:
        if not facts.is_open:
            return "unknown_zone"
        if facts.capacity == 0:
            return "class_not_served"
        return "max_stay_exceeded" if (minutes or 0) > facts.max_stay else None

    def stop(self, stay: Stay, stopped_at: datetime | None) -> str | Stay:
        if stopped_at is not None and stopped_at < self.now - LATEST_STOP:
            return "stopped_at_too_late"
        if stay.ended_by is not None:
            return "session_ended" if stay.ended_by == "driver" else "session_expired"
        at = stopped_at or self.now
        if at < stay.started_at:
            return "stopped_at_before_start"
        if not stay.is_strict and at >= stay.over_at:
            return "session_expired"
        stay.end("driver", at)
        return stay

    def extend(self, stay: Stay, minutes: int) -> str | Stay:
        if stay.ended_by is not None:
            return "session_ended" if stay.ended_by == "driver" else "session_expired"
        if stay.is_over(self.now):
            return "session_expired"
        if stay.ends_at is None:
            return "not_prepaid"
        if stay.ends_at + timedelta(minutes=minutes) > stay.max_over_at:
            return "max_stay_exceeded"
        stay.ends_at += timedelta(minutes=minutes)
        return stay

    def release(self) -> None:
        for stay in self.active():
            stay.released |= not stay.is_strict and stay.is_over(self.now)

    def close(self) -> None:
        for stay in self.active():
            if stay.released and stay.over_at < self.now - LATEST_STOP:
                stay.end("expiry", stay.over_at)

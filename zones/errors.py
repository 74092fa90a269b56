"""Refusals by the facts of where vehicles are. None of them knows the web."""

from uuid import UUID


class ZoneError(Exception):
    """The base of all refusals here; its text can be shown to the person who asked."""


class InvalidPlate(ZoneError):
    """The text is no plate in use, or not one of the stated vehicle class."""


class ClassNotServed(ZoneError):
    """The vehicle class is not parked here."""


class UnknownZone(ZoneError):
    """No zone in force has this code."""


class ZoneFull(ZoneError):
    """A strict zone has no place left."""


class AlreadyParked(ZoneError):
    """The plate has a running session somewhere in the city."""


class MaxStayExceeded(ZoneError):
    """More minutes than the zone allows at a stretch."""


class UnknownSession(ZoneError):
    """The client has no session of this id."""


class SessionEnded(ZoneError):
    """The session was stopped before."""


class SessionExpired(ZoneError):
    """The session's time was over before this."""


class NotPrepaid(ZoneError):
    """Only a session with minutes can be extended; this one runs until it is stopped."""


class StoppedBeforeStart(ZoneError):
    """`stopped_at` lies before the session's start."""


class StoppedInFuture(ZoneError):
    """`stopped_at` lies in the future."""


class StoppedTooLate(ZoneError):
    """`stopped_at` lies further back than a phone may have been offline."""


class CapturedInFuture(ZoneError):
    """`captured_at` lies further in the future than clocks may differ."""


class CapturedTooLate(ZoneError):
    """`captured_at` lies further back than a check may be handed in."""


class UnknownDistrict(ZoneError):
    """No service district has this code."""


class UnknownRight(ZoneError):
    """No right has this id."""


class AlreadyGranted(ZoneError):
    """The vehicle has the same right for some of the time already."""


class RightOver(ZoneError):
    """The right's time is over."""


class KeyConflict(ZoneError):
    """The idempotency key was used with another request."""


class Overtaken(ZoneError):
    """What stood in this call's way was gone when it was looked at: ask again."""


class SessionInTheWay(ZoneError):
    """A session of this plate is past its time, and must be closed with the start of the next one in `zone`."""

    def __init__(self, session_id: UUID, zone: str) -> None:
        super().__init__(f"session {session_id} is past its time")
        self.session_id = session_id
        self.zone = zone


class StayUnpriced(ZoneError):
    """The stay is longer than what was priced so far: continue the price and try again."""

    def __init__(self, session_id: UUID) -> None:
        super().__init__(f"session {session_id} is longer than its agreed price")
        self.session_id = session_id

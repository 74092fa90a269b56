"""What the people of a trace send: drivers start, extend and stop, wardens check. Requests only, no sockets, no clock
of its own.

Vehicles are independent of each other. Within one vehicle events chain: a stop needs the id that its start was given,
so an event whose predecessor is still unanswered waits, and the wait counts as response time, not as the client's lag.
"""

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import msgspec

from simulator.answers import Answer, rfc3339
from simulator.trace import Event

# Simulated drivers pay from their wallets: what is owed by another method would be paid by nobody here, and soon stop
# them from parking. Each of the many drivers must be funded.
PAYMENT_METHOD = "wallet"
_encode = msgspec.json.Encoder().encode


class KeysError(ValueError):
    """The keys file cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Bearer keys by role. `drivers` are as many people; a vehicle always belongs to the same one."""

    drivers: tuple[str, ...]
    warden: str
    operator: str
    planner: str

    @classmethod
    def read(cls, path: str | Path) -> "Keys":
        """From keys.json as the stack writes it; without `drivers` all vehicles are one driver's. Raises KeysError."""
        try:
            keys = json.loads(Path(path).read_text(encoding="utf-8"))
            drivers = keys.get("drivers") or [keys["driver"]]
            return cls(tuple(drivers), keys["warden"], keys["operator"], keys["planner"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise KeysError(f"{path}: no file of keys ({type(error).__name__}: {error})") from None


class Request(NamedTuple):
    """One POST."""

    path: str
    token: str
    key: str
    body: bytes

    def headers(self) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "Idempotency-Key": self.key,
        }

    def wire(self, host: str) -> bytes:
        """The request as HTTP/1.1 bytes."""
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Type: application/json\r\nIdempotency-Key: {self.key}\r\nContent-Length: {len(self.body)}\r\n\r\n"
        )
        return head.encode("latin-1") + self.body


class Step:
    """One event being done. `ready` is when it could first be sent; times are the runner's own."""

    __slots__ = (
        "answered",
        "body",
        "captured_at",
        "driver",
        "due",
        "event",
        "ready",
        "request",
        "sent",
        "session",
        "status",
        "tries",
    )

    def __init__(self, event: Event, due: float, ready: float) -> None:
        self.event = event
        self.due = due
        self.ready = ready
        self.request: Request
        self.driver = 0
        self.session: str | None = None
        self.captured_at: int | None = None
        self.sent = 0.0
        self.answered = 0.0
        self.tries = 0
        self.status = 0
        self.body = b""

    def answer(self, to_wall: float) -> Answer:
        """What is kept of it; `to_wall` turns the runner's times into seconds since 1970."""
        event = self.event
        return Answer(
            round(self.due + to_wall, 6), round(self.ready + to_wall, 6), round(self.sent + to_wall, 6),
            round(self.answered + to_wall, 6), self.tries, event.action, event.plate, event.vehicle_class, event.zone,
            event.minutes, self.request.key, self.driver, self.session, self.captured_at, self.status,
            self.body.decode("utf-8", "replace"),
        )  # fmt: skip


class _Chain:
    """One vehicle: the session it has, whether an answer is awaited, and what waits behind it."""

    __slots__ = ("busy", "session", "waiting")

    def __init__(self) -> None:
        self.session: str | None = None
        self.busy = False
        self.waiting: deque[tuple[Event, float]] | None = None


class Fleet:
    """All vehicles of a run. `arrive` and `answered` give the step that is to be sent now, or None."""

    def __init__(self, keys: Keys, run: str, business_at: Callable[[float], int]) -> None:
        """`run` makes this run's idempotency keys unlike any other's; `business_at` gives the business instant of a due
        time."""
        self._keys = keys
        self._run = run
        self._business_at = business_at
        self._chains: dict[str, _Chain] = {}
        self._number = 0
        self.skipped = 0

    def arrive(self, event: Event, due: float) -> Step | None:
        """An event's time has come."""
        chain = self._chains.get(event.vehicle)
        if chain is None:
            chain = self._chains[event.vehicle] = _Chain()
        elif chain.busy:
            if chain.waiting is None:
                chain.waiting = deque()
            chain.waiting.append((event, due))
            return None
        return self._step(chain, event, due, due) or self._rest(chain, event.vehicle, due)

    def answered(self, step: Step) -> Step | None:
        """A step's answer is there (or will never come): what the same vehicle sends next."""
        chain = self._chains[step.event.vehicle]
        chain.busy = False
        if step.event.action == "start":
            chain.session = session_id(step.status, step.body) or chain.session
        elif step.event.action == "stop":
            chain.session = None
        return self._rest(chain, step.event.vehicle, step.answered)

    def _rest(self, chain: _Chain, vehicle: str, now: float) -> Step | None:
        """The first of what waits that can be done; a vehicle with nothing to do and nothing parked is forgotten."""
        while chain.waiting:
            event, due = chain.waiting.popleft()
            step = self._step(chain, event, due, max(due, now))
            if step is not None:
                return step
        if chain.session is None:
            del self._chains[vehicle]
        return None

    def _step(self, chain: _Chain, event: Event, due: float, ready: float) -> Step | None:
        """None for a stop or an extend without a session: its start was refused, or it is stopped already."""
        if event.action in ("stop", "extend") and chain.session is None:
            self.skipped += 1
            return None
        step = Step(event, due, ready)
        self._address(step, chain)
        chain.busy = True
        return step

    def _address(self, step: Step, chain: _Chain) -> None:
        event = step.event
        self._number += 1
        step.driver = crc32(event.plate.encode()) % len(self._keys.drivers)
        token = self._keys.drivers[step.driver]
        if event.action == "start":
            path, body = "/v1/sessions", _start_body(event)
        elif event.action == "check":
            step.captured_at = self._business_at(step.due)
            path, body, token = "/v1/enforcement/checks", _check_body(event, step.captured_at), self._keys.warden
        else:
            step.session = chain.session
            path = f"/v1/sessions/{chain.session}/{event.action}"
            body = b"{}" if event.action == "stop" else _encode({"minutes": event.minutes})
        step.request = Request(path, token, f"{self._run}-{self._number}", body)


def _start_body(event: Event) -> bytes:
    body: dict[str, str | int] = {
        "zone": event.zone,
        "plate": event.plate,
        "vehicle_class": event.vehicle_class,
        "payment_method": PAYMENT_METHOD,
    }
    if event.minutes is not None:
        body["minutes"] = event.minutes
    return _encode(body)


def _check_body(event: Event, captured_at: int) -> bytes:
    return _encode(
        {
            "plate": event.plate,
            "vehicle_class": event.vehicle_class,
            "zone": event.zone,
            "captured_at": rfc3339(captured_at),
        }
    )


def session_id(status: int, body: bytes) -> str | None:
    """The id of the session that a start's answer made; None where it made none."""
    if status != 201:
        return None
    try:
        answer = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    found = answer.get("id") if isinstance(answer, dict) else None
    return found if isinstance(found, str) else None

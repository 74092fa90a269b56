"""Many drivers who want the same few places and plates at once, each call recorded: a history worth checking.

Several processes run it at once, each with drivers of its own; driver i of one is the same client as driver i of any
other, so that keys and sessions are fought over between processes too. Every driver sends one request at a time.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit
from zlib import crc32

import msgspec

from simulator.client import Client
from simulator.history import record
from simulator.history.record import DONE, MAYBE, Operation

KEPT = 4  # sessions that a driver remembers after they ended, to ask about them again
SHARED_FOR = 20  # calls of a driver for which a key is shared with the other processes
MINUTES_MORE = 10
TIMEOUT_SECONDS = 20.0
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Contention:
    """What is fought over: places of `zones` (code and class) for `plates` of that class. Each process has a driver a
    token, who makes `calls` calls."""

    base_url: str
    tokens: tuple[str, ...]
    zones: tuple[tuple[str, str], ...]
    plates: tuple[str, ...]
    calls: int
    seed: int


def contend(plan: Contention, process: int, path: Path) -> None:
    """Be one of the processes; its part of the history goes to `path`."""
    record.write(path, asyncio.run(_contend(plan, process)))


async def _contend(plan: Contention, process: int) -> list[Operation]:
    client = Client(plan.base_url, limit=len(plan.tokens), timeout=TIMEOUT_SECONDS, tries=1)
    history: list[Operation] = []
    drivers = [_Driver(plan, process, number, client, history) for number in range(len(plan.tokens))]
    try:
        async with asyncio.TaskGroup() as group:
            for driver in drivers:
                group.create_task(driver.drive())
    finally:
        await client.close()
    return history


class _Call:
    """One request, as the client wants it."""

    __slots__ = ("answer", "answered", "body", "sent", "status", "tries", "wire")

    def __init__(self, wire: bytes) -> None:
        self.wire = wire
        self.sent = self.answered = 0.0
        self.tries = self.status = 0
        self.body = b""
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(self) -> None:
        if not self.answer.done():
            self.answer.set_result(None)


class _Driver:
    def __init__(self, plan: Contention, process: int, number: int, client: Client, history: list[Operation]) -> None:
        self._plan, self._client, self._history = plan, client, history
        self._name = str(number)
        self._token = plan.tokens[number]
        self._random = Random(f"{plan.seed} {process} {number}")
        self._process = process
        self._calls = 0
        self._running: list[Operation] = []  # the starts that made the sessions
        self._past: list[Operation] = []
        self._left: tuple[Operation, Any] | None = None  # a start that may have been carried out, and what it asked for
        self._host = urlsplit(plan.base_url)
        self._deeds: list[Callable[[], Awaitable[None]]] = [
            *[self._start] * 30, *[self._stop] * 30, *[self._extend] * 8, *[self._look] * 10, *[self._count] * 8,
            *[self._start_together] * 6, *[self._ask_again] * 6, *[self._hang_up] * 2,
        ]  # fmt: skip

    async def drive(self) -> None:
        while self._calls < self._plan.calls:
            await self._random.choice(self._deeds)()

    async def _start(self) -> None:
        zone, plate = self._random.choice(self._plan.zones), self._random.choice(self._plan.plates)
        minutes = self._random.choice((None, 60))
        await self._send(self._wanted(zone, plate, self._new_key()), _body(zone, plate, minutes))

    async def _start_together(self) -> None:
        """With a key that the same driver uses in other processes at about this time."""
        key = f"shared {self._calls // SHARED_FOR} of {self._name}".replace(" ", "-")
        chosen = crc32(f"{self._plan.seed} {key}".encode())
        zone = self._plan.zones[chosen % len(self._plan.zones)]
        plate = self._plan.plates[chosen // 16 % len(self._plan.plates)]
        await self._send(self._wanted(zone, plate, key), _body(zone, plate, None))

    async def _stop(self) -> None:
        if self._running:
            key = self._random.choice((None, self._new_key()))
            await self._about(self._random.choice(self._running), "stop", key)

    async def _ask_again(self) -> None:
        """Of a session that may be over: stopped by this driver before, or in another process meanwhile."""
        known = self._past or self._running
        if known:
            session = self._random.choice(known)
            await self._about(session, self._random.choice(("stop", "look", "extend")))

    async def _extend(self) -> None:
        if self._running:
            await self._about(self._random.choice(self._running), "extend", self._new_key())

    async def _look(self) -> None:
        if self._running:
            await self._about(self._random.choice(self._running), "look")

    async def _count(self) -> None:
        zone, vehicle_class = self._random.choice(self._plan.zones)
        await self._send(Operation("count", MAYBE, 0, None, zone, vehicle_class, client=self._name), None)

    async def _hang_up(self) -> None:
        """Start or stop, leave before the answer, and ask again under the same key. Where a start is refused then, the
        first may still be carried out: it is asked for once more the next time. Or its plate would be parked for ever,
        and in a long history nothing be left to fight for."""
        key = self._new_key()
        if self._running and self._random.random() < 0.7:
            stopped = self._random.choice(self._running)
            asked = self._asked(stopped, "stop", key)
            await self._send_and_leave(asked, {})
            await self._about(stopped, "stop", key)
        else:
            zone, plate = self._random.choice(self._plan.zones), self._random.choice(self._plan.plates)
            asked, body = self._wanted(zone, plate, key), _body(zone, plate, None)
            if self._left is not None:
                await self._send(*self._left)
            await self._send_and_leave(asked, body)
            answered = await self._send(asked, body)
            self._left = None if answered.outcome == DONE else (asked, body)

    async def _send_and_leave(self, asked: Operation, body: Any) -> None:
        self._calls += 1
        self._history.append(msgspec.structs.replace(asked, invoked=time.monotonic_ns()))
        _, writer = await asyncio.open_connection(self._host.hostname, self._host.port)
        writer.write(self._wire(asked, body))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    def _wanted(self, zone: tuple[str, str], plate: str, key: str) -> Operation:
        return Operation("start", MAYBE, 0, None, *zone, plate=plate, client=self._name, key=key)

    def _asked(self, start: Operation, action: str, key: str | None) -> Operation:
        """About the session of a start."""
        number = MINUTES_MORE if action == "extend" else None
        return Operation(
            action, MAYBE, 0, None, start.zone, start.vehicle_class, start.plate, self._name, key, start.session, number
        )

    async def _about(self, start: Operation, action: str, key: str | None = None) -> None:
        body: dict[str, Any] = {"stop": {}, "extend": {"minutes": MINUTES_MORE}, "look": None}
        known = await self._send(self._asked(start, action, key), body[action])
        is_over = known.outcome in ("session_ended", "ended") or (action, known.outcome) == ("stop", DONE)
        if is_over and start in self._running:
            self._running.remove(start)
            self._past = [*self._past, start][-KEPT:]

    async def _send(self, asked: Operation, body: Any) -> Operation:
        self._calls += 1
        call = _Call(self._wire(asked, body))
        asked = msgspec.structs.replace(asked, invoked=time.monotonic_ns())
        self._client.submit(call)
        await call.answer
        known = record.judged(asked, time.monotonic_ns(), call.status, call.body)
        self._history.append(known)
        if known.action == "start" and known.outcome == DONE:
            self._running.append(known)
        return known

    def _new_key(self) -> str:
        return f"{self._process}-{self._name}-{self._calls}"

    def _wire(self, asked: Operation, body: Any) -> bytes:
        method, path = _REQUESTS[asked.action]
        head = f"{method} {path.format(asked)} HTTP/1.1\r\nHost: {self._host.netloc}\r\n"
        head += f"Authorization: Bearer {self._token}\r\n"
        if asked.key is not None:
            head += f"Idempotency-Key: {asked.key}\r\n"
        content = b"" if body is None else _encode(body)
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        return head.encode() + content


_REQUESTS = {
    "start": ("POST", "/v1/sessions"),
    "stop": ("POST", "/v1/sessions/{0.session}/stop"),
    "extend": ("POST", "/v1/sessions/{0.session}/extend"),
    "look": ("GET", "/v1/sessions/{0.session}"),
    "count": ("GET", "/v1/zones/{0.zone}/availability"),
}


def _body(zone: tuple[str, str], plate: str, minutes: int | None) -> dict[str, Any]:
    code, vehicle_class = zone
    wanted = {"zone": code, "plate": plate, "vehicle_class": vehicle_class, "payment_method": "wallet"}
    return wanted if minutes is None else wanted | {"minutes": minutes}

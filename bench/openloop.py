"""An open-loop client: requests are due at instants that were drawn beforehand, whether or not the last was answered.

wrk waits for an answer before it sends the next request on a connection, so a server that stalls is sent less, and the
stall is seen by few requests. Here arrivals are a Poisson process of a given rate. A request's latency counts from the
instant at which it was due, not from when a connection was free for it, so nothing is omitted (Gil Tene, "How NOT to
measure latency"). The client is one thread of raw asyncio: what it is late by itself is counted in and told as `lag`.
"""

import asyncio
import gc
import random
import selectors
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from bench.errors import BenchError

CONNECTIONS = 128
# How long the last answers may take, and no connection may be silent.
PATIENCE_SECONDS = 20.0

Make = Callable[[int], bytes]
# Is given a request's number, its status and the answer's body.
Hear = Callable[[int, int, bytes], None]


@dataclass(frozen=True, slots=True)
class Timings:
    """What one run saw, by request: when it was due (seconds from the begin), and the seconds from then to its answer
    and to when the client turned to it."""

    due: Sequence[float]
    latencies: Sequence[float]
    lags: Sequence[float]

    def since(self, seconds: float) -> "Timings":
        """Without the requests that were due in the first `seconds`."""
        first = bisect_left(self.due, seconds)
        return Timings(self.due[first:], self.latencies[first:], self.lags[first:])

    def latency_ms(self, percent: float) -> float:
        return percentile(self.latencies, percent) * 1000

    def lag_ms(self, percent: float) -> float:
        return percentile(self.lags, percent) * 1000


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of 100 values do not pass (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """The instants of a Poisson process of `rate` a second, in seconds from its begin; the same for the same seed."""
    chance, instants, at = random.Random(seed), [], 0.0
    while (at := at + chance.expovariate(rate)) < seconds:
        instants.append(at)
    return instants


def run(
    url: str,
    due: Sequence[float],
    make: Make,
    hear: Hear | None = None,
    status: int = 201,
    stopped: Callable[[], bool] = lambda: False,
) -> Timings:
    """Send request n (`make(n)`) when due[n] seconds have passed, until `stopped`. Blocks until all are answered.

    Raises BenchError where an answer has another status (unless `hear` takes them all) or does not come.
    """
    # select() keeps time to the microsecond; epoll, as asyncio uses it, to the millisecond.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    was_on = gc.isenabled()
    gc.disable()
    try:
        return loop.run_until_complete(_OpenLoop(url, make, hear or _Expect(status)).send(due, stopped))
    finally:
        loop.close()
        if was_on:
            gc.enable()


class _Expect:
    """Takes answers of one status."""

    def __init__(self, status: int) -> None:
        self._status = status

    def __call__(self, number: int, status: int, body: bytes) -> None:
        if status != self._status:
            raise BenchError(f"open loop: an answer was {status}: {body[:200].decode(errors='replace')}")


class _OpenLoop:
    def __init__(self, url: str, make: Make, hear: Hear) -> None:
        parts = urlsplit(url)
        self._place = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._make, self._hear = make, hear
        self._due: list[float] = []
        self._lags: list[float] = []
        self._latencies: list[float] = []
        self._answered = 0
        self._waiting: deque[int] = deque()
        # In turn, so that none is idle for so long that the server hangs up (30 s), but where requests are very few.
        self._free: deque[_Connection] = deque()
        self._open: set[_Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._sent_all = False
        self._done: asyncio.Future[None]

    async def send(self, due: Sequence[float], stopped: Callable[[], bool]) -> Timings:
        loop = asyncio.get_running_loop()
        self._done = loop.create_future()
        for _ in range(CONNECTIONS):
            await self._connect()
        try:
            await self._send_when_due(due, stopped)
            await asyncio.wait_for(self._done, PATIENCE_SECONDS)
        except TimeoutError:
            missing = len(self._due) - self._answered
            raise BenchError(
                f"open loop: {missing} answers were still missing {PATIENCE_SECONDS:.0f} s later"
            ) from None
        finally:
            for connection in self._open:
                connection.close()
        return Timings(due[: len(self._due)], self._latencies, self._lags)

    async def _connect(self) -> None:
        _, connection = await asyncio.get_running_loop().create_connection(lambda: _Connection(self), *self._place)
        self._open.add(connection)
        self._free.append(connection)
        self._send_next()

    def hung_up(self, connection: "_Connection") -> None:
        """The server closed a connection that nobody used: another takes its place."""
        self._open.discard(connection)
        self._free.remove(connection)
        task = asyncio.get_running_loop().create_task(self._connect())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _send_when_due(self, due: Sequence[float], stopped: Callable[[], bool]) -> None:
        begin = time.perf_counter()
        for number, after in enumerate(due):
            at = begin + after
            if (early := at - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            elif number % 16 == 0:
                await asyncio.sleep(0)  # behind: let answers in
            if stopped() or self._done.done():
                break
            self._due.append(at)
            self._latencies.append(0.0)
            self._lags.append(max(0.0, time.perf_counter() - at))
            self._waiting.append(number)
            self._send_next()
        self._sent_all = True
        self._end_if_answered()

    def _send_next(self) -> None:
        if self._waiting and self._free:
            number = self._waiting.popleft()
            self._free.popleft().send(number, self._make(number))

    def answered(self, connection: "_Connection", number: int, status: int, body: bytes) -> None:
        self._latencies[number] = time.perf_counter() - self._due[number]
        self._answered += 1
        try:
            self._hear(number, status, body)
        except BenchError as error:
            self.failed(error)
        self._free.append(connection)
        self._send_next()
        self._end_if_answered()

    def failed(self, error: BenchError) -> None:
        if not self._done.done():
            self._done.set_exception(error)

    def _end_if_answered(self) -> None:
        if self._sent_all and self._answered == len(self._due) and not self._done.done():
            self._done.set_result(None)


class _Connection(asyncio.Protocol):
    """One kept-alive connection: a request, then its answer."""

    def __init__(self, owner: _OpenLoop) -> None:
        self._owner = owner
        self._transport: Any = None
        self._number = -1
        self._is_used = False
        self._held = b""
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def send(self, number: int, request: bytes) -> None:
        self._number = number
        self._is_used = True
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, found, body = self._held.partition(b"\r\n\r\n")
        if not found:
            return
        length = _content_length(head)
        if length is None:
            self._owner.failed(BenchError("open loop: an answer without Content-Length"))
        elif len(body) >= length:
            self._held = body[length:]
            self._is_used = False
            self._owner.answered(self, self._number, int(head[9:12]), body[:length])

    def connection_lost(self, error: Exception | None) -> None:
        if self._closing:
            return
        if not self._is_used:
            self._owner.hung_up(self)
        else:
            self._owner.failed(BenchError(f"open loop: the server closed a connection ({error})"))

    def close(self) -> None:
        self._closing = True
        self._transport.close()


def _content_length(head: bytes) -> int | None:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return None

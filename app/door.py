"""Who may try to connect while PostgreSQL lets nobody in: one in a while, for all.

A refused try is not free: a server that has used up its connections refuses only after it has checked the password, at
some 20 ms of its processor's time, and a server that has just come back has better to do. Without this every request of
every thread would try for itself, and drown it (measured: 200 requests/s against a full server waited for 5 s and
more).
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

# Real seconds between two tries of a process. So much later than the server it is back.
REST_SECONDS = 0.25


class Door:
    """Open while connecting works; after a failure only one try passes every REST_SECONDS, until one succeeds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next_try: float | None = None  # monotonic; None: open

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Around a try to connect. Raises psycopg.OperationalError, at once, where it is not ours to make."""
        self.check()
        try:
            yield
        except psycopg.OperationalError:
            self._next_try = time.monotonic() + REST_SECONDS
            raise
        self._next_try = None

    def check(self) -> None:
        """Pass, and where the door is shut, let nobody pass for a while after. Raises psycopg.OperationalError."""
        with self._lock:
            if self._next_try is None:
                return
            if time.monotonic() < self._next_try:
                raise psycopg.OperationalError("PostgreSQL let nobody in a moment ago")
            self._next_try = time.monotonic() + REST_SECONDS

"""Is PostgreSQL there? Asked twice a second, so that a server that hangs keeps nobody waiting.

A server that dies tells everybody at once: its connections are reset and new ones refused. One that hangs (a stopped
process, a frozen machine, a network that is gone) tells nobody, and no time-out of its own runs out. Statements cannot
be given a short deadline instead, for one that waits for another request's lock is right to wait. So one thread asks a
question that waits for no lock, and where no answer comes it hangs up on behalf of all: whoever waits is told that the
connection is lost, and who comes is told at once until the server answers again.

A single connection can hang while the server answers all others: its backend is stopped, or it was dropped in silence.
Where many wait for one connection (app/grouping.py), it is a TimedConnection: the server has promised to end each of
its statements in time, so one that lasts longer has lost its backend, and is hung up on in the same way.
"""

import logging
import math
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen

log = logging.getLogger(__name__)
Value = TypeVar("Value")
# Real seconds. Together less than the 2 s within which a request must be told that the database is away.
BEAT_SECONDS = 0.4
SILENCE_SECONDS = 1.25


# How much longer than the server's own time-out a statement may last: a PgBouncer may let it wait for 2 s before it.
MARGIN_SECONDS = 3.0


class _Silence(Exception):
    """No answer came in time."""


class TimedConnection(psycopg.Connection):
    """A connection that knows since when it has waited for the server, and for how long it may (`patience` seconds)."""

    patience = math.inf
    _since: float | None = None  # monotonic; None: it does not wait

    def wait(self, gen: PQGen[Value], *args: Any, **kwargs: Any) -> Value:
        """What all of psycopg's operations go through. Costs 0.5 µs more."""
        self._since = time.monotonic()
        try:
            return super().wait(gen, *args, **kwargs)
        finally:
            self._since = None

    def is_overdue(self) -> bool:
        """Whether it has waited for too long, and still has no answer: this process may itself have been stopped."""
        since = self._since
        return since is not None and time.monotonic() - since > self.patience and not is_readable(self, 0.0)


class Pulse:
    """Watches the server that `connect` leads to, on a connection of its own."""

    def __init__(
        self, connect: Callable[[], psycopg.Connection], connections: Callable[[], Iterable[psycopg.Connection]]
    ) -> None:
        """`connections` gives all that are to be hung up when the server hangs."""
        self._connect = connect
        self._connections = connections
        self._own: psycopg.Connection | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._silent = False
        self._asks = True

    def check(self) -> None:
        """Raises psycopg.OperationalError while the server hangs."""
        if self._silent:
            raise psycopg.OperationalError("PostgreSQL gives no answer")

    def watch(self) -> None:
        """Begin, in a thread of its own, until `stop`. Safe to repeat."""
        if self._thread is not None:
            return
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and its connection."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(SILENCE_SECONDS)

    def _run(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            self._hang_up_overdue()
            try:
                self._own = self._own or self._connect()
                _ask(self._own)
                self._silent, self._asks = False, True
            except (_Silence, psycopg.errors.ConnectionTimeout):
                self._hang_up()
            except psycopg.Error as error:  # the server, or its machine, says itself what is wrong: to every request
                if self._asks:  # once: a URL of its own may be wrong, and no request would tell
                    log.warning("nobody watches whether PostgreSQL hangs: %s", str(error).strip().partition("\n")[0])
                self._silent, self._asks = False, False
                self._drop()
        self._drop()

    def _hang_up_overdue(self) -> None:
        for connection in self._connections():
            with suppress(psycopg.Error):  # it was closed at this moment: nobody waits for it any more
                if isinstance(connection, TimedConnection) and connection.is_overdue():
                    log.warning("hung up: no answer to a statement after %.1f s", connection.patience)
                    _hang_up(connection)

    def _hang_up(self) -> None:
        self._silent = True  # first: whoever is told must not find the door open
        for connection in self._connections():
            _hang_up(connection)
        self._drop()

    def _drop(self) -> None:
        if self._own is not None:
            self._own.close()
            self._own = None


def _ask(connection: psycopg.Connection) -> None:
    """Raises _Silence where no answer comes, psycopg.Error where the connection is lost."""
    connection.pgconn.send_query(b"SELECT 1")
    # The second look is for a process that was stopped meanwhile: its own time ran out, and the answer is there.
    if not is_readable(connection, SILENCE_SECONDS) and not is_readable(connection, 0.0):
        raise _Silence
    while (result := connection.pgconn.get_result()) is not None:
        if result.status != psycopg.pq.ExecStatus.TUPLES_OK:
            raise psycopg.OperationalError(result.get_error_message())


def is_readable(connection: psycopg.Connection, seconds: float) -> bool:
    """Whether the server says something, or hangs up, within this time."""
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _hang_up(connection: psycopg.Connection) -> None:
    """End the connection under a thread that waits for its answer: to close it is that thread's own affair."""
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.pgconn.socket)) as its:
        its.shutdown(socket.SHUT_RDWR)

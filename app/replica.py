"""A streaming replica for reads that may be a little old, and how old they are.

Once a second each process notes how far the primary had written its log (the catalogue asks it anyway). A replica
that has replayed a noted position knows all that was committed when it was noted: that is the instant as of which it
answers. Its lag is the time between that note and the newest one.

So a replica is not asked where it is not known to have replayed any note of the last `replica_lag_seconds`; where it
does not answer (then not again for a second; that it hangs app/pulse.py finds out); where it is no replica, or one of
another database or of another timeline, as after a failover of which not both have heard. While the primary is away no
notes come: the replica goes on answering, as of the last one.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple

import psycopg

from app.config import Settings
from app.database import DatabaseState, ThreadConnections

REST_SECONDS = 1.0
# The id as database_state() has it. A replica learns of a new timeline by its log, or at its next restart point.
_STATE = """
SELECT to_hex(s.system_identifier) || '-' || d.oid || '-' || GREATEST(c.timeline_id, r.min_recovery_end_timeline),
       CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() - '0/0' END
  FROM pg_control_system() s, pg_control_checkpoint() c, pg_control_recovery() r, pg_database d
 WHERE d.datname = current_database()
"""


class ReplicaAway(Exception):
    """The replica does not answer, is too far behind, or is none of this primary."""


class Note(NamedTuple):
    """How far the primary had written at a monotonic second."""

    at: float
    position: int


class Replica:
    """The replica of `settings.replica_url`."""

    def __init__(self, settings: Settings) -> None:
        assert settings.replica_url is not None
        url = settings.replica_url  # for its pulse too: what reads waits for no lock
        self._connections = ThreadConnections(replace(settings, database_url=url, pulse_url=url))
        self._lag_seconds = settings.replica_lag_seconds
        self._lock = threading.Lock()
        self._notes: deque[Note] = deque()
        self._database_id: str | None = None
        self._rest_until = 0.0

    def watch(self) -> None:
        """Begin to watch over it, until `close`: one that hangs is hung up on, and the primary asked."""
        self._connections.pulse.watch()

    def note(self, at: float, state: DatabaseState) -> None:
        """The primary's state, as it was at monotonic second `at` or later."""
        with self._lock:
            if state.id != self._database_id:
                self._notes.clear()
                self._database_id = state.id
            self._notes.append(Note(at, state.position))
            while self._notes[0].at < at - self._lag_seconds:
                self._notes.popleft()

    @contextmanager
    def reading(self) -> Iterator[tuple[psycopg.Connection, timedelta]]:
        """A connection, and how long ago (real time) the instant was up to which it knows everything.

        Raises ReplicaAway, also where the connection is lost or a query is cancelled in favour of replay.
        """
        if time.monotonic() < self._rest_until:
            raise ReplicaAway("it did not answer a moment ago")
        try:
            connection = self._connections.get()
            known = self._known(connection)
            yield connection, timedelta(seconds=time.monotonic() - known.at)
        except psycopg.errors.QueryCanceled:
            raise  # the query's own time-out: the primary would be no faster
        except (psycopg.OperationalError, psycopg.ProgrammingError) as error:  # the latter: a function not there yet
            self._rest_until = time.monotonic() + REST_SECONDS
            raise ReplicaAway(f"it does not answer: {error}") from error

    def state(self) -> str:
        """In a word or two for /readyz: ok, or why it is not asked."""
        try:
            with self.reading():
                return "ok"
        except ReplicaAway as away:
            return str(away)

    def _known(self, connection: psycopg.Connection) -> Note:
        """The newest note that it has replayed. Asked before the reads, so that they see at least that much."""
        row = connection.execute(_STATE).fetchone()
        assert row is not None
        with self._lock:
            if row[1] is None:
                raise ReplicaAway("it is no replica")
            if row[0] != self._database_id:
                raise ReplicaAway("it follows another database or timeline")
            for note in reversed(self._notes):
                if note.position <= row[1]:
                    return note
        raise ReplicaAway(f"it is more than {self._lag_seconds:g} s behind")

    def close(self) -> None:
        """Close the connections of all threads."""
        self._connections.close()

"""How many vehicles stand in each zone: PostgreSQL's counts, and the copies of them in Redis.

A copy carries the version of the row it was made from, and a newer version wins, so pushes may come late or twice.
Copies may be lost at any moment: readers then ask PostgreSQL, and the reconciler puts the copies back.
"""

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from importlib import resources

import psycopg
from redis.exceptions import ConnectionError, RedisError

from zones.nodes import Nodes
from zones.sessions import EPOCH, Count

log = logging.getLogger(__name__)
Key = tuple[str, str]  # zone code, vehicle class

# After a failure Redis is left alone for this long (real seconds), so that a dead one costs a request nothing.
REST_SECONDS = 1.0
# The shortest time between two flushes (real seconds): a lone count goes out at once, under load many go together.
PACE_SECONDS = 0.01
# A thread that had nothing to send for this long (real seconds) ends; the next push starts another.
IDLE_SECONDS = 10.0
_MICROSECOND = timedelta(microseconds=1)
_SET_IF_NEWER = resources.files("zones").joinpath("lua/set_if_newer.lua").read_text(encoding="utf-8")


class CopiesAway(Exception):
    """Redis does not answer; PostgreSQL knows the counts."""


def _encode(count: Count) -> str:
    next_over = "" if count.next_over is None else (count.next_over - EPOCH) // _MICROSECOND
    return f"{count.version} {count.occupied} {count.capacity} {next_over}"


def _decode(key: Key, text: bytes | str) -> Count:
    version, occupied, capacity, next_over = (text if isinstance(text, str) else text.decode()).split(" ")
    instant = EPOCH + int(next_over) * _MICROSECOND if next_over else None
    return Count(*key, int(version), int(occupied), int(capacity), instant)


class Copies:
    """The copies in Redis. All keys of a zone carry the same hash tag; all keys begin with the database's id."""

    def __init__(self, redis: Nodes, database_id: str) -> None:
        self._redis = redis
        self._database_id = database_id
        self._changed = threading.Condition()
        self._pending: dict[Key, Count] = {}
        self._sending: dict[Key, Count] = {}
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._rest_until = 0.0

    def key(self, zone: str, vehicle_class: str) -> str:
        """The Redis key of one count."""
        return f"{self._database_id}:{{{zone}}}:count:{vehicle_class}"

    def push(self, counts: Iterable[Count]) -> None:
        """Hand in counts; older ones than those held are ignored. A thread of this process sends them at once.

        The request does not wait for that: it would cost a tenth of a start, and under load counts that come while one
        flush is under way share the next. This process reads its own counts back at once, others within milliseconds;
        what is lost (Redis is away, the process dies) the reconciler repairs.
        """
        with self._changed:
            was_empty = not self._pending
            for count in counts:
                key = (count.zone, count.vehicle_class)
                held = self._pending.get(key) or self._sending.get(key)
                if held is None or held.version < count.version:
                    self._pending[key] = count
            if was_empty:  # else the thread is busy, and looks again before it waits
                self._changed.notify_all()
            if self._thread is None or not self._thread.is_alive():  # threads do not survive a fork
                self._thread = threading.Thread(target=self._send_all, name="copies", daemon=True)
                self._thread.start()

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until all that was handed in was sent (or given up); whether it was, within `timeout` real seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._pending and not self._sending, timeout)

    def close(self) -> None:
        """Send what is left, then end the thread."""
        self.flush()
        with self._changed:
            self._closed.set()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _send_all(self) -> None:
        while self._take():
            try:
                self._send(self._sending.values())
            except Exception:  # a thread that dies would leave this process with its own counts of now for ever
                log.exception("counts could not be sent; the reconciler repairs their copies")
            with self._changed:
                self._sending = {}
                self._changed.notify_all()
            self._closed.wait(PACE_SECONDS)

    def _take(self) -> bool:
        """Wait for counts to send, and take them; False where the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._closed.is_set(), IDLE_SECONDS)
            if not self._pending:
                self._thread = None
                return False
            self._sending, self._pending = self._pending, {}
            return True

    def _send(self, counts: Iterable[Count]) -> None:
        """One round trip for all. What a node of a cluster did not take, the reconciler repairs."""
        if time.monotonic() < self._rest_until:
            return
        copies = [(self.key(count.zone, count.vehicle_class), (count.version, _encode(count))) for count in counts]
        try:
            self._redis.run(_SET_IF_NEWER, copies)
        except RedisError as error:
            self._rest(error)

    def overwrite(self, counts: Iterable[Count]) -> None:
        """Replace copies whatever they hold. Raises CopiesAway where not every one could be."""
        commands = [("SET", self.key(count.zone, count.vehicle_class), _encode(count)) for count in counts]
        with self._guard():
            if commands and None in self._redis.send(commands):
                raise ConnectionError("not every copy could be overwritten")

    def read(self, keys: Sequence[Key]) -> dict[Key, Count]:
        """The copies that are there and can be had, in one look-up. Raises CopiesAway."""
        with self._guard():
            own = self._own()  # before the look-up: what is sent meanwhile is found in one of the two
            texts = self._redis.mget([self.key(*key) for key in keys]) if keys else []
        held = {key: _decode(key, text) for key, text in zip(keys, texts, strict=True) if text is not None}
        newer = {
            key: own[key] for key in keys if key in own and (key not in held or held[key].version < own[key].version)
        }
        return held | newer

    def _own(self) -> dict[Key, Count]:
        """What this process has handed in and Redis may not have yet."""
        with self._changed:
            return self._sending | self._pending

    def ping(self) -> None:
        """Raises CopiesAway where Redis does not answer now, even while it is being left alone."""
        self._rest_until = 0.0
        with self._guard():
            self._redis.ping()

    def _check_awake(self) -> None:
        if time.monotonic() < self._rest_until:
            raise CopiesAway

    def _rest(self, error: RedisError) -> None:
        log.warning("Redis is away, counts come from PostgreSQL: %s", error)
        self._rest_until = time.monotonic() + REST_SECONDS

    def _guard(self) -> "_Guard":
        self._check_awake()
        return _Guard(self)


class _Guard:
    """Turns a RedisError inside the block into CopiesAway, and lets Redis rest."""

    def __init__(self, copies: Copies) -> None:
        self._copies = copies

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RedisError):
            self._copies._rest(error)
            raise CopiesAway from error


def counts(connection: psycopg.Connection, now: datetime, zones: Sequence[str] | None = None) -> dict[Key, Count]:
    """PostgreSQL's counts as of `now`, of some zones or (None) of all."""
    query = "SELECT * FROM counts_as_of(%s)"
    if zones is None:
        rows = connection.execute(query, (now,)).fetchall()
    else:
        rows = connection.execute(query + " WHERE zone_code = ANY(%s)", (now, list(zones))).fetchall()
    return {(row[0], row[1]): Count(*row) for row in rows}


def rows(connection: psycopg.Connection) -> dict[Key, Count]:
    """The rows themselves, which is what copies are made of."""
    query = "SELECT zone_code, vehicle_class, version, occupied, capacity, next_over FROM zone_occupancy"
    return {(row[0], row[1]): Count(*row) for row in connection.execute(query).fetchall()}


def reconcile(connection: psycopg.Connection, copies: Copies) -> int:
    """Put right every copy that is missing or differs from its row; the number of those. Raises CopiesAway.

    Rows are read again after the copies, because a copy may have been made since: one that is newer than the row as
    read then comes from another history (a restored database) and is overwritten.
    """
    copied = copies.read(list(rows(connection)))
    wrong = {key: row for key, row in rows(connection).items() if copied.get(key) != row}
    older = {key: row for key, row in wrong.items() if key not in copied or copied[key].version < row.version}
    copies.push(older.values())
    copies.overwrite(row for key, row in wrong.items() if key not in older)
    return len(wrong)


def rebuild(connection: psycopg.Connection, copies: Copies) -> int:
    """Overwrite all copies with PostgreSQL's rows; their number. Raises CopiesAway."""
    held = rows(connection)
    copies.overwrite(held.values())
    return len(held)

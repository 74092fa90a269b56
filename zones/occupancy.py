"""How many vehicles stand in each zone: PostgreSQL's counts, and the copies of them in Redis.

A copy carries the version of the row it was made from, and a newer version wins, so pushes may come late or twice.
Copies may be lost at any moment: readers then ask PostgreSQL, and the reconciler puts the copies back.
"""

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib import resources

import psycopg
from redis import Redis
from redis.exceptions import RedisError

from zones.sessions import EPOCH, Count

log = logging.getLogger(__name__)
Key = tuple[str, str]  # zone code, vehicle class

# After a failure Redis is left alone for this long (real seconds), so that a dead one costs a request nothing.
REST_SECONDS = 1.0
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


@dataclass(slots=True)
class _Flush:
    """Counts that go to Redis together; `taken` is None until they went."""

    counts: dict[Key, Count] = field(default_factory=dict)
    taken: bool | None = None


class Copies:
    """The copies in Redis. All keys of a zone carry the same hash tag; all keys begin with the database's id."""

    def __init__(self, redis: Redis, database_id: str) -> None:
        self._redis = redis
        self._database_id = database_id
        self._pusher = redis.connection_pool.make_connection()
        self._joining, self._flushing = threading.Lock(), threading.Lock()
        self._next = _Flush()
        self._rest_until = 0.0

    def key(self, zone: str, vehicle_class: str) -> str:
        """The Redis key of one count."""
        return f"{self._database_id}:{{{zone}}}:count:{vehicle_class}"

    def push(self, counts: Iterable[Count]) -> bool:
        """Hand in counts; older ones than those held are ignored. False where Redis is away: the reconciler repairs.

        Returns once Redis has them. Callers that come while one flush is under way share the next one: at 8 threads
        that halves what a push costs, and a lone caller loses nothing.
        """
        with self._joining:
            flush = self._next
            for count in counts:
                if (
                    held := flush.counts.get(key := (count.zone, count.vehicle_class))
                ) is None or held.version < count.version:
                    flush.counts[key] = count
        with self._flushing:
            if flush.taken is None:
                with self._joining:
                    self._next = _Flush()
                flush.taken = self._send(flush.counts.values())
        return flush.taken

    def _send(self, counts: Iterable[Count]) -> bool:
        """One round trip for all: the commands go out in one packet over a connection of our own."""
        if time.monotonic() < self._rest_until:
            return False
        commands = [
            ("EVAL", _SET_IF_NEWER, 1, self.key(count.zone, count.vehicle_class), count.version, _encode(count))
            for count in counts
        ]
        connection = self._pusher
        try:
            connection.send_packed_command(connection.pack_commands(commands))
            answers = [connection.read_response() for _ in commands]
        except RedisError as error:
            connection.disconnect()
            self._rest(error)
            return False
        return all(answer in (0, 1) for answer in answers)

    def overwrite(self, counts: Iterable[Count]) -> None:
        """Replace copies whatever they hold. Raises CopiesAway."""
        with self._guard():
            pipeline = self._redis.pipeline(transaction=False)
            for count in counts:
                pipeline.set(self.key(count.zone, count.vehicle_class), _encode(count))
            pipeline.execute()

    def read(self, keys: Sequence[Key]) -> dict[Key, Count]:
        """The copies that are there, in one look-up. Raises CopiesAway."""
        with self._guard():
            texts = self._redis.mget([self.key(*key) for key in keys]) if keys else []
        return {key: _decode(key, text) for key, text in zip(keys, texts, strict=True) if text is not None}

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
    older = [row for key, row in wrong.items() if key not in copied or copied[key].version < row.version]
    copies.push(older)
    copies.overwrite(row for row in wrong.values() if row not in older)
    return len(wrong)


def rebuild(connection: psycopg.Connection, copies: Copies) -> int:
    """Overwrite all copies with PostgreSQL's rows; their number. Raises CopiesAway."""
    held = rows(connection)
    copies.overwrite(held.values())
    return len(held)

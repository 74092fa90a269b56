"""A Redis Cluster as a place for copies: one packet to each node at a time, and no node waited for that is away.

redis-py knows the nodes and their slots (NodesManager) and holds the connections. Its own ClusterPipeline is not used:
it sends what a dead node did not answer again one command at a time, each with time-outs of its own and a new look at
the cluster, which for a map of 300 counts is minutes; and where no connection to one node can be made, the answers of
all the others are lost.
"""

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from redis.cluster import ClusterNode, NodesManager
from redis.connection import ConnectionInterface, parse_url
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ConnectionError,
    MovedError,
    RedisError,
    SlotNotCoveredError,
    TimeoutError,
    TryAgainError,
)

log = logging.getLogger(__name__)
Command = tuple[Any, ...]
DEFAULT_PORT = 6379
# A node that failed is left alone for this long (real seconds); meanwhile its keys count as lost.
NODE_REST_SECONDS = 1.0
# The shortest time between two looks at who has which slots (real seconds).
LOOK_PAUSE_SECONDS = 1.0
# What a node answered in time lies ready even where another one used all the time that there was.
SHORTEST_READ_SECONDS = 0.02
# A command is sent to its node, to where that one points, and once more where the slot moves on meanwhile.
MOST_HOPS = 3
_UNREACHABLE = (ConnectionError, TimeoutError)
# What says that the slot is elsewhere or on its way there; after any other error its node is left alone.
_SLOT_MOVES = (AskError, TryAgainError)  # MovedError is an AskError


def split_url(url: str) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """The seeds (host, port) and the connections' options of a redis+cluster:// or rediss+cluster:// URL.

    Seeds are separated by commas. Raises ValueError, without the URL, which holds a password.
    """
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    if parts.path.strip("/") not in ("", "0"):
        raise ValueError("a Redis Cluster has no numbered databases")
    seeds = [_seed(parts, host) for host in hosts.split(",")]
    scheme = parts.scheme.removesuffix("+cluster")
    options = parse_url(urlunsplit(parts._replace(scheme=scheme, netloc=f"{user}{at}{seeds[0][0]}", path="")))
    options.pop("host", None)
    return seeds, options


def _seed(parts: SplitResult, host: str) -> tuple[str, int]:
    one = parts._replace(netloc=host)
    try:
        port = one.port or DEFAULT_PORT
    except ValueError:
        raise ValueError("the port of a seed is no port") from None
    if not one.hostname:
        raise ValueError("a seed without a host")
    return one.hostname, port


@dataclass(slots=True)
class _Call:
    """A command on its way. `answer` is a RedisError until there is one."""

    command: Command
    slot: int
    node: ClusterNode | None = None  # where another node sent it, or who alone is meant
    asking: bool = False
    answer: Any = None


@dataclass(slots=True)
class _Packet:
    """What goes to one node at once."""

    node: ClusterNode
    calls: list[_Call] = field(default_factory=list)
    connection: Any = None
    error: RedisError | None = None

    def write(self) -> None:
        try:
            self.connection = _connection(self.node)
            commands = [part for call in self.calls for part in _with_asking(call)]
            self.connection.send_packed_command(self.connection.pack_commands(commands))
        except RedisError as error:
            self._fail(error, self.calls)

    def read(self, deadline: float) -> None:
        if self.error is not None:
            return
        for number, call in enumerate(self.calls):
            try:
                if call.asking:
                    self._read_one(deadline)
                call.answer = self._read_one(deadline)
            except _UNREACHABLE as error:
                self._fail(error, self.calls[number:])
                return
            except RedisError as error:
                call.answer = error
        self._release()

    def _read_one(self, deadline: float) -> Any:
        left = max(deadline - time.monotonic(), SHORTEST_READ_SECONDS)
        return self.connection.read_response(timeout=left)

    def _fail(self, error: RedisError, calls: Iterable[_Call]) -> None:
        self.error = error
        for call in calls:
            call.answer = error
        if self.connection is not None:
            self.connection.disconnect()
            self._release()

    def _release(self) -> None:
        assert self.node.redis_connection is not None
        self.node.redis_connection.connection_pool.release(self.connection)


def _connection(node: ClusterNode) -> ConnectionInterface:
    assert node.redis_connection is not None
    return node.redis_connection.connection_pool.get_connection()


def _with_asking(call: _Call) -> list[Command]:
    return [("ASKING",), call.command] if call.asking else [call.command]


def _slot(command: Command) -> int:
    """The hash slot of a command's first key: its first argument, or the one after the number of keys of a script."""
    key = command[3] if command[0] == "EVAL" else command[1]
    return key_slot(key.encode())


class Cluster:
    """The masters of a Redis Cluster. Nothing is connected, and no thread runs, before it is first used.

    A thread of its own looks at who has which slots: at the start, and at most once a second while a node is away or
    points elsewhere. No request waits for that, but for the first look, and for that no longer than for an answer.
    """

    def __init__(self, url: str, timeout: float) -> None:
        """`timeout` (real seconds) is for each connection and each answer. Raises ValueError where the URL is wrong."""
        self._seeds, self._options = split_url(url)
        self._options = {"socket_timeout": timeout, "socket_connect_timeout": timeout} | self._options
        self._timeout = timeout
        self._manager: NodesManager | None = None
        self._strangers: dict[str, ClusterNode] = {}
        self._rest_until: dict[str, float] = {}
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._look_wanted = threading.Event()
        self._looked = threading.Event()
        self._closed = threading.Event()

    def mget(self, keys: Sequence[str]) -> list[Any]:
        """What each key holds; None where nothing does, or where its node is away. Raises what `send` raises."""
        by_slot: dict[int, list[int]] = {}
        for number, key in enumerate(keys):
            by_slot.setdefault(key_slot(key.encode()), []).append(number)
        found: list[Any] = [None] * len(keys)
        commands = [("MGET", *(keys[number] for number in numbers)) for numbers in by_slot.values()]
        for numbers, texts in zip(by_slot.values(), self.send(commands), strict=True):
            for number, text in zip(numbers, texts or [None] * len(numbers), strict=True):
                found[number] = text
        return found

    def send(self, commands: Iterable[Command]) -> list[Any]:
        """Each command's answer; None where its node is away or refuses. Raises ConnectionError where all are away."""
        calls = [_Call(command, _slot(command)) for command in commands]
        self._carry_out(self._known_nodes(), calls)
        return [None if isinstance(call.answer, RedisError) else call.answer for call in calls]

    def run(self, script: str, calls: Sequence[tuple[str, Sequence[Any]]]) -> None:
        """The script once for each key: those of one command would have to lie in one slot. Raises as `send` does."""
        self.send([("EVAL", script, 1, key, *given) for key, given in calls])

    def ping(self) -> None:
        """Raises RedisError where a master does not answer now, even one that is being left alone."""
        manager = self._known_nodes()
        self._rest_until.clear()
        calls = [_Call(("PING",), -1, node) for node in manager.get_nodes_by_server_type("primary")]
        self._carry_out(manager, calls)
        for call in calls:
            if isinstance(call.answer, RedisError):
                raise call.answer

    def process_ids(self) -> list[int]:
        """The masters' processes, on the machines they run on. Raises RedisError where one does not answer."""
        masters = [node.redis_connection for node in self._known_nodes().get_nodes_by_server_type("primary")]
        return [int(master.info("server")["process_id"]) for master in masters if master is not None]

    def close(self) -> None:
        """End the thread, after a look that is under way, and the connections."""
        self._closed.set()
        self._look_wanted.set()
        if self._thread is not None:
            self._thread.join()
        manager, self._manager = self._manager, None
        if manager is not None:
            manager.close()

    def _carry_out(self, manager: NodesManager, calls: list[_Call]) -> None:
        for _ in range(MOST_HOPS):
            packets = self._packets(manager, calls)
            for packet in packets:
                packet.write()
            deadline = time.monotonic() + self._timeout
            for packet in packets:
                packet.read(deadline)
                self._judge(packet)
            calls = [call for call in calls if isinstance(call.answer, AskError)]
            if not calls:
                return
            for call in calls:
                self._redirect(manager, call)

    def _packets(self, manager: NodesManager, calls: Iterable[_Call]) -> list[_Packet]:
        packets: dict[str, _Packet] = {}
        now = time.monotonic()
        for call in calls:
            try:
                node = call.node or manager.get_node_from_slot(call.slot)
            except SlotNotCoveredError:
                call.answer = ConnectionError(f"nobody has slot {call.slot}")
                self._want_look()
                continue
            if now < self._rest_until.get(node.name, 0.0):
                call.answer = ConnectionError(f"{node.name} failed a moment ago")
                self._want_look()
                continue
            if node.name not in packets:
                if node.redis_connection is None:
                    with self._lock:
                        manager.create_redis_connections([node])
                packets[node.name] = _Packet(node)
            packets[node.name].calls.append(call)
        return list(packets.values())

    def _judge(self, packet: _Packet) -> None:
        """Leave a node alone that does not answer, or that says that it cannot serve."""
        errors = (call.answer for call in packet.calls if isinstance(call.answer, RedisError))
        error = packet.error or next((error for error in errors if not isinstance(error, _SLOT_MOVES)), None)
        if error is None:
            return
        log.warning("Redis at %s is away, its counts come from PostgreSQL: %s", packet.node.name, error)
        self._rest_until[packet.node.name] = time.monotonic() + NODE_REST_SECONDS
        self._want_look()

    def _redirect(self, manager: NodesManager, call: _Call) -> None:
        """Aim a call at the node that the answer names: for good (MOVED), or for this once (ASK)."""
        host, port = call.answer.host, call.answer.port
        known = manager.get_node(host, port)
        call.node = known or self._strangers.setdefault(f"{host}:{port}", ClusterNode(host, port))
        call.asking = not isinstance(call.answer, MovedError)
        if not call.asking:
            self._want_look()

    def _known_nodes(self) -> NodesManager:
        """The cluster as last seen. Raises ConnectionError where none of its nodes answered the last look."""
        if self._manager is None:
            self._want_look()
            self._looked.wait(self._timeout)
        manager = self._manager
        if manager is None:
            raise ConnectionError("no node of the Redis Cluster answers")
        return manager

    def _want_look(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._look_when_wanted, name="redis-cluster", daemon=True)
                self._thread.start()
        self._look_wanted.set()

    def _look_when_wanted(self) -> None:
        while self._look_wanted.wait() and not self._closed.is_set():
            self._look_wanted.clear()
            self._look()
            self._looked.set()
            self._closed.wait(LOOK_PAUSE_SECONDS)

    def _look(self) -> None:
        """See who has which slots; begin afresh from the seeds where no known node answers (all may have moved)."""
        try:
            if self._manager is None:
                self._manager = self._find()
            else:
                self._manager.initialize()
            self._strangers.clear()
        except Exception as error:  # redis-py has many, and a thread that dies would never find the cluster again
            log.warning("no node of the Redis Cluster answers, counts come from PostgreSQL: %s", error)
            self._manager = None

    def _find(self) -> NodesManager:
        seeds = [ClusterNode(host, port) for host, port in self._seeds]
        return NodesManager(seeds, from_url=True, require_full_coverage=False, **self._options)

"""Where copies are kept: one Redis or a Redis Cluster, behind the same three verbs."""

import threading
from collections.abc import Iterable, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from redis import Redis
from redis.exceptions import RedisError

from zones.cluster import Cluster, Command

CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster")


class Nodes(Protocol):
    """Both kinds raise RedisError where nothing answers in time. Any thread may call."""

    def mget(self, keys: Sequence[str]) -> list[Any]:
        """What each key holds; None where nothing does, or where the node that has the key is away."""

    def send(self, commands: Iterable[Command]) -> list[Any]:
        """Carry out commands of one key each, in one round trip a node; an answer is None where its node is away.

        The key is the first argument, or of EVAL the one after the number of keys.
        """

    def run(self, script: str, calls: Sequence[tuple[str, Sequence[Any]]]) -> None:
        """Run a script for keys, each with as many arguments. It gets some keys or only one at a time, and their
        arguments in the same order. One round trip a node; what a node that is away did not take is lost."""

    def ping(self) -> None:
        """Raises RedisError where a node does not answer."""

    def process_ids(self) -> list[int]:
        """The processes that answer, on the machines they run on. Raises RedisError where one does not."""

    def close(self) -> None:
        """End all connections."""


class OneNode:
    """A single Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        # Commands go out over a connection of their own. One costs 45 µs of CPU so, with a connection from the pool 85,
        # by redis-py's pipeline 125; ten together 107, 149 and 246.
        self._sender = redis.connection_pool.make_connection()
        self._sending = threading.Lock()

    def mget(self, keys: Sequence[str]) -> list[Any]:
        return self._redis.mget(keys)

    def send(self, commands: Iterable[Command]) -> list[Any]:
        commands = list(commands)
        with self._sending:
            try:
                self._sender.send_packed_command(self._sender.pack_commands(commands))
                return [self._sender.read_response() for _ in commands]
            except RedisError:
                self._sender.disconnect()  # what is still on its way answers nobody
                raise

    def run(self, script: str, calls: Sequence[tuple[str, Sequence[Any]]]) -> None:
        # One command: Redis and redis-py both pay more for a command than for a key.
        arguments = [argument for _, given in calls for argument in given]
        self.send([("EVAL", script, len(calls), *(key for key, _ in calls), *arguments)])

    def ping(self) -> None:
        self._redis.ping()

    def process_ids(self) -> list[int]:
        return [int(self._redis.info("server")["process_id"])]

    def close(self) -> None:
        self._redis.close()
        with self._sending:
            self._sender.disconnect()


def connect(url: str, timeout: float) -> Nodes:
    """The Redis or the Redis Cluster behind a URL. Nothing is connected yet, and nothing is tried twice.

    `timeout` (real seconds) is for each connection and each answer. Raises ValueError where the URL is wrong.
    """
    if urlsplit(url).scheme in CLUSTER_SCHEMES:
        return Cluster(url, timeout)
    return OneNode(Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=None))

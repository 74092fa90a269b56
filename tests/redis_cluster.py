"""A real Redis Cluster of a test's own: three masters, each with a replica, on loopback ports."""

import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from app.stack.folders import RunUser, run_user
from app.stack.ports import choose_free
from app.stack.processes import Process, identify, spawn, wait_until
from app.stack.redis import find_program

MASTERS = 3
# How long a node may be silent before the others call it dead (ms). Short, but a busy machine must not be taken for it.
NODE_TIMEOUT_MS = 1_500
PATIENCE = 40.0


@dataclass
class Node:
    """One redis-server. The slots that a master had at first are its shard's, whoever serves them later."""

    port: int
    bus_port: int
    folder: Path
    password: str
    user: RunUser
    full_coverage: bool
    _process: Process | None = field(default=None, init=False)

    @cached_property
    def client(self) -> redis.Redis:
        """Asks this node alone, and waits for it longer than the service would."""
        return redis.Redis(port=self.port, password=self.password, socket_timeout=5, decode_responses=True, retry=None)

    def start(self) -> None:
        """Start it, with what it remembers of the cluster, if anything; returns once it answers."""
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "cluster-port": self.bus_port,
            "cluster-enabled": "yes",
            "cluster-node-timeout": NODE_TIMEOUT_MS,
            "cluster-require-full-coverage": "yes" if self.full_coverage else "no",
            "cluster-replica-validity-factor": 0,
            "repl-diskless-sync-delay": 0,
            "requirepass": self.password,
            "masterauth": self.password,
            "dir": self.folder,
            "save": '""',
            "appendonly": "no",
        }
        file = self.folder / "redis.conf"
        file.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        self.user.own(file)
        log = self.folder / "log"
        child = spawn([find_program(), file], log, folder=self.folder, user=self.user.popen_arguments())
        self._process = identify(f"redis-{self.port}", child.pid)
        child.returncode = 0  # it is ended by its record: no warning, no wait
        assert wait_until(self.answers, PATIENCE), log.read_text(errors="replace")

    def answers(self) -> bool:
        """Whether it runs."""
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        assert self._process is not None
        self._process.stop(signal.SIGKILL)

    def freeze(self) -> None:
        """It keeps its connections, and answers nothing."""
        assert self._process is not None
        self._process.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self._process is not None
        self._process.send(signal.SIGCONT)

    def close(self) -> None:
        """End it, however it is, and what asks it."""
        self.client.close()
        if self._process is not None:
            self._process.stop(signal.SIGKILL)

    def ask(self, *words: object) -> str:
        """A CLUSTER command's answer."""
        return str(self.client.execute_command("CLUSTER", *words))

    def state(self) -> dict[str, str]:
        """CLUSTER INFO by name."""
        return dict(self.client.execute_command("CLUSTER INFO"))

    def role(self) -> str:
        """`master` or `slave`, as it takes itself."""
        return str(self.client.role()[0])

    def is_ok(self, nodes: int) -> bool:
        """Whether, as far as it knows, all slots are served, and it knows so many nodes."""
        state = self.state()
        return state["cluster_state"] == "ok" and int(state["cluster_known_nodes"]) == nodes


class RedisCluster:
    """Six servers. Those of shard n are `nodes[n]`, its first master, and `nodes[n + MASTERS]`, its first replica."""

    def __init__(self, folder: Path, full_coverage: bool) -> None:
        user, password = run_user(folder), secrets.token_urlsafe(12)
        taken: set[int] = set()
        self.nodes = [_make_node(folder, user, password, full_coverage, taken) for _ in range(2 * MASTERS)]
        self.password = password

    @property
    def url(self) -> str:
        """What IPARKING_REDIS_URL would hold: all six are seeds."""
        seeds = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"redis+cluster://:{self.password}@{seeds}/0"

    def start(self) -> None:
        """Start all six and join them; returns once every one of them takes the cluster for whole."""
        for node in self.nodes:
            node.start()
        masters, replicas = self.nodes[:MASTERS], self.nodes[MASTERS:]
        for number, master in enumerate(masters):
            first, last = _slots(number)
            master.ask("ADDSLOTSRANGE", first, last)
            master.ask("SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            self.nodes[0].ask("MEET", "127.0.0.1", node.port, node.bus_port)
        self._wait(lambda: all(int(node.state()["cluster_known_nodes"]) == len(self.nodes) for node in self.nodes))
        for master, replica in zip(masters, replicas, strict=True):
            self._wait(lambda master=master, replica=replica: master.ask("MYID") in replica.ask("NODES"))
            replica.ask("REPLICATE", master.ask("MYID"))
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Wait until all six run, every one takes the cluster for whole, and each shard has a replica that follows."""
        self._wait(lambda: all(node.is_ok(len(self.nodes)) for node in self.nodes))
        self._wait(lambda: sum(_follows(node) for node in self.nodes) == MASTERS)

    def shard(self, key: str) -> int:
        """The number of the shard that has a key."""
        return next(number for number in range(MASTERS) if key_slot(key.encode()) <= _slots(number)[1])

    def master(self, shard: int) -> Node:
        """The node that serves a shard now."""
        return next(node for node in self.nodes[shard::MASTERS] if node.answers() and node.role() == "master")

    def replica(self, shard: int) -> Node:
        """The node that follows a shard's master now."""
        return next(node for node in self.nodes[shard::MASTERS] if node.answers() and node.role() == "slave")

    def wait_for_master(self, node: Node) -> None:
        """Wait until this one serves its shard, and says that all slots are served."""
        self._wait(lambda: node.role() == "master" and node.state()["cluster_state"] == "ok")

    def close(self) -> None:
        """End exactly these six."""
        for node in self.nodes:
            node.close()

    def _wait(self, condition: Callable[[], bool]) -> None:
        assert wait_until(condition, PATIENCE), [node.ask("NODES") for node in self.nodes if node.answers()]


def _make_node(folder: Path, user: RunUser, password: str, full_coverage: bool, taken: set[int]) -> Node:
    ports = []
    for _ in range(2):
        ports.append(choose_free(taken))
        taken.add(ports[-1])
    own = folder / str(ports[0])
    own.mkdir(mode=0o700)
    user.own(own)
    return Node(*ports, own, password, user, full_coverage)


def _slots(shard: int) -> tuple[int, int]:
    """The first and the last slot of a shard."""
    return shard * REDIS_CLUSTER_HASH_SLOTS // MASTERS, (shard + 1) * REDIS_CLUSTER_HASH_SLOTS // MASTERS - 1


def _follows(node: Node) -> bool:
    role = node.client.role()
    return role[0] == "slave" and role[3] == "connected"


@contextmanager
def running_cluster(full_coverage: bool = False) -> Iterator[RedisCluster]:
    """A cluster in a temporary folder of its own, started; ended and removed at the end.

    With `full_coverage` (Redis's default) all masters refuse to serve while the place of a dead one is empty.
    """
    folder = Path(tempfile.mkdtemp(prefix="ip-cluster-"))
    folder.chmod(0o755)  # the servers run as somebody else where the caller is root
    cluster = RedisCluster(folder, full_coverage)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder)

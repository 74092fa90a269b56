"""CPU time of the processes that serve a burst, as Linux counts it: what a request costs, however busy the machine."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import psutil
import psycopg

from zones.nodes import Nodes

Group = Callable[[], Mapping[int, float]]


def seconds_used(pids: Iterable[int]) -> dict[int, float]:
    """CPU seconds, user and system, that each of these processes has used since it began; the gone are left out."""
    used = {}
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            times = psutil.Process(pid).cpu_times()
            used[pid] = times.user + times.system
    return used


def with_ended(parent: int) -> dict[int, float]:
    """CPU seconds of this process together with those of all its children that have ended."""
    times = psutil.Process(parent).cpu_times()
    return {parent: times.user + times.system + times.children_user + times.children_system}


class Meter:
    """CPU seconds of named groups of processes since it was made. A group says anew each time who belongs to it."""

    def __init__(self, groups: Mapping[str, Group]) -> None:
        self._groups = groups
        self._before = self._look()

    def used(self) -> dict[str, float]:
        """CPU seconds by group; a process that came later counts whole."""
        return {
            name: sum(seconds - self._before[name].get(pid, 0.0) for pid, seconds in now.items())
            for name, now in self._look().items()
        }

    def _look(self) -> dict[str, Mapping[int, float]]:
        return {name: group() for name, group in self._groups.items()}


def is_here(connection: psycopg.Connection) -> bool:
    """Whether PostgreSQL runs on this machine, so that its processes can be looked at."""
    return _is_called(connection.info.backend_pid, "postgres")


def backends(connection: psycopg.Connection) -> list[int]:
    """The processes behind this database's other connections, also those of another role: of them the view tells no
    more than whose they are."""
    query = """SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND usename IS NOT NULL AND pid <> pg_backend_pid()"""
    return [row[0] for row in connection.execute(query).fetchall()]


def postmaster(connection: psycopg.Connection) -> int:
    """The process that starts the backends."""
    return psutil.Process(connection.info.backend_pid).ppid()


def redis_processes(redis: Nodes) -> list[int]:
    """Redis's processes, those of a cluster's masters among them; none that runs on another machine."""
    return [pid for pid in redis.process_ids() if _is_called(pid, "redis-server")]


def _is_called(pid: int, name: str) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).name().startswith(name)
    return False

"""CPU time of the processes that serve a burst, as Linux counts it: what a request costs, however busy the machine."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import psutil
import psycopg
from redis import Redis

Group = Callable[[], Iterable[int]]


def seconds_used(pids: Iterable[int]) -> float:
    """CPU seconds, user and system, of these processes and of those of their children that have ended."""
    used = 0.0
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            times = psutil.Process(pid).cpu_times()
            used += times.user + times.system + times.children_user + times.children_system
    return used


class Meter:
    """CPU seconds of named groups of processes since it was made. A group says anew each time who belongs to it.

    The parent of short-lived processes must belong to its group, for what ends is counted there.
    """

    def __init__(self, groups: Mapping[str, Group]) -> None:
        self._groups = groups
        self._before = self._look()

    def used(self) -> dict[str, float]:
        """CPU seconds by group."""
        return {name: seconds - self._before[name] for name, seconds in self._look().items()}

    def _look(self) -> dict[str, float]:
        return {name: seconds_used(group()) for name, group in self._groups.items()}


def backends(connection: psycopg.Connection) -> list[int]:
    """The processes behind this database's other connections, and the server that starts them.

    None of them where the server runs on another machine.
    """
    own = connection.info.backend_pid
    if not _is_called(own, "postgres"):
        return []
    query = """SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"""
    return [psutil.Process(own).ppid(), *(row[0] for row in connection.execute(query).fetchall())]


def redis_process(redis: Redis) -> list[int]:
    """Redis's process; none where it runs on another machine."""
    pid = int(redis.info("server")["process_id"])
    return [pid] if _is_called(pid, "redis-server") else []


def _is_called(pid: int, name: str) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).name().startswith(name)
    return False

"""Memory of a process and of all that PostgreSQL uses for it, as Linux counts it."""

import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

import psycopg

EVERY_SECONDS = 0.05
OWN, SHARED = ("RssAnon", "RssFile"), ("RssShmem",)


class Peak:
    """The most that a process (`client`) and the backends and parallel workers of a database (`backends`) held at one
    moment, in MB: programs and libraries count in each, PostgreSQL's shared memory in none. `shared` is the largest
    part of that which one of them has touched: the server's cache, as large as it was set to be.

    As a context manager it looks every 50 ms, through a connection to another database of the server, which is on this
    machine.
    """

    def __init__(self, connection: psycopg.Connection, database: str, client: int) -> None:
        self.client = self.backends = self.shared = 0.0
        self._connection, self._database, self._client = connection, database, client
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._failed: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._failed is not None:
            raise self._failed

    @property
    def total(self) -> float:
        """What both held."""
        return self.client + self.backends

    def _watch(self) -> None:
        try:
            while not self._over.wait(EVERY_SECONDS):
                self._look()
        except Exception as error:  # told where the block ends
            self._failed = error

    def _look(self) -> None:
        pids = backends(self._connection, self._database)
        client, own = megabytes(self._client, OWN + SHARED), sum(megabytes(pid, OWN) for pid in pids)
        self.shared = max((self.shared, *(megabytes(pid, SHARED) for pid in pids)))
        if client + own > self.total:
            self.client, self.backends = client, own


def backends(connection: psycopg.Connection, database: str) -> list[int]:
    """The processes behind a database's connections, their parallel workers included."""
    query = """SELECT pid FROM pg_stat_activity
        WHERE datname = %s AND backend_type IN ('client backend', 'parallel worker') AND pid <> pg_backend_pid()"""
    return [row[0] for row in connection.execute(query, (database,)).fetchall()]


def megabytes(pid: int, parts: tuple[str, ...]) -> float:
    """Resident memory of a process of these parts (proc(5), /proc/pid/status); 0 where it is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        lines = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return sum(int(value.split()[0]) for name, _, value in lines if name in parts) / 1024
    return 0.0

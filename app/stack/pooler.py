"""A PgBouncer in transaction mode before a PostgreSQL: for tests and measurements, and the settings that it needs."""

import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit, urlunsplit

import psycopg

from app.stack.errors import StackError
from app.stack.folders import RunUser
from app.stack.postgres import reason
from app.stack.processes import Process, identify, replace_file, spawn, wait_until

NAME = "pgbouncer"
# A database's name that stands for a pool of its own: what is asked there never queues behind what waits for a lock.
PULSE = "pulse"
START_SECONDS = 20.0
# Few server connections carry many clients. Where PostgreSQL is away, clients are told within 2 s; PgBouncer's own
# default lets them wait for two minutes.
SETTINGS = {
    "listen_addr": "127.0.0.1",
    "auth_type": "scram-sha-256",
    "pool_mode": "transaction",
    "max_client_conn": 500,
    "default_pool_size": 20,
    "server_connect_timeout": 2,
    "server_login_retry": 1,
    "query_wait_timeout": 2,
    "unix_socket_dir": "",
    "server_reset_query": "",
    "log_connections": 0,
    "log_disconnections": 0,
}


@dataclass(slots=True)
class PgBouncer:
    """One process in `folder` that passes clients on to the server of `database_url`, whatever database they name.

    Clients log in as that URL's user. As a context manager it runs from beginning to end of the block.
    """

    folder: Path
    port: int
    database_url: str
    user: RunUser
    process: Process | None = None

    def url(self, database_url: str) -> str:
        """The same database and user, through this process."""
        parts = urlsplit(database_url)
        login = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{self.port}"))

    @property
    def pulse_url(self) -> str:
        """Where app/pulse.py is to ask."""
        return urlunsplit(urlsplit(self.url(self.database_url))._replace(path=f"/{PULSE}"))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def log(self) -> Path:
        return self.folder / f"{NAME}.log"

    def start(self) -> None:
        """Write its settings and start it. Raises StackError with its reason."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write(self.folder / "users.txt", self._users())
        self._write(self.folder / f"{NAME}.ini", self._settings())
        self.user.own(self.folder)
        command = [find_program(), str(self.folder / f"{NAME}.ini")]
        child = spawn(command, self.log, folder=self.folder, user=self.user.popen_arguments())
        wait_until(lambda: self._answers() or child.poll() is not None, START_SECONDS)
        if child.poll() is not None or not self._answers():
            child.kill()
            child.wait()
            raise StackError(f"PgBouncer does not start: {reason(self.log.read_text(errors='replace'))}")
        self.process = identify(NAME, child.pid)
        child.returncode = 0  # it is watched by its record

    def stop(self) -> None:
        """End it, and all connections through it."""
        if self.process is not None:
            self.process.stop(signal.SIGTERM)
            self.process = None

    def _write(self, file: Path, text: str) -> None:
        replace_file(file, text)
        self.user.own(file)

    def _users(self) -> str:
        parts = urlsplit(self.database_url)
        return f'"{unquote(parts.username or "")}" "{unquote(parts.password or "")}"\n'

    def _settings(self) -> str:
        server = urlsplit(self.database_url)
        settings = {**SETTINGS, "listen_port": self.port, "auth_file": self.folder / "users.txt"}
        lines = [f"{name} = {value}" for name, value in settings.items()]
        where = f"host={server.hostname} port={server.port}"
        databases = [f"* = {where}", f"{PULSE} = {where} dbname={server.path.strip('/')} pool_size=2"]
        return "\n".join(["[databases]", *databases, "[pgbouncer]", *lines, ""])

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url(self.database_url), connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False


def find_program() -> str:
    """The path of pgbouncer. Raises StackError if it is missing."""
    program = shutil.which(NAME, path="/usr/sbin:/usr/bin:/usr/local/bin") or shutil.which(NAME)
    if program is None:
        raise StackError("PgBouncer is missing: install pgbouncer")
    return program

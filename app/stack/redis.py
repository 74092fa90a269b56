"""The private Redis: copies only, so nothing is saved and the least used go first when memory is short."""

import re
import secrets
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import redis

from app.stack.errors import StackError
from app.stack.folders import Folders
from app.stack.ports import require_free
from app.stack.postgres import reason
from app.stack.processes import Process, Records, identify, replace_file, spawn, wait_until

NAME = "redis"
OLDEST_VERSION = 7
START_SECONDS = 20.0
REMEDY = "remove or change redis_port in {}"


@dataclass(frozen=True, slots=True)
class Redis:
    """One server in `folders.data/redis` on its own loopback port."""

    folders: Folders
    port: int
    password: str

    @property
    def data(self) -> Path:
        return self.folders.data / NAME

    @property
    def log(self) -> Path:
        return self.folders.log / f"{NAME}.log"

    @property
    def records(self) -> Records:
        return Records(self.folders.run)

    def url(self, database: int = 0) -> str:
        """A Redis URL with the password in it."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/{database}"

    def process(self) -> Process | None:
        """The server if it runs."""
        process = self.records.read(NAME)
        return process if process and process.is_alive() else None

    def start(self) -> None:
        """Start it unless it runs. Raises StackError with the server's reason."""
        if self.process() is not None:
            return
        program = find_program()
        self.stop()
        if not self.data.exists():
            self.data.mkdir(mode=0o700)
            self.folders.user.own(self.data)
        self._write_settings()
        require_free(self.port, "the private Redis", REMEDY.format(self.folders.root / "stack.json"))
        self._run(program)

    def stop(self) -> bool:
        """Shut it down. Returns whether it ran."""
        return self.records.stop(NAME)

    def _write_settings(self) -> None:
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "requirepass": self.password,
            "dir": f'"{self.data}"',
            "daemonize": "no",
            "save": '""',
            "appendonly": "no",
            "maxmemory": "128mb",
            "maxmemory-policy": "allkeys-lru",
        }
        lines = [f"{name} {value}" for name, value in settings.items()]
        file = self.data / "redis.conf"
        replace_file(file, "\n".join(["# written by ./iparking at every start", *lines, ""]))
        self.folders.user.own(file)

    def _run(self, program: str) -> None:
        before = self.log.stat().st_size if self.log.exists() else 0
        command = [program, str(self.data / "redis.conf")]
        child = spawn(command, self.log, folder=self.data, user=self.folders.user.popen_arguments())
        try:
            wait_until(lambda: self.answers() or child.poll() is not None, START_SECONDS)
            if child.poll() is not None or not self.answers():
                with self.log.open(errors="replace") as log:
                    log.seek(before)
                    raise StackError(f"Redis does not start: {reason(log.read())} (see {self.log})")
            self.records.write(identify(NAME, child.pid))
        except BaseException:
            child.send_signal(signal.SIGKILL)
            child.wait()
            raise
        child.returncode = 0  # it is to outlive us: no warning, no wait

    def answers(self) -> bool:
        """Whether it answers a PING."""
        client = redis.Redis.from_url(self.url(), socket_connect_timeout=1, socket_timeout=1)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


def new_password() -> str:
    """The password of a new server."""
    return secrets.token_urlsafe(24)


def find_program() -> str:
    """The path of redis-server. Raises StackError if it is missing or too old."""
    program = shutil.which("redis-server", path="/usr/bin:/usr/local/bin:/bin") or shutil.which("redis-server")
    if program is None:
        raise StackError("Redis is missing: install redis-server")
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    version = re.search(r"v=(\d+)", answer)
    if version is None or int(version[1]) < OLDEST_VERSION:
        raise StackError(f"Redis {OLDEST_VERSION} or newer is needed; {program} is: {answer.strip()}")
    return program

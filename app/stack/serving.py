"""The API under granian and the periodic jobs, for one database on one port."""

import contextlib
import hashlib
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg import sql

from app.clock import booted
from app.config import THREADS
from app.stack.errors import StackError
from app.stack.keys import write_keys
from app.stack.machine import PROJECT, Stack
from app.stack.ports import require_free
from app.stack.postgres import first_line, reason
from app.stack.processes import Process, identify, replace_file, spawn, wait_until

HOST = "127.0.0.1"
READY_SECONDS = 60.0
STOP_SECONDS = 15.0
MANAGED = (
    "IPARKING_DATABASE_URL",
    "IPARKING_OWNER_DATABASE_URL",
    "IPARKING_REDIS_URL",
    "IPARKING_KEYS",
    "IPARKING_ENV",
)
CLOCK = "IPARKING_CLOCK_"
PARTS = ("api", "jobs")
BACKLOG = 1024
# How long a stopped worker may take over the answers that it owes; less than STOP_SECONDS, at which all are killed.
DRAIN_SECONDS = 10
# What a database is made from; with none of it changed there is nothing to upgrade or to load.
SOURCES = ("migrations", "zones", "billing", "app/database.py", "app/city.py")
SOURCE_KINDS = (".py", ".sql", ".geojson", ".csv", ".json", ".toml")


class Server:
    """The API and the jobs of one database.

        server = Server(stack, "demo", port=8100, name="demo", environment={"IPARKING_ENV": "simulation", **clock})
        server.start()      # returns once /readyz is green
        server.url          # http://127.0.0.1:8100
        server.stop()

    The database must be there (`prepare_database`). `name` tells the servers of one stack apart: in `status`, in the
    records that let `./iparking down` stop a server whose starter has died, and in the names of the logs.
    """

    def __init__(
        self,
        stack: Stack,
        database: str = "iparking",
        port: int = 8000,
        *,
        name: str = "up",
        workers: int | None = None,
        threads: int = THREADS,
        environment: Mapping[str, str] | None = None,
        drivers: int = 0,
        funds: int | None = None,
    ) -> None:
        """`workers` processes (default: one a core) of `threads` threads each; `environment` is added to the caller's,
        whose own IPARKING_ENV and clock do not count; `drivers` keys of simulated drivers are made in keys.json.
        Outside production each driver's wallet is given `funds` VND of test money, once."""
        self.stack = stack
        self.database = database
        self.port = port
        self.name = name
        self.workers = workers or os.cpu_count() or 1
        self.threads = threads
        self.environment = dict(environment or {})
        self.drivers = drivers
        self.funds = funds
        # Read once: a worker that is replaced, or jobs that are started again, agree with those that run.
        self._booted = booted()
        self._started: dict[str, Process] = {}

    @property
    def url(self) -> str:
        """Where it serves, without a slash at the end."""
        return f"http://{HOST}:{self.port}"

    @property
    def keys_path(self) -> Path:
        """The bearer keys of this server's roles."""
        return self.stack.root / "keys.json"

    def start(self) -> None:
        """Start both and wait until the API is ready. Raises StackError with the reason, with nothing left running."""
        self.stop()
        require_free(self.port, "the API", "choose another with --port")
        write_keys(self.keys_path, self.drivers)
        self.fund()
        try:
            self._start("api")
            self._wait_until_ready()
            self._start("jobs")  # after it: on a small machine each would hold up the other's start
        except BaseException:
            self.stop()
            raise

    def stop(self) -> bool:
        """Stop both, granian's workers included. Returns whether anything ran."""
        for process in self._started.values():
            process.stop(patience=STOP_SECONDS)
        stopped = [self.stack.records.stop(f"{self.name}-{part}", patience=STOP_SECONDS) for part in PARTS]
        stopped.append(bool(self._started))
        self._started.clear()
        return any(stopped)

    def dead(self) -> list[str]:
        """Which of the parts that were started ("api", "jobs") have ended by themselves."""
        return [part for part, process in self._started.items() if not process.is_alive()]

    def restart(self, part: str) -> None:
        """Start "api" or "jobs" again after it died, without the remains of the old one. Raises StackError."""
        self.stack.records.stop(f"{self.name}-{part}", patience=STOP_SECONDS)
        if part == "api":
            require_free(self.port, "the API", "stop that program")
        self._start(part)
        self._wait_until_ready()

    def is_ready(self) -> bool:
        """Whether /readyz is green."""
        return self._ask_readiness() is None

    def log(self, part: str) -> Path:
        """The file that "api" or "jobs" writes to."""
        return self.stack.folders.log / f"{self.name}-{part}.log"

    def _commands(self) -> dict[str, list[str]]:
        api = [sys.executable, "-m", "granian", "--interface", "wsgi", "--host", HOST, "--port", str(self.port)]
        api += ["--workers", str(self.workers), "--blocking-threads", str(self.threads), "--no-ws"]
        # Each kept-alive connection counts against backpressure, idle or not, so it is far above the threads.
        api += ["--backlog", str(BACKLOG), "--backpressure", str(BACKLOG), "--log-level", "warning"]
        # A worker that died is replaced at once, beside the others; one that does not end is killed.
        api += ["--respawn-failed-workers", "--workers-kill-timeout", str(DRAIN_SECONDS)]
        return {"api": [*api, "wsgi:application"], "jobs": [sys.executable, "-m", "app.jobs"]}

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in MANAGED and not name.startswith(CLOCK)}
        return {
            **kept,
            "PYTHONPATH": str(PROJECT),
            "PYTHONUNBUFFERED": "1",
            # One heap for all threads but the first: sixteen would each keep what a large map once took (15 MB).
            "MALLOC_ARENA_MAX": "2",
            "IPARKING_DATABASE_URL": self.stack.service_url(self.database),
            "IPARKING_REDIS_URL": self.stack.redis_url,
            "IPARKING_KEYS": str(self.keys_path),
            "IPARKING_THREADS": str(self.threads),
            "IPARKING_CLOCK_BOOTED": self._booted.isoformat(),
            **self.environment,
        }

    def fund(self) -> None:
        """Give its drivers their test money, those that have none of it yet. Raises StackError."""
        from app.config import Settings  # only a start needs them
        from app.funding import FUNDS, fund_wallets

        try:
            fund_wallets(Settings.from_environment(self._environment()), self.funds or FUNDS)
        except psycopg.Error as error:
            raise StackError(
                f"the wallets of database {self.database} cannot be funded: {first_line(error)}"
            ) from error

    def _start(self, part: str) -> None:
        environment = self._environment()
        if part == "jobs" and environment.get("IPARKING_ARCHIVE_FOLDER"):
            environment["IPARKING_OWNER_DATABASE_URL"] = self.stack.database_url(self.database)
        child = spawn(self._commands()[part], self.log(part), environment=environment, folder=PROJECT)
        child.returncode = 0  # it is watched by its record, and may outlive this process: no warning, no wait
        process = identify(f"{self.name}-{part}", child.pid)
        self.stack.records.write(process)
        self._started[part] = process

    def _wait_until_ready(self) -> None:
        ready = wait_until(lambda: bool(self.dead()) or self.is_ready(), READY_SECONDS)
        for part in self.dead():
            why = reason(self.log(part).read_text(errors="replace"))
            raise StackError(
                f"the {part.upper() if part == 'api' else part} of {self.name} ended: {why} (see {self.log(part)})"
            )
        if not ready:
            raise StackError(f"the API is not ready after {READY_SECONDS:.0f} s: {self._ask_readiness()}")

    def _ask_readiness(self) -> str | None:
        """None where /readyz is green, else what it says."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5):
                return None
        except urllib.error.HTTPError as error:
            return error.read(500).decode(errors="replace")
        except OSError as error:
            return str(error)


def prepare_database(stack: Stack, name: str = "iparking", fresh: bool = False) -> str:
    """Make database `name` unless it is there (`fresh`: in any case), bring it to the newest schema, load the city.

    Returns its URL. What it was made from is noted on the database, so that an unchanged one costs one query.
    """
    url = stack.create_database(name, fresh=fresh)
    wanted = f"iparking {_source_hash()}"
    try:
        if _note(url) != wanted:
            from app.city import load_default_city
            from app.database import upgrade

            upgrade(url)
            load_default_city(url)
            _write_note(url, wanted)
    except psycopg.OperationalError as error:
        raise StackError(f"database {name}: {first_line(error)}") from error
    return url


def find_database(stack: Stack, name: str = "iparking") -> str:
    """The URL of a database as it is: a command that reads or repairs makes none, and upgrades none under a service.

    Raises StackError where there is none, or its schema is not this code's.
    """
    from app.database import is_upgraded  # takes long to load

    if not stack.has_database(name):
        raise StackError(f"there is no database {name}: `./iparking up --database {name}` makes it")
    url = stack.database_url(name)
    try:
        if not is_upgraded(url):
            raise StackError(
                f"database {name} does not have the schema of this code: ./iparking db upgrade --database {name}"
            )
    except psycopg.OperationalError as error:
        raise StackError(f"database {name}: {first_line(error)}") from error
    return url


def _source_hash() -> str:
    digest = hashlib.sha256()
    for source in SOURCES:
        place = PROJECT / source
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.suffix in SOURCE_KINDS:
                digest.update(os.fsencode(file.relative_to(PROJECT)) + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _note(url: str) -> str | None:
    query = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
    with psycopg.connect(url, connect_timeout=10) as connection:
        row = connection.execute(query).fetchone()
    return row[0] if row else None


def _write_note(url: str, note: str) -> None:
    with psycopg.connect(url, connect_timeout=10) as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(name, sql.Literal(note)))


def clock_environment(
    stack: Stack, database: str, start: datetime, speed: float = 1.0, fresh: bool = False
) -> dict[str, str]:
    """The variables of a clock that stood at `start` (aware) when it was first asked for here, and runs `speed` times
    as fast since. The real instant of that first time is kept for this database, so that a restart goes on with the
    same clock; another start or speed, or `fresh`, begins a new one."""
    file = stack.root / f"clock-{database}.json"
    clock = {"start": start.isoformat(), "speed": speed}
    kept: dict[str, object] = {}
    with contextlib.suppress(FileNotFoundError, ValueError):
        kept = json.loads(file.read_text())
    if fresh or {"start": kept.get("start"), "speed": kept.get("speed")} != clock:
        kept = {**clock, "anchor": datetime.now(UTC).isoformat()}
        replace_file(file, json.dumps(kept, indent=2) + "\n")
    return {
        "IPARKING_ENV": "simulation",
        "IPARKING_CLOCK_START": str(kept["start"]),
        "IPARKING_CLOCK_SPEED": str(kept["speed"]),
        "IPARKING_CLOCK_ANCHOR": str(kept["anchor"]),
    }

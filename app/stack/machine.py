"""The private servers of one machine, together."""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from app.stack import postgres, redis
from app.stack.errors import StackError
from app.stack.folders import Folders, prepare
from app.stack.ports import choose_free
from app.stack.processes import Records, replace_file

PROJECT = Path(__file__).resolve().parent.parent.parent
EMPTY_CITY = "iparking_postgis"
MAKERS_LOCK = 7_264_004  # of PostgreSQL's advisory locks: one maker of databases at a time
DATABASE_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


def default_root() -> Path:
    """Where the private servers live: IPARKING_HOME, else `.iparking` in the project's folder."""
    return Path(os.environ.get("IPARKING_HOME") or PROJECT / ".iparking").absolute()


class Stack:
    """A private PostgreSQL with PostGIS and a private Redis under one folder.

    Where IPARKING_DATABASE_URL or IPARKING_REDIS_URL is set, that server is used in its place, and neither started nor
    stopped here; IPARKING_OWNER_DATABASE_URL is the same database for the tables' owner, where that is another role.
    As a context manager it starts the servers and, at the end, stops those that nobody else uses:

        with Stack() as stack:
            url = stack.create_database("demo", fresh=True)
    """

    def __init__(self, root: Path | None = None, environment: Mapping[str, str] | None = None) -> None:
        """`root` is made if missing; `environment` (of this process) is looked at for these URLs only."""
        environment = os.environ if environment is None else environment
        self.root = Path(root or default_root())
        self.given_service = environment.get("IPARKING_DATABASE_URL") or None
        self.given_database = environment.get("IPARKING_OWNER_DATABASE_URL") or self.given_service
        self.given_redis = environment.get("IPARKING_REDIS_URL") or None
        all_given = self.given_database is not None and self.given_redis is not None
        self.folders: Folders = prepare(self.root, servers=not all_given)
        self._use: Any = None

    def __enter__(self) -> Self:
        self._use = self._use_lock.open("w")
        fcntl.flock(self._use, fcntl.LOCK_SH)
        try:
            self.start()
        except BaseException:
            self._use.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with self._use, contextlib.suppress(BlockingIOError):
            fcntl.flock(self._use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self.is_in_place():
                self.stop()

    @property
    def _use_lock(self) -> Path:
        return self.root / "run" / "use.lock"

    def is_in_place(self) -> bool:
        """Whether the folder is the one that was entered: it may have been removed or moved away meanwhile."""
        try:
            return os.path.samestat(os.fstat(self._use.fileno()), self._use_lock.stat())
        except FileNotFoundError:
            return False

    def start(self) -> None:
        """Start what is missing and does not run yet. Safe to repeat, and to do from two processes at once.

        Raises StackError, one line that says what is wrong: a taken port, a broken data folder, a full disk.
        """
        with self._alone():
            if self.given_database is None:
                self.postgres.start()
            if self.given_redis is None:
                self.redis.start()

    def stop(self) -> list[str]:
        """Stop both; returns the names of those that ran."""
        with self._alone():
            stopped = {"redis": self.redis.stop(), "postgres": self.postgres.stop()}
        return [name for name, ran in stopped.items() if ran]

    def status(self) -> dict[str, dict[str, Any]]:
        """By server: `running`, `process` id (null where none, or not ours), `port`; no secret in it."""
        found: dict[str, dict[str, Any]] = {}
        for name, given, server in (
            ("postgres", self.given_database, self.postgres),
            ("redis", self.given_redis, self.redis),
        ):
            if given is not None:
                found[name] = {"running": None, "process": None, "port": _port(given), "given": True}
                continue
            process = server.process()
            pid = process.pid if process else None
            found[name] = {"running": pid is not None, "process": pid, "port": server.port, "given": False}
        return found

    @property
    def postgres(self) -> postgres.PostgreSQL:
        memory = self._memory()
        return postgres.PostgreSQL(self.folders, memory["postgres_port"], memory["passwords"])

    @property
    def redis(self) -> redis.Redis:
        memory = self._memory()
        return redis.Redis(self.folders, memory["redis_port"], memory["redis_password"])

    @property
    def records(self) -> Records:
        """The records of all processes that were started here."""
        return Records(self.folders.run)

    @property
    def redis_url(self) -> str:
        """The URL of Redis, with its password."""
        return self.given_redis or self.redis.url()

    def redis_database_url(self, number: int) -> str:
        """The URL of another of Redis's numbered databases (tests empty theirs)."""
        return urlunsplit(urlsplit(self.redis_url)._replace(path=f"/{number}"))

    def database_url(self, name: str = "iparking") -> str:
        """The URL of database `name` for its owner, with the password; a given server keeps its default database."""
        if self.given_database is None:
            return self.postgres.url(_checked(name))
        return self.given_database if name == "iparking" else with_database(self.given_database, name)

    def service_url(self, name: str = "iparking") -> str:
        """The URL of database `name` for the service: a role that owns nothing, and cannot change what is booked."""
        if self.given_service is not None:
            return self.given_service if name == "iparking" else with_database(self.given_service, name)
        return self.database_url(name) if self.given_database else self.postgres.url(_checked(name), postgres.SERVICE)

    def reader_url(self, name: str = "iparking") -> str:
        """The URL of database `name` for one who may read everything and change nothing (an auditor)."""
        if self.given_database is None:
            return self.postgres.url(_checked(name), postgres.READER)
        return read_only(self.database_url(name))

    def admin_url(self) -> str:
        """The URL of the maintenance database for one who may make databases: tests make their own."""
        return self.given_database or self.postgres.url("postgres", postgres.SUPERUSER)

    def create_database(self, name: str, fresh: bool = False, template: str | None = None) -> str:
        """Make database `name` with PostGIS in it unless it is there (`fresh`: in any case). Returns its URL."""
        if _checked(name) == "iparking" and self.given_database is not None:
            return self.given_database
        with self._admin() as connection:
            if fresh:
                _drop(connection, name)
            if not _exists(connection, name):
                self._create(connection, name, template)
        return self.database_url(name)

    def has_database(self, name: str) -> bool:
        """Whether there is a database `name`. Raises StackError."""
        if _checked(name) == "iparking" and self.given_database is not None:
            return True
        with self._admin() as connection:
            return _exists(connection, name)

    def drop_database(self, name: str) -> None:
        """Remove database `name` and end the connections to it; nothing happens if there is none."""
        with self._admin() as connection:
            _drop(connection, name)

    def _create(self, connection: psycopg.Connection, name: str, template: str | None) -> None:
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if self.given_database is None:
            template = template or self._template(connection)
            statement += sql.SQL(" OWNER {}").format(sql.Identifier(postgres.OWNER))
        if template:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        connection.execute(statement)

    def _template(self, connection: psycopg.Connection) -> str:
        """A database with nothing but PostGIS: only the superuser may install it, and a copy is made faster than it."""
        if not _exists(connection, EMPTY_CITY):
            unfinished = f"{EMPTY_CITY}_unfinished"
            _drop(connection, unfinished)
            connection.execute(f"CREATE DATABASE {unfinished}")
            with self.postgres.connect(unfinished) as inside:
                inside.execute("CREATE EXTENSION postgis")
            connection.execute(f"ALTER DATABASE {unfinished} RENAME TO {EMPTY_CITY}")
        return EMPTY_CITY

    @contextlib.contextmanager
    def _admin(self) -> Iterator[psycopg.Connection]:
        """A connection that may make databases; what the server refuses is said in one line."""
        try:
            with psycopg.connect(self.admin_url(), autocommit=True, connect_timeout=10) as connection:
                connection.execute("SELECT pg_advisory_lock(%s)", (MAKERS_LOCK,))
                yield connection
        except psycopg.Error as error:
            whose = "the private PostgreSQL" if self.given_database is None else "the server of IPARKING_DATABASE_URL"
            raise StackError(f"{whose}: {postgres.first_line(error)}") from error

    def _memory(self) -> dict[str, Any]:
        """Ports and passwords, chosen at the first look and kept in stack.json (mode 600)."""
        file = self.root / "stack.json"
        kept: dict[str, Any] = {}
        if file.exists():
            try:
                kept = json.loads(file.read_text())
            except ValueError as error:
                raise StackError(f"{file} is not JSON: {error}") from error
        full = self._completed(kept)
        if full != kept:
            replace_file(file, json.dumps(full, indent=2) + "\n")
        return full

    def _completed(self, kept: dict[str, Any]) -> dict[str, Any]:
        full = dict(kept)
        full["passwords"] = postgres.new_passwords() | full.get("passwords", {})
        full.setdefault("redis_password", redis.new_password())
        if "postgres_port" not in full:
            full["postgres_port"] = choose_free({full.get("redis_port", 0)})
        if "redis_port" not in full:
            full["redis_port"] = choose_free({full["postgres_port"]})
        return full

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else starts or stops the servers of this folder meanwhile."""
        with (self.root / "run" / "stack.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _port(url: str) -> int | None:
    """The port in a URL; None where it has none, or several (the seeds of a Redis Cluster)."""
    try:
        return urlsplit(url).port
    except ValueError:
        return None


def _checked(name: str) -> str:
    if not DATABASE_NAME.fullmatch(name):
        raise StackError(f"{name!r} is no name for a database: lower-case letters, digits and _ only")
    return name


def _exists(connection: psycopg.Connection, name: str) -> bool:
    return connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is not None


def _drop(connection: psycopg.Connection, name: str) -> None:
    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(_checked(name))))


def with_database(url: str, name: str) -> str:
    """The same server and user, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{quote(_checked(name))}"))


def read_only(url: str) -> str:
    """The same database through connections that refuse to write."""
    parts = urlsplit(url)
    option = "options=" + quote("-c default_transaction_read_only=on")
    return urlunsplit(parts._replace(query="&".join(filter(None, [parts.query, option]))))

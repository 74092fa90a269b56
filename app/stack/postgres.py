"""The private PostgreSQL cluster: made once with initdb, started and stopped as a plain child, no system service."""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from app.config import SERVICE_ROLE
from app.stack.errors import StackError
from app.stack.folders import Folders
from app.stack.ports import require_free
from app.stack.processes import Process, Records, identify, kill_all, spawn, wait_until, working_in

NAME = "postgres"
SUPERUSER = "postgres"
OWNER = "iparking"
READER = "iparking_reader"
SERVICE = SERVICE_ROLE
VERSIONS = (15, 16, 17, 18)
START_SECONDS = 120.0  # a crash is recovered from within this time even after a full wal of 2 GB
REMAINS_SECONDS = 5.0
CGROUP = Path("/sys/fs/cgroup")
REMEDY = "remove or change postgres_port in {}"

# For a small machine (2 cores) that does other work too. Errors raised by SQL functions are answers, not incidents, so
# the log names them without the statement, which could hold a number plate.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_permissions": "0700",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "random_page_cost": 1.1,
    "jit": "off",
    "fsync": "on",
    "synchronous_commit": "on",
    # The first change of a page after a checkpoint logs it whole, and in a large month each stop meets such a page: to
    # compress it with "on" (pglz) took two thirds of what else the stop costs PostgreSQL, and with lz4 a tenth.
    "wal_compression": "lz4",
    "min_wal_size": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "autovacuum_naptime": "15s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_error_statement": "panic",
    "log_parameter_max_length_on_error": 0,
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %d ",
}


# What a process of the API may open: one a thread, the engine's, and one for each kind of call that is grouped.
CONNECTIONS_PER_PROCESS = 40


def connection_settings(cores: int) -> dict[str, str]:
    """For a process of the API on each core, the jobs, commands and tests."""
    return {"max_connections": str(max(200, CONNECTIONS_PER_PROCESS * (cores + 1)))}


def memory_settings(machine: int) -> dict[str, str]:
    """How much PostgreSQL keeps in memory of its own on a machine with so many bytes; it takes them as it needs them.

    An eighth, for other work is done here too: of a month of 1.5 million sessions 256 MB hold so little that a stop at
    20 million past sessions cost PostgreSQL 1.29 of one at 10,000; with 2 GB it is 1.11, a start 1.02 instead of 1.21.
    """
    megabytes = min(max(machine // 8 >> 20, 128), 2048)
    return {"shared_buffers": f"{megabytes}MB", "effective_cache_size": f"{max(machine // 3 >> 20, 256)}MB"}


def container_memory() -> int:
    """The bytes that the container may use in which this runs, where it has a limit."""
    for limit in (CGROUP / "memory.max", CGROUP / "memory" / "memory.limit_in_bytes"):
        if limit.is_file() and (text := limit.read_text().strip()).isdecimal():
            return int(text)
    return sys.maxsize


@dataclass(frozen=True, slots=True)
class Programs:
    """Where PostgreSQL's programs lie."""

    folder: Path
    version: int
    has_statistics: bool

    @classmethod
    def find(cls) -> "Programs":
        """The oldest version that will do and has PostGIS. Raises StackError that names what is missing."""
        found = [version for version in VERSIONS if (_bin(version) / "initdb").exists()]
        for version in found:
            extensions = Path(f"/usr/share/postgresql/{version}/extension")
            if (extensions / "postgis.control").exists():
                statistics = (extensions / "pg_stat_statements.control").exists()
                return cls(_bin(version), version, statistics)
        if found:
            raise StackError(f"PostGIS is missing for PostgreSQL {found[0]}: install postgresql-{found[0]}-postgis-3")
        raise StackError("PostgreSQL is missing: install postgresql-15 and postgresql-15-postgis-3")


def _bin(version: int) -> Path:
    return Path(f"/usr/lib/postgresql/{version}/bin")


@dataclass(frozen=True, slots=True)
class PostgreSQL:
    """One cluster in `folders.data/postgres` on its own loopback port; `passwords` by role."""

    folders: Folders
    port: int
    passwords: Mapping[str, str]

    @property
    def data(self) -> Path:
        return self.folders.data / NAME

    @property
    def log(self) -> Path:
        return self.folders.log / f"{NAME}.log"

    @property
    def records(self) -> Records:
        return Records(self.folders.run)

    def url(self, database: str, role: str = OWNER) -> str:
        """A libpq URL with the role's password in it."""
        return f"postgresql://{role}:{self.passwords[role]}@127.0.0.1:{self.port}/{database}"

    def process(self) -> Process | None:
        """The server if it runs: the process that postmaster.pid names, provided that it works in this data folder:
        a crash leaves the file behind, and the next program with that id is somebody else."""
        lines = self._pid_file_lines()
        if not lines or not lines[0].isdigit() or int(lines[0]) not in working_in(self.data):
            return None
        with contextlib.suppress(StackError):  # it ended this moment
            return identify(NAME, int(lines[0]))
        return None

    def start(self) -> None:
        """Make the cluster if there is none; start it unless it runs. Raises StackError with the server's reason."""
        if self.process() is not None:
            return
        programs = Programs.find()
        self._make_cluster(programs)
        self._write_settings(programs)
        self._clear_remains()
        require_free(self.port, "the private PostgreSQL", REMEDY.format(self.folders.root / "stack.json"))
        self._run(programs)
        self._make_roles()

    def stop(self) -> bool:
        """End all connections and shut down with a checkpoint. Returns whether it ran."""
        process = self.process()
        if process is not None:
            process.stop(signal.SIGINT, patience=60.0)
        self.records.remove(NAME)
        return process is not None

    def copy_to(self, folders: Folders, port: int) -> "PostgreSQL":
        """A streaming replica of this server, which runs, in folders of its own; to be started. Raises StackError."""
        replica = PostgreSQL(folders, port, self.passwords)
        login = ["--host=127.0.0.1", f"--port={self.port}", f"--username={SUPERUSER}", "--no-password"]
        how = ["--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream"]
        made = subprocess.run(
            [Programs.find().folder / "pg_basebackup", *login, *how, f"--pgdata={replica.data}"],
            cwd=folders.data,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PGPASSWORD": self.passwords[SUPERUSER]},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            **folders.user.popen_arguments(),  # type: ignore[call-overload]
        )
        if made.returncode:
            raise StackError(f"pg_basebackup failed: {reason(made.stderr)}")
        return replica

    def _pid_file_lines(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _make_cluster(self, programs: Programs) -> None:
        """Run initdb beside its place and move the finished folder there: what stands in place is whole."""
        if (self.data / "PG_VERSION").exists():
            self._check_version(programs)
            return
        if self.data.exists():
            raise StackError(f"{self.data} is not a whole PostgreSQL data folder: remove it to begin afresh")
        unfinished = self.data.with_name(f"{NAME}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            self._initdb(programs, unfinished)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        unfinished.rename(self.data)

    def _check_version(self, programs: Programs) -> None:
        made_by = (self.data / "PG_VERSION").read_text().strip()
        if made_by != str(programs.version):
            raise StackError(f"{self.data} was made by PostgreSQL {made_by}, and {programs.version} is installed")

    def _initdb(self, programs: Programs, folder: Path) -> None:
        with tempfile.NamedTemporaryFile("w", dir=self.folders.data, prefix="password-") as password:
            password.write(self.passwords[SUPERUSER])
            password.flush()
            self.folders.user.own(Path(password.name))
            made = subprocess.run(
                [
                    programs.folder / "initdb",
                    f"--pgdata={folder}",
                    f"--username={SUPERUSER}",
                    f"--pwfile={password.name}",
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                    "--auth=scram-sha-256",
                ],
                cwd=self.folders.data,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                **self.folders.user.popen_arguments(),  # type: ignore[call-overload]
            )
        if made.returncode:
            raise StackError(f"initdb failed: {reason(made.stderr)}")

    def _write_settings(self, programs: Programs) -> None:
        """Written at every start, so that a newer version of this file takes effect."""
        machine = memory_settings(min(psutil.virtual_memory().total, container_memory()))
        machine |= connection_settings(os.cpu_count() or 1)
        settings = {**SETTINGS, **machine, "port": self.port, "unix_socket_directories": self.folders.sockets}
        if programs.has_statistics:
            settings["shared_preload_libraries"] = "pg_stat_statements"
        lines = [f"{name} = '{value}'" for name, value in settings.items()]
        own = self.data / "iparking.conf"
        own.write_text("\n".join(["# written by ./iparking at every start", *lines, ""]))
        self.folders.user.own(own)
        main = self.data / "postgresql.conf"
        if "include 'iparking.conf'" not in main.read_text():
            with main.open("a") as file:
                file.write("\ninclude 'iparking.conf'\n")

    def _clear_remains(self) -> None:
        """After a crash: the children of a killed server end within moments, and nothing else works in the folder, so
        that its pid file may go. PostgreSQL itself would refuse where another program has that id by now."""
        wait_until(lambda: not working_in(self.data), REMAINS_SECONDS)
        kill_all(working_in(self.data))
        for remains in (self.data / "postmaster.pid", *self.folders.sockets.glob(".s.PGSQL.*")):
            remains.unlink(missing_ok=True)

    def _run(self, programs: Programs) -> None:
        before = self.log.stat().st_size if self.log.exists() else 0
        command = [str(programs.folder / "postgres"), "-D", str(self.data)]
        child = spawn(command, self.log, folder=self.data, user=self.folders.user.popen_arguments())
        try:
            wait_until(lambda: self._is_ready() or child.poll() is not None, START_SECONDS)
            if child.poll() is not None or not self._is_ready():
                with self.log.open(errors="replace") as log:
                    log.seek(before)
                    raise StackError(f"PostgreSQL does not start: {reason(log.read())} (see {self.log})")
            self.records.write(identify(NAME, child.pid))
        except BaseException:
            child.send_signal(signal.SIGQUIT)
            child.wait()
            raise
        child.returncode = 0  # it is to outlive us: no warning, no wait

    def _is_ready(self) -> bool:
        lines = self._pid_file_lines()
        return len(lines) >= 8 and lines[7].strip() in ("ready", "standby")

    def _make_roles(self) -> None:
        """The owner of all databases, who is no superuser; the service, which owns nothing; and the reader, who sees
        everything and changes nothing."""
        with self.connect() as connection:
            found = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
            for role in {OWNER, READER, SERVICE} - found:
                password = psycopg.sql.Literal(self.passwords[role])
                name = psycopg.sql.Identifier(role)
                with connection.transaction():
                    connection.execute(psycopg.sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, password))
                    if role == READER:
                        connection.execute(f"GRANT pg_read_all_data TO {READER}")
                        connection.execute(f"ALTER ROLE {READER} SET default_transaction_read_only = on")

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """An autocommit connection as the superuser. Raises StackError where the cluster does not take the password."""
        try:
            return psycopg.connect(self.url(database, SUPERUSER), autocommit=True, connect_timeout=10)
        except psycopg.OperationalError as error:
            raise StackError(f"the private PostgreSQL lets nobody in: {first_line(error)}") from error


def new_passwords() -> dict[str, str]:
    """A password for each role of a new cluster."""
    return {role: secrets.token_urlsafe(24) for role in (SUPERUSER, OWNER, READER, SERVICE)}


def first_line(error: Exception) -> str:
    """What a database error says first; hints and details follow in lines of their own."""
    return str(error).strip().partition("\n")[0]


def reason(output: str) -> str:
    """The line of a program's output that says why it failed, without time, process and database."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    full = [line for line in lines if "No space left on device" in line]
    fatal = [line for line in lines if re.search(r"\b(FATAL|PANIC|error|fatal):", line)]
    line = (full or _raised(lines) or fatal or lines or ["it gives no reason"])[-1]
    text = re.sub(r"^.*?\b(FATAL|PANIC|ERROR|LOG|error|fatal):\s*", "", line).strip()
    return f"the disk is full ({text})" if full else text


def _raised(lines: list[str]) -> list[str]:
    """What a Python program died of: the first line after its last traceback that is not indented."""
    starts = [number for number, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    after = lines[starts[-1] + 1 :] if starts else []
    return [line for line in after if not line.startswith(" ")][:1]

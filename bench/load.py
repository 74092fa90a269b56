"""The clients: wrk for HTTP, pgbench for the bare statement. A burst that met a single error raises BenchError."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from app.stack.errors import StackError
from app.stack.postgres import Programs
from bench.errors import BenchError
from bench.reference import PGBENCH

SCRIPTS = Path(__file__).resolve().parent / "wrk"
# What a client may take beyond the time it was told to run.
PATIENCE_SECONDS = 30
# libpq's variables for the parts of a URL: a password on the command line could be read by every user of the machine.
LIBPQ = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}


@dataclass(frozen=True, slots=True)
class Burst:
    """What one burst of load saw: answers, the seconds it lasted, and latencies in milliseconds."""

    requests: int
    seconds: float
    p50_ms: float
    p95_ms: float
    p99_ms: float

    @property
    def rps(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


@dataclass(frozen=True, slots=True)
class Client:
    """How many connections wrk and pgbench hold, on how many threads."""

    connections: int = 32
    threads: int = 2
    pgbench_connections: int = 8

    def wrk(self, url: str, script: str, arguments: Sequence[str], seconds: int) -> Burst:
        """Send one script's requests to `url`. Raises BenchError unless every answer was a success."""
        command = [_program("wrk"), f"-t{self.threads}", f"-c{self.connections}", f"-d{seconds}s", "--timeout", "10s"]
        command += ["-s", str(SCRIPTS / f"{script}.lua"), url, "--", *arguments]
        output = _run(command, seconds, {"LUA_PATH": f"{SCRIPTS}/?.lua;;"})
        return read_wrk(script, output)

    def pgbench(self, database_url: str, zones: int, seconds: int) -> Burst:
        """Run the ceiling's statement through prepared statements of its own client, without HTTP or Python."""
        with TemporaryDirectory(prefix="iparking-bench-") as folder:
            script = Path(folder) / "ceiling.sql"
            script.write_text(PGBENCH)
            command = [_pgbench(), "--no-vacuum", "--protocol=prepared", f"--time={seconds}", f"--define=zones={zones}"]
            command += [f"--client={self.pgbench_connections}", f"--jobs={self.threads}", f"--file={script}"]
            command += ["--log", f"--log-prefix={folder}/transactions"]
            _run(command, seconds, libpq_environment(database_url))
            return read_pgbench(Path(folder), seconds)


def read_wrk(script: str, output: str) -> Burst:
    """What the line of JSON says that the script's done() printed. Raises BenchError where there was an error."""
    lines = [line for line in output.splitlines() if line.startswith('{"requests"')]
    if not lines:
        raise BenchError(f"wrk {script}: no result: {_last_line(output)}")
    found: dict[str, Any] = json.loads(lines[-1])
    errors = {kind: count for kind, count in found["errors"].items() if count}
    if errors or not found["requests"]:
        raise BenchError(f"wrk {script}: {found['requests']} answers with errors {errors}: nothing was measured")
    return Burst(found["requests"], found["seconds"], found["p50_ms"], found["p95_ms"], found["p99_ms"])


def read_pgbench(folder: Path, seconds: int) -> Burst:
    """Transactions and their latencies from pgbench's logs; its third column is a transaction's microseconds."""
    times = [
        int(line.split()[2]) for log in folder.glob("transactions.*") for line in log.read_text().splitlines() if line
    ]
    if not times:
        raise BenchError("pgbench: no transaction was logged")
    times.sort()
    p50, p95, p99 = (times[min(len(times) - 1, len(times) * percent // 100)] / 1000 for percent in (50, 95, 99))
    return Burst(len(times), seconds, p50, p95, p99)


def libpq_environment(database_url: str) -> dict[str, str]:
    """The variables under which libpq programs reach this database."""
    parts = conninfo_to_dict(database_url)
    return {LIBPQ[name]: str(value) for name, value in parts.items() if name in LIBPQ}


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise BenchError(f"{name} is missing: install the Debian package {name}")
    return found


def _pgbench() -> str:
    try:
        beside_server = Programs.find().folder / "pgbench"
    except StackError:  # the server is somebody else's, and runs elsewhere
        return _program("pgbench")
    return str(beside_server) if beside_server.exists() else _program("pgbench")


def _run(command: Sequence[str], seconds: int, environment: dict[str, str]) -> str:
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + PATIENCE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{name} did not end {PATIENCE_SECONDS} s after its {seconds} s") from None
    if done.returncode != 0:
        raise BenchError(f"{name} failed: {_last_line(done.stderr + done.stdout)}")
    return done.stdout


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"

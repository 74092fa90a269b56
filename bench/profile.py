"""`./iparking bench core --profile`: where a start spends its time, in Python and in PostgreSQL.

Leaves in a folder: `flame.svg`, a flame graph of one worker (py-spy samples it from outside), `statements.json` and
`statements.txt`, what pg_stat_statements counted, statements inside functions included, and `run.json`.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
import psycopg
from rich.console import Console

from app.stack import Stack
from bench import machine
from bench.core import Say, give, progress
from bench.errors import BenchError
from bench.load import Client
from bench.loads import ServiceLoads
from bench.servers import Service
from bench.site import DRIVERS, Site, open_site, serving

MOST_STATEMENTS = 20
SAMPLES_A_SECOND = 250
# The sampler begins a little later and ends a little earlier than the load.
MARGIN_SECONDS = 1
_TOP = """
SELECT calls, round((total_exec_time / 1000)::numeric, 3)::float8 AS seconds,
       round((total_exec_time * 1000 / calls)::numeric, 1)::float8 AS us_a_call, rows, wal_bytes::bigint, toplevel,
       query
  FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
 WHERE d.datname = current_database() AND calls > 0
 ORDER BY total_exec_time DESC LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long the load runs, and where the files go."""

    folder: Path = Path("profile")
    seconds: int = 10
    workers: int = 2
    threads: int = 16
    client: Client = field(default_factory=Client)


def run(json: bool = False, **given: Any) -> int:
    """Profile on the private servers and print the names of the files. Raises StackError, BenchError.

    `given` are fields of Plan.
    """
    with Stack() as stack:
        found = measure(stack, Plan(**given))
    give(found, show, json)
    return 0


def measure(stack: Stack, plan: Plan, say: Say | None = None) -> dict[str, Any]:
    """The whole profile, on a database of its own. Raises BenchError where a profiler is missing or fails."""
    tell = say or progress
    sampler = _sampler()
    plan.folder.mkdir(parents=True, exist_ok=True)
    with open_site(stack, plan.client) as site, _statistics(site) as statistics:
        described = machine.describe(site.connection)
        service = Service(site.stack, site.folder, "service", plan.workers, plan.threads, DRIVERS)
        with serving(service):
            start = ServiceLoads(site, service).start
            site.warm(start, 2)
            statistics.execute("SELECT pg_stat_statements_reset()")
            flame = plan.folder / "flame.svg"
            tell(f"{plan.seconds} s of starts, one worker of {plan.workers} being sampled")
            with _sampling(sampler, service.worker_processes()[0], flame, plan.seconds):
                measured = site.measure(start, 0, plan.seconds)
            statements = _top(statistics)
    files = {"flame_graph": flame, **_write(plan.folder, statements)}
    figures = {"starts": asdict(measured.burst) | {"rps": measured.burst.rps}, "cpu_us": measured.cpu_us}
    found = {"machine": described, "workers": plan.workers, "threads": plan.threads, **figures}
    found |= {"files": {name: str(path) for name, path in files.items()}, "statements": statements}
    (plan.folder / "run.json").write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    return found


def _sampler() -> str:
    """py-spy: the environment's own, else one on the path. Raises BenchError."""
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise BenchError("py-spy is missing: it is in the project's test requirements")
    return found


@contextmanager
def _statistics(site: Site) -> Iterator[psycopg.Connection]:
    """A superuser's connection that may read and reset what pg_stat_statements counts in the bench's database.

    Statements inside functions are counted in connections made from now on. Raises BenchError where it is not loaded.
    """
    try:
        with _superuser(site) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            connection.execute("SELECT pg_stat_statements_reset()")
            name = psycopg.sql.Identifier(connection.info.dbname)
            connection.execute(psycopg.sql.SQL("ALTER DATABASE {} SET pg_stat_statements.track = 'all'").format(name))
            yield connection
    except (psycopg.errors.ObjectNotInPrerequisiteState, psycopg.errors.UndefinedFile) as error:
        raise BenchError(
            f"pg_stat_statements is not loaded by this PostgreSQL: {error.diag.message_primary}"
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise BenchError(f"a profile needs a superuser: {error.diag.message_primary}") from error


def _superuser(site: Site) -> psycopg.Connection:
    if site.stack.given_database is None:
        return site.stack.postgres.connect(site.database)
    return psycopg.connect(site.database_url, autocommit=True)


@contextmanager
def _sampling(sampler: str, pid: int, file: Path, seconds: int) -> Iterator[None]:
    """py-spy, at work on one process while this is entered. Raises BenchError where it fails."""
    command = [sampler, "record", "--pid", str(pid), "--output", str(file), "--format", "flamegraph", "--nonblocking"]
    command += ["--rate", str(SAMPLES_A_SECOND), "--duration", str(max(1, seconds - MARGIN_SECONDS))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        try:
            yield
            _, errors = child.communicate(timeout=60)
        except BaseException:
            child.kill()
            raise
    if child.returncode != 0 or not file.exists():
        lines = [line for line in errors.splitlines() if line.strip()]
        raise BenchError(f"py-spy failed: {lines[-1] if lines else 'it said nothing'}")


def _top(connection: psycopg.Connection) -> list[dict[str, Any]]:
    """The statements that took the most time, most first."""
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return cursor.execute(_TOP, (MOST_STATEMENTS,)).fetchall()


def _write(folder: Path, statements: Sequence[Mapping[str, Any]]) -> dict[str, Path]:
    files = {"statements": folder / "statements.txt", "statements_json": folder / "statements.json"}
    files["statements_json"].write_bytes(orjson.dumps(list(statements), option=orjson.OPT_INDENT_2))
    files["statements"].write_text("\n".join(_described(one) for one in statements) + "\n")
    return files


def _described(one: Mapping[str, Any]) -> str:
    inside = "" if one["toplevel"] else ", inside a function"
    calls = f"{one['calls']:,} calls of {one['us_a_call']:.1f} µs, {one['rows']:,} rows{inside}"
    return f"-- {one['seconds']:.3f} s in {calls}\n{one['query'].strip()}\n"


def show(found: Mapping[str, Any], console: Console) -> None:
    """Print what was left where."""
    starts, cost = found["starts"], ", ".join(f"{name} {value:.0f} µs" for name, value in found["cpu_us"].items())
    console.print(f"{starts['rps']:,.0f} starts a second while sampled, p50 {starts['p50_ms']:.1f} ms; CPU: {cost}")
    for one in found["statements"][:5]:
        query = " ".join(one["query"].split())
        console.print(
            f"{one['seconds']:8.3f} s  {one['us_a_call']:8.1f} µs  {query[:90]}", markup=False, highlight=False
        )
    for name, path in found["files"].items():
        console.print(f"{name.replace('_', ' ')}: {path}")

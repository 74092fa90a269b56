"""How long `./iparking ledger check` takes over a ledger of millions of entries, and how much memory.

The ledger is loaded in bulk (bench/ledger_history.py) from finished sessions of thirteen months (bench/history.py).
"""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

import psycopg

from app.stack import Stack, prepare_database
from app.stack.machine import PROJECT, with_database
from bench import cpu, history, ledger_history
from bench.core import progress
from bench.errors import BenchError
from bench.memory import Peak

DATABASE = "bench_ledger"
ENTRIES = 10_000_000
MOST_SECONDS = 60.0
MOST_MB = 500.0


def ledger_check(stack: Stack, entries: int = ENTRIES, keep: bool = False) -> dict[str, Any]:
    """Load a ledger of so many entries, or a few more, and prove it with the command, in a process of its own.

    `entries` as they were, `load_seconds`, `seconds`, `ok`, and `mb`, the most that was used at one moment: of it
    `client_mb` by the command and `backends_mb` by PostgreSQL's processes with parallel workers; `shared_mb` beside it
    is what those have touched of the server's shared memory. `keep` leaves the database, and takes one that is there
    and was made from the same. Raises BenchError.
    """
    try:
        began = time.monotonic()
        booked = _load(stack, ledger_history.sessions_for(entries), keep)
        load_seconds = round(time.monotonic() - began, 1)
        progress(f"checking {booked:,} entries")
        found = _timed(stack, DATABASE)
    finally:
        if not keep:
            stack.drop_database(DATABASE)
    return {"entries": booked, "load_seconds": load_seconds, **found}


def _load(stack: Stack, sessions: int, keep: bool) -> int:
    """A ledger of so many sessions, made or found; the number of its entries."""
    url = prepare_database(stack, DATABASE, fresh=not keep)
    if keep and (found := ledger_history.kept(url, sessions)) is not None:
        return found
    url = prepare_database(stack, DATABASE, fresh=True)
    if stack.given_database is None:
        larger = 1 + ledger_history.BYTES_A_SESSION / history.BYTES_A_SESSION
        history.require_space(stack.folders.data, int(sessions * larger))
    with psycopg.connect(url) as connection:
        zones = [row[0] for row in connection.execute("SELECT code FROM zone WHERE valid_to IS NULL ORDER BY code")]
    progress(f"loading {sessions:,} sessions")
    history.fill(url, sessions, datetime.now(UTC), zones)
    progress("booking them")
    return ledger_history.fill(with_database(stack.admin_url(), DATABASE), sessions)


def _timed(stack: Stack, database: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "app.cli", "ledger", "check", "--database", database, "--json"]
    with psycopg.connect(stack.admin_url(), autocommit=True) as connection:
        if not cpu.is_here(connection):
            raise BenchError("PostgreSQL runs on another machine: its memory cannot be looked at")
        began = time.monotonic()
        with (
            subprocess.Popen(
                command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment(stack)
            ) as child,
            Peak(connection, database, child.pid) as peak,
        ):
            output, _ = child.communicate()
        seconds = time.monotonic() - began
    if child.returncode not in (0, 1) or not output:
        raise BenchError(f"ledger check ended with {child.returncode}")
    parts = {"mb": peak.total, "client_mb": peak.client, "backends_mb": peak.backends, "shared_mb": peak.shared}
    figures = {name: round(value, 1) for name, value in {"seconds": seconds, **parts}.items()}
    return {**figures, "ok": json.loads(output)["ok"]}


def _environment(stack: Stack) -> dict[str, str]:
    """So that a command finds the same servers."""
    given = {
        "IPARKING_DATABASE_URL": stack.given_service,
        "IPARKING_OWNER_DATABASE_URL": stack.given_database,
        "IPARKING_REDIS_URL": stack.given_redis,
    }
    return os.environ | {"IPARKING_HOME": str(stack.root)} | {name: url for name, url in given.items() if url}

"""What a figure was measured on: figures of two machines are not to be compared, their ratios are."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import psycopg

from app.stack import Stack

SETTINGS = ("server_version", "fsync", "synchronous_commit", "wal_compression", "shared_buffers", "max_connections")
LIBRARIES = ("flask", "granian", "psycopg", "psycopg-binary")


def describe(connection: psycopg.Connection) -> dict[str, Any]:
    """The machine, PostgreSQL's settings that decide its speed, and the versions of what serves."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "postgresql": {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in SETTINGS},  # type: ignore[index]
        **{name: metadata.version(name) for name in LIBRARIES},
    }


def describe_stack(stack: Stack) -> dict[str, Any]:
    """The same of a stack's servers."""
    with psycopg.connect(stack.database_url("postgres"), autocommit=True) as connection:
        return describe(connection)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()

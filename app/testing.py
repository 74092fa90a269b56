"""`./iparking test`: the linters, then pytest, on the private servers."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from app.stack import Stack
from app.stack.machine import PROJECT

LINTERS = {
    "ruff check": ("-m", "ruff", "check", "."),
    "ruff format --check": ("-m", "ruff", "format", "--check", "."),
    "mypy app bench billing simulator zones": ("-m", "mypy", "app", "bench", "billing", "simulator", "zones"),
    # It cannot be run as a module, and the script in .venv/bin has a path in it that a moved project breaks.
    "lint-imports": ("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"),
}
# Tests get servers of their own: where the service keeps its data is not for them to know.
HIDDEN = tuple(
    f"IPARKING_{name}" for name in ("DATABASE_URL", "OWNER_DATABASE_URL", "REDIS_URL", "KEYS", "ENV", "HOME")
)
SEED = "IPARKING_TEST_SEED"  # of the order of the faults; given again, it is the same order
REDIS_DATABASE = 1  # beside the copies of the service, which are in 0


def run(deep: bool, arguments: Sequence[str], say: Callable[[str], None]) -> int:
    """Run the linters (only where no arguments pick tests) and pytest, whose lines come last. Returns the exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    failed = [] if arguments else lint(say)
    if failed:
        say(f"failed: {', '.join(failed)}")
    with Stack() as stack:
        given = environment(stack, deep)
        say(f"{SEED}={given[SEED]}")
        tested = _wait(_pytest(arguments), given)
    return tested or (1 if failed else 0)


def lint(say: Callable[[str], None]) -> list[str]:
    """Run all linters; the names of those that failed."""
    failed = []
    for name, arguments in LINTERS.items():
        say(f"$ {name}")
        if _wait([sys.executable, *arguments], dict(os.environ)):
            failed.append(name)
    return failed


def environment(stack: Stack, deep: bool) -> dict[str, str]:
    """What pytest runs with: the URLs of a superuser's maintenance database and of an empty Redis."""
    kept = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    kept["IPARKING_TEST_DATABASE_URL"] = stack.admin_url()
    kept["IPARKING_TEST_SERVICE_URL"] = stack.service_url("postgres")
    kept["IPARKING_TEST_REDIS_URL"] = stack.redis_database_url(REDIS_DATABASE)
    kept.setdefault(SEED, str(secrets.randbelow(1_000_000)))
    if deep:
        kept["IPARKING_TEST_DEEP"] = "1"
    return kept


def _pytest(arguments: Sequence[str]) -> list[str]:
    alone = any(argument in ("-s", "--pdb") or argument.startswith("-n") or "::" in argument for argument in arguments)
    # By file: tests of one file may share servers that take seconds to start. In the order of tests/conftest.py.
    files = ("--dist", "loadfile", "--no-loadscope-reorder")
    spread = [] if alone else ["-n", str(os.cpu_count() or 1), *files]
    return [sys.executable, "-m", "pytest", *spread, *arguments]


def _wait(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run it in the project's folder and wait. Ctrl-C is the child's to answer; what else ends us ends it."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    child = subprocess.Popen(command, cwd=PROJECT, env=environment)
    try:
        return child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def _terminated(number: int, _: object) -> None:
    raise SystemExit(128 + number)

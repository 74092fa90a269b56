"""`up`: everything that serves, started and watched by one process; `down`: its end, whatever is left of it."""

import contextlib
import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from app.config import THREADS
from app.stack.errors import StackError
from app.stack.machine import PROJECT, Stack
from app.stack.postgres import reason
from app.stack.processes import Process, Records, identify, replace_file, rotate, spawn, wait_until
from app.stack.serving import Server, clock_environment, prepare_database

SUPERVISOR = "up"
SERVING = "serving.json"
WATCHED = {"postgres": "PostgreSQL", "redis": "Redis", "api": "the API", "jobs": "the job process"}
LOOK_SECONDS = 0.5
MOST_RESTARTS = 3
RESTART_WINDOW_SECONDS = 60.0
DETACH_SECONDS = 300.0
STOP_SECONDS = 90.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What `up` was asked for."""

    port: int = 8000
    workers: int | None = None
    threads: int = THREADS
    database: str = "iparking"
    env: str = "production"
    clock_start: datetime | None = None
    clock_speed: float = 1.0
    drivers: int = 0

    def arguments(self) -> list[str]:
        """The same as arguments of the command line; the clock goes by the environment."""
        given = ["--port", str(self.port), "--threads", str(self.threads), "--database", self.database]
        given += ["--env", self.env, "--drivers", str(self.drivers)]
        return given + (["--workers", str(self.workers)] if self.workers else [])


def serving(root: Path) -> dict[str, Any] | None:
    """What `up` serves under `root` now: url, port, database, env, pid of the process that watches. None if nothing."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        found = json.loads((root / SERVING).read_text())
        watcher = Records(root / "run").read(SUPERVISOR)
        if watcher is not None and watcher.is_alive() and watcher.pid == found["pid"]:
            return found
    return None


def run(root: Path, options: Options, say: Say) -> None:
    """Serve in this process until SIGINT or SIGTERM, watching what it started.

    Returns at once where `up` serves already. Raises StackError if it cannot serve, or goes on failing.
    """
    with _only_one(root) as first:
        if not first:
            _join_running(root, options, say)
            return
        with _stopping() as ending, _recorded(root), Stack(root) as stack:
            _serve(stack, options, ending, say)


def detach(root: Path, options: Options, say: Say) -> None:
    """Let another process serve, that holds nothing of ours; returns once /readyz is green. Raises StackError."""
    if _running(root):
        _join_running(root, options, say)
        return
    log = Stack(root).folders.log / "up.log"
    rotate(log)
    before = log.stat().st_size if log.exists() else 0
    command = [sys.executable, "-m", "app.cli", "up", *options.arguments()]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1", "IPARKING_HOME": str(root)}
    child = spawn(command, log, environment=environment, folder=PROJECT)
    wait_until(lambda: serving(root) is not None or child.poll() is not None, DETACH_SECONDS)
    found = serving(root)
    if found is None:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        with log.open(errors="replace") as file:
            file.seek(before)
            raise StackError(reason(file.read()).removeprefix("iparking: "))
    child.returncode = 0  # it is to outlive us: no warning, no wait
    if found["pid"] == child.pid:
        say(_invitation(found, root))
    else:
        _join_running(root, options, say)


def down(root: Path) -> list[str]:
    """Stop all that runs under `root`, servers of a demo included; returns the names of what ran."""
    if not root.exists():
        return []
    stack = Stack(root)
    records = stack.records
    running = [name for name in records.names() if records.read(name)]
    records.stop(SUPERVISOR, signal.SIGTERM, STOP_SECONDS)
    for name in records.names():
        if name not in ("postgres", "redis"):
            records.stop(name)
    (root / SERVING).unlink(missing_ok=True)
    return sorted({*running, *stack.stop()})


def status(root: Path) -> dict[str, Any]:
    """`serving` (null, or what `serving` says), `servers` by name, `processes` by name. No secret is in it."""
    if not root.exists():
        return {"serving": None, "servers": {}, "processes": {}}
    stack = Stack(root)
    records = stack.records
    running = {name: process.pid for name in records.names() if (process := records.read(name)) and process.is_alive()}
    return {"serving": serving(root), "servers": stack.status(), "processes": running}


def _serve(stack: Stack, options: Options, ending: threading.Event, say: Say) -> None:
    server = make_server(stack, options)
    try:
        prepare_database(stack, options.database)
        if ending.is_set():
            return
        server.start()
        found = _describe(server, options)
        replace_file(stack.root / SERVING, json.dumps(found, indent=2) + "\n")
        say(_invitation(found, stack.root))
        Watch(stack, server, say).until(ending)
    finally:
        (stack.root / SERVING).unlink(missing_ok=True)
        server.stop()


def make_server(stack: Stack, options: Options) -> Server:
    """The server that the options describe, with the clock of a simulation if it has one."""
    environment = {"IPARKING_ENV": options.env}
    if options.env == "simulation" and options.clock_start is not None:
        environment = clock_environment(stack, options.database, options.clock_start, options.clock_speed)
    return Server(
        stack,
        options.database,
        options.port,
        name="server",
        workers=options.workers,
        threads=options.threads,
        environment=environment,
        drivers=options.drivers,
    )


class Watch:
    """Looks at all that serves, twice a second; starts again what died, and gives up when that happens too often."""

    def __init__(self, stack: Stack, server: Server, say: Say) -> None:
        self.stack = stack
        self.server = server
        self.say = say
        self._restarts: dict[str, deque[float]] = {name: deque() for name in WATCHED}
        self._servers = self._running_servers()

    def until(self, ending: threading.Event) -> None:
        """Go on until `ending` is set. Raises StackError where a part cannot be kept running."""
        while not ending.wait(LOOK_SECONDS):
            if not self.stack.is_in_place():
                self.say(f"{self.stack.root} is gone: stopping")
                self._stop_servers()
                return
            for name in self._dead():
                self._count(name)
                self.say(f"{WATCHED[name]} ended by itself; starting again (logs: {self.stack.folders.log})")
                self._start_again(name)

    def _running_servers(self) -> list[Process]:
        found = [self.stack.records.read(name) for name in ("postgres", "redis")]
        return [process for process in found if process is not None]

    def _stop_servers(self) -> None:
        """Without the records, which went with the folder."""
        for process in self._servers:
            process.stop(signal.SIGINT)

    def _dead(self) -> list[str]:
        servers = [name for name, state in self.stack.status().items() if state["running"] is False]
        return [*servers, *self.server.dead()]

    def _count(self, name: str) -> None:
        now, earlier = time.monotonic(), self._restarts[name]
        while earlier and now - earlier[0] > RESTART_WINDOW_SECONDS:
            earlier.popleft()
        if len(earlier) >= MOST_RESTARTS:
            raise StackError(f"{WATCHED[name]} ended again after {MOST_RESTARTS} restarts within a minute: giving up")
        earlier.append(now)

    def _start_again(self, name: str) -> None:
        if name in ("postgres", "redis"):
            self.stack.start()
            self._servers = self._running_servers()
        else:
            self.server.restart(name)
        self.say(f"{WATCHED[name]} runs again")


@contextlib.contextmanager
def _recorded(root: Path) -> Iterator[None]:
    """Lets `down` find this process."""
    records = Records(root / "run")
    records.write(identify(SUPERVISOR, os.getpid()))
    try:
        yield
    finally:
        records.remove(SUPERVISOR)


@contextlib.contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that the first SIGINT, SIGTERM or SIGHUP sets; a second one interrupts whatever is going on."""
    ending = threading.Event()

    def end(*_: object) -> None:
        if ending.is_set():
            raise KeyboardInterrupt
        ending.set()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, end)
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _only_one(root: Path) -> Iterator[bool]:
    """Whether nobody else serves under `root`, and nobody will as long as this lasts."""
    with (Stack(root).folders.run / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _running(root: Path) -> bool:
    with _only_one(root) as first:
        return not first


def _join_running(root: Path, options: Options, say: Say) -> None:
    """Wait until the one that serves (or is about to) is ready. Raises StackError where it serves something else."""
    wait_until(lambda: serving(root) is not None or not _running(root), DETACH_SECONDS)
    found = serving(root)
    if found is None:
        raise StackError(f"another `up` was starting and did not succeed: see {root / 'log' / 'up.log'}")
    asked = {"port": options.port, "database": options.database}
    if any(found[name] != value for name, value in asked.items()):
        raise StackError(f"{found['url']} serves database {found['database']} already: run ./iparking down first")
    say(f"already {_invitation(found, root)}")


def _describe(server: Server, options: Options) -> dict[str, Any]:
    return {
        "url": server.url,
        "port": server.port,
        "database": server.database,
        "env": options.env,
        "workers": server.workers,
        "threads": server.threads,
        "pid": os.getpid(),
    }


def _invitation(found: dict[str, Any], root: Path) -> str:
    return f"serving on {found['url']} (keys: {root / 'keys.json'}; stop: ./iparking down)"

"""`./iparking demo`: the whole service, a morning of the nine districts replayed on it, and the proof that it was
right.

    rehearsal    the first minutes of the morning as fast as they go: what this machine holds
    morning      07:00 to 10:00 of the stated day, on a clock that runs as fast as that allows; then the audit
    Berlin       a recorded day of 32 kerb spaces, on a database and a clock of its own (where the record is at hand)
    serving      the morning's database at 1x from its last instant on, until Ctrl-C

The database `demo` is made afresh each time, beside the one that `up` serves.
"""

import contextlib
import fcntl
import json
import signal
import sys
import time
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

import click

from app.cli import HELP
from app.demo.play import FASTEST, SLOWEST, Demo, Options
from app.demo.traffic import HANOI
from app.stack import Server, Stack, StackError
from app.stack.ports import choose_free, is_free, require_free
from simulator.options import LocalDay
from simulator.report import print_demo

DEFAULT_PORT = 8100
EARLIEST, LATEST = date(2018, 1, 1), date(2090, 1, 1)  # the shipped rates begin with 2018
LOOK_SECONDS = 0.5


@click.command(context_settings=HELP)
@click.option("--date", "day", type=LocalDay(), help="The day of the morning.  [default: today in Hanoi]")
@click.option("--once", is_flag=True, help="Stop what was started when the result is printed.")
@click.option("--port", type=click.IntRange(1, 65535), help=f"Of the API.  [default: {DEFAULT_PORT}, or a free one]")
@click.option(
    "--speed",
    type=click.FloatRange(1, 1000),
    help=f"How fast the clock runs.  [default: what this machine holds, {SLOWEST:.0f} to {FASTEST:.0f}]",
)
@click.option("--seed", default=7, show_default=True, type=click.IntRange(0), help="Another seed, another traffic.")
@click.option("--json", "json_", is_flag=True, help="Print JSON, and nothing else, on standard output.")
def demo(day: date | None, once: bool, port: int | None, speed: float | None, seed: int, json_: bool) -> None:
    """Start everything, replay a morning of traffic on it and prove the result.

    Goes on serving at 1x until Ctrl-C. Exits with 1 where the audit found a divergence.

    \b
    Example: ./iparking demo --once --json
    """
    options = Options(_checked(day), port or _default_port(), speed, seed)
    require_free(options.port, "the demo", "choose another with --port")
    with _ended_by_signals(), Stack() as stack, _only_demo(stack):
        played = Demo(stack, options, say)
        found = played.play()
        goes_on = not once and not found["divergences"]
        with _started(played.continue_at(datetime.fromisoformat(found["ended"])) if goes_on else None) as server:
            show(found | {"url": server and server.url, "keys": str(stack.root / "keys.json")}, json_)
            if server is not None:
                _until_stopped(server)
    if found["divergences"]:
        raise SystemExit(1)


def say(text: str) -> None:
    """Progress, for people, on standard error."""
    click.echo(text, err=True)


def show(found: dict[str, Any], json_: bool) -> None:
    """The result on standard output."""
    if json_:
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        print_demo(found)
    sys.stdout.flush()


def _checked(day: date | None) -> date:
    day = day or datetime.now(HANOI).date()
    if not EARLIEST <= day < LATEST:
        raise click.UsageError(f"--date must lie from {EARLIEST} on and before {LATEST}: other days have no rate")
    return day


def _default_port() -> int:
    return DEFAULT_PORT if is_free(DEFAULT_PORT) else choose_free()


@contextlib.contextmanager
def _only_demo(stack: Stack) -> Iterator[None]:
    """One demo at a time, for it makes its database afresh. Raises StackError."""
    with (stack.root / "run" / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError("another demo is running: end it first (Ctrl-C there, or ./iparking down)") from None
        yield


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and a closed terminal end the demo as Ctrl-C does: with nothing left running."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _started(server: Server | None) -> Iterator[Server | None]:
    if server is None:
        yield None
        return
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _until_stopped(server: Server) -> None:
    """Go on until Ctrl-C, SIGTERM, or `./iparking down`."""
    say(f"serving on {server.url} at 1x (keys: {server.keys_path}; end: Ctrl-C)")
    with contextlib.suppress(KeyboardInterrupt):
        while not server.dead():
            time.sleep(LOOK_SECONDS)
        say(f"the demo's {' and '.join(server.dead())} ended")

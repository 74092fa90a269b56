"""The service's own application, whose wall clock somebody can set, in one process of it or in all, while they run.

The file `<pid>` or `all` in IPARKING_FAULTS_CLOCK holds by how many seconds; without it the clock is the machine's.
Which process answered, and how far off its wall clock was, is told in a header.
"""

import os
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from flask import Flask, Response

from app import create_app
from app.clock import make_clock, wall_clock
from app.config import Settings
from app.resources import make_resources

CLOCKS = "IPARKING_FAULTS_CLOCK"
ALL = "all"  # also those that begin later
TOLD = "X-Faults-Process"


def jump() -> float:
    """By how many seconds this process's wall clock is set off."""
    for name in (str(os.getpid()), ALL):
        with suppress(FileNotFoundError):
            return float((Path(os.environ[CLOCKS]) / name).read_text())
    return 0.0


def jumping_clock() -> datetime:
    """What this process takes for the machine's clock."""
    return wall_clock() + timedelta(seconds=jump())


def _tell(response: Response) -> Response:
    response.headers[TOLD] = f"{os.getpid()} {jump():g}"
    return response


def __getattr__(name: str) -> Flask:
    """`application`, made only where a server asks for it: who imports a name from above needs no database."""
    if name != "application":
        raise AttributeError(name)
    settings = Settings.from_environment()
    clock = make_clock(settings, jumping_clock)
    application = create_app(settings, replace(make_resources(settings), clock=clock))
    application.after_request(_tell)
    return application

"""The service's own application, whose wall clock somebody can set: in one process of it, while it runs.

The file `<pid>` in IPARKING_FAULTS_CLOCK holds by how many seconds; without it the clock is the machine's.
"""

import os
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from flask import Flask

from app import create_app
from app.clock import make_clock, wall_clock
from app.config import Settings
from app.resources import make_resources

CLOCKS = "IPARKING_FAULTS_CLOCK"


def jumping_clock() -> datetime:
    """What this process takes for the machine's clock."""
    jump = timedelta()
    with suppress(FileNotFoundError, ValueError):
        jump = timedelta(seconds=float((Path(os.environ[CLOCKS]) / str(os.getpid())).read_text()))
    return wall_clock() + jump


def __getattr__(name: str) -> Flask:
    """`application`, made only where a server asks for it: who imports a name from above needs no database."""
    if name != "application":
        raise AttributeError(name)
    settings = Settings.from_environment()
    clock = make_clock(settings, jumping_clock)
    return create_app(settings, replace(make_resources(settings), clock=clock))

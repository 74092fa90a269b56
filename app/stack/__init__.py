"""The embedded default for one machine: a private PostgreSQL with PostGIS, a private Redis, the API and its jobs."""

from app.stack.errors import StackError
from app.stack.machine import Stack
from app.stack.serving import Server, clock_environment, find_database, prepare_database

__all__ = ["Server", "Stack", "StackError", "clock_environment", "find_database", "prepare_database"]

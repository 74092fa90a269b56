"""Connections to PostgreSQL: SQLAlchemy's engine for queries, one autocommit connection a thread for the hot verbs."""

import threading
from collections.abc import Callable
from pathlib import Path
from weakref import WeakSet

import psycopg
from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import make_url

from app.config import Settings

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"


def sqlalchemy_url(url: str) -> str:
    """A libpq URL as SQLAlchemy wants it: the same, with the driver named."""
    return make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def upgrade(url: str) -> None:
    """Bring the database at `url` (libpq) to the newest schema and install its functions. Safe to repeat."""
    from alembic import command  # only an upgrade needs it, and it takes long to load
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("sqlalchemy.url", sqlalchemy_url(url).replace("%", "%%"))
    command.upgrade(config, "head")


def _server_options(settings: Settings, lock_timeout_seconds: float | None = None) -> str:
    lock_ms = round((lock_timeout_seconds or settings.lock_timeout_seconds) * 1000)
    return f"-c lock_timeout={lock_ms} -c statement_timeout={lock_ms * 4} -c timezone=UTC"


def make_engine(settings: Settings) -> Engine:
    """The pool for everything but the hot verbs."""
    return create_engine(
        sqlalchemy_url(settings.database_url),
        pool_size=8,
        max_overflow=8,
        pool_timeout=2,
        pool_use_lifo=True,
        connect_args={"options": _server_options(settings), "connect_timeout": settings.connect_timeout_seconds},
    )


class ThreadConnections:
    """One autocommit psycopg connection a thread: a hot verb is one prepared statement and its own transaction."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._local = threading.local()
        self._open: WeakSet[psycopg.Connection] = WeakSet()

    def get(self) -> psycopg.Connection:
        """This thread's connection, made anew if the last one broke. Raises psycopg.OperationalError."""
        connection = getattr(self._local, "connection", None)
        if connection is None or connection.closed:
            connection = self._local.connection = self._connect()
        return connection

    def own(self, lock_timeout_seconds: float) -> Callable[[], psycopg.Connection]:
        """What gives one connection of its own, to whichever thread holds the right to it, made anew if it broke."""
        held: list[psycopg.Connection] = []

        def get() -> psycopg.Connection:
            if not held or held[0].closed:
                held[:] = [self._connect(lock_timeout_seconds)]
            return held[0]

        return get

    def _connect(self, lock_timeout_seconds: float | None = None) -> psycopg.Connection:
        connection = psycopg.connect(
            self._settings.database_url,
            autocommit=True,
            prepare_threshold=1,
            connect_timeout=self._settings.connect_timeout_seconds,
            options=_server_options(self._settings, lock_timeout_seconds),
        )
        self._open.add(connection)
        return connection

    def close(self) -> None:
        """Close the connections of all threads, once none uses them any more."""
        for connection in list(self._open):
            connection.close()


# A dump restored elsewhere gets a new database oid, a recovery or a promoted replica a new timeline: a new id each.
_DATABASE_ID = """
SELECT to_hex(s.system_identifier) || '-' || d.oid || '-' || c.timeline_id
  FROM pg_control_system() s, pg_control_checkpoint() c, pg_database d WHERE d.datname = current_database()
"""


def database_id(connection: psycopg.Connection) -> str:
    """The id under which copies of this database are kept in Redis; another one once it was restored."""
    row = connection.execute(_DATABASE_ID).fetchone()
    assert row is not None
    return str(row[0])

"""Connections to PostgreSQL: SQLAlchemy's engine for queries, one autocommit connection a thread for the hot verbs."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeGuard
from weakref import WeakSet

import psycopg
from psycopg import sql
from psycopg.abc import Params, Query
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url

from app.config import SERVICE_ROLE, Settings
from app.door import Door
from app.pulse import MARGIN_SECONDS, Pulse, TimedConnection, is_readable

# For what runs once: prepared statements would gain nothing, and a PgBouncer knows none.
NO_PREPARED = {"prepare_threshold": None}
MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"


def sqlalchemy_url(url: str) -> str:
    """A libpq URL as SQLAlchemy wants it: the same, with the driver named."""
    return make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def upgrade(url: str, revision: str = "head", more: Path | None = None) -> None:
    """Bring the database at `url` (libpq) to the newest schema and install its functions. Safe to repeat, and beside a
    service under load. `url` is PostgreSQL's own, not a pooler's; `more` is a folder with further migrations.
    """
    from alembic import command  # only an upgrade needs it, and it takes long to load
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("sqlalchemy.url", sqlalchemy_url(url).replace("%", "%%"))
    if more is not None:
        config.set_main_option("path_separator", "os")
        config.set_main_option("version_locations", os.pathsep.join([str(MIGRATIONS / "versions"), str(more)]))
    command.upgrade(config, revision)


def is_upgraded(url: str) -> bool:
    """Whether the database at `url` (libpq) has the newest schema. Raises psycopg.OperationalError."""
    from alembic.script import ScriptDirectory

    with psycopg.connect(url, connect_timeout=10) as connection:
        try:
            has = {row[0] for row in connection.execute("SELECT version_num FROM alembic_version")}
        except psycopg.errors.UndefinedTable:
            return False
    return has == set(ScriptDirectory(str(MIGRATIONS)).get_heads())


def make_service_role(url: str, password: str) -> None:
    """Make the role that the service connects as (migrations/grants.sql), or give it a new password. `url` is that of
    a role that may make roles. Raises psycopg.Error."""
    with psycopg.connect(url, autocommit=True) as connection:
        known = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [SERVICE_ROLE]).rowcount
        connection.execute(
            sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(
                sql.SQL("ALTER" if known else "CREATE"), sql.Identifier(SERVICE_ROLE), sql.Literal(password)
            )
        )


class PooledCursor(psycopg.ClientCursor[Any]):
    """A cursor for a connection that PgBouncer lends out anew for each transaction.

    It knows no prepared statements, and what a session has set is another client's a moment later. So parameters are
    merged into the statement here, and the time-outs go with it, in the same message and for its transaction alone.
    """

    time_outs = ""

    def execute(
        self, query: Query, params: Params | None = None, *, prepare: bool | None = None, binary: bool | None = None
    ) -> Self:
        """Execute one statement under the connection's time-outs."""
        if isinstance(query, bytes):
            query = query.decode()
        if isinstance(query, str):
            super().execute(self.time_outs + query, params, prepare=prepare, binary=binary)
        else:
            assert isinstance(query, sql.Composable)  # a t-string is of Python 3.14, and takes no time-outs before it
            super().execute(sql.SQL(self.time_outs) + query, params, prepare=prepare, binary=binary)
        return self.set_result(-1)  # those before it are the time-outs'


# Both ends of a connection ask whether the other is still there (seconds). The server may take longer: what it gives
# to others then is what its client held. A client gives up on what it sent as soon as somebody must be told.
_KEEPALIVES = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
_SERVER_GIVES_UP_MS, _CLIENT_GIVES_UP_MS = 10_000, 2_000


def statement_timeout_seconds(settings: Settings) -> float:
    """How long the server works on a statement at most."""
    return settings.lock_timeout_seconds * 4


def _time_outs(settings: Settings, lock_timeout_seconds: float | None) -> dict[str, int]:
    """The server's time-outs in milliseconds. Who is in a hurry for locks is so for nothing else."""
    seconds = {
        "lock_timeout": lock_timeout_seconds or settings.lock_timeout_seconds,
        "statement_timeout": statement_timeout_seconds(settings),
        "idle_in_transaction_session_timeout": settings.lock_timeout_seconds * 2,
    }
    return {name: round(value * 1000) for name, value in seconds.items()}


def _session(time_outs: dict[str, int]) -> str:
    """What the server does for a session of ours: locks and statements have their time-outs, times are UTC, nothing is
    compiled (that takes longer than any statement here), and what a client held that is stopped, or gone with its
    machine, goes to others."""
    gone = {f"tcp_{name}": value for name, value in _KEEPALIVES.items()} | {"tcp_user_timeout": _SERVER_GIVES_UP_MS}
    return " ".join(f"-c {name}={value}" for name, value in (time_outs | gone).items()) + " -c timezone=UTC -c jit=off"


def _connection_options(settings: Settings, lock_timeout_seconds: float | None = None) -> dict[str, Any]:
    """What psycopg.connect takes beside the URL."""
    time_outs = _time_outs(settings, lock_timeout_seconds)
    options: dict[str, Any] = {
        "connect_timeout": settings.connect_timeout_seconds, "tcp_user_timeout": _CLIENT_GIVES_UP_MS, **_KEEPALIVES
    }  # fmt: skip
    if settings.pooler is None:
        return options | {"options": _session(time_outs)}
    before = "".join(f"SET LOCAL {name} = {value}; " for name, value in time_outs.items())
    cursor = type("PooledCursor", (PooledCursor,), {"time_outs": before})
    return options | {"cursor_factory": cursor, "prepare_threshold": None}


def connect(
    settings: Settings, lock_timeout_seconds: float | None = None, kind: type[psycopg.Connection] = psycopg.Connection
) -> psycopg.Connection:
    """An autocommit connection. Raises psycopg.OperationalError."""
    options = {"prepare_threshold": 1} | _connection_options(settings, lock_timeout_seconds)
    connection = kind.connect(settings.database_url, autocommit=True, **options)
    if settings.pooler is not None:
        _set_utc(connection)
    return connection


def _set_utc(connection: psycopg.Connection) -> None:
    """The one thing that a client of PgBouncer may set for itself: the server reports it, so PgBouncer keeps it."""
    done = connection.pgconn.exec_(b"SET timezone = 'UTC'")
    if done.status != psycopg.pq.ExecStatus.COMMAND_OK:
        raise psycopg.OperationalError(done.get_error_message())


def make_engine(settings: Settings) -> Engine:
    """The pool for everything but the hot verbs."""
    engine = create_engine(
        sqlalchemy_url(settings.database_url),
        pool_size=8,
        max_overflow=8,
        pool_timeout=2,
        pool_use_lifo=True,
        pool_pre_ping=True,  # after a server's restart no request is to find out what died with it
        connect_args=_connection_options(settings),
    )
    if settings.pooler is not None:
        event.listen(engine, "connect", lambda connection, _: _set_utc(connection))
    return engine


class ThreadConnections:
    """One autocommit psycopg connection a thread: a hot verb is one prepared statement and its own transaction."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._local = threading.local()
        self._open: WeakSet[psycopg.Connection] = WeakSet()
        self._lock = threading.Lock()
        self._door = Door()
        asked = replace(settings, database_url=settings.pulse_url or settings.database_url)
        self.pulse = Pulse(lambda: connect(asked), self._all_open)

    def get(self) -> psycopg.Connection:
        """This thread's connection, made anew if the last one broke. Raises psycopg.OperationalError."""
        connection = getattr(self._local, "connection", None)
        if not _is_usable(connection):
            connection = self._local.connection = self._connect()
        return connection

    def adopt(self, engine: Engine) -> None:
        """Let pulse and door watch over an engine's connections too."""
        event.listen(engine, "do_connect", lambda *_: self._check_in())
        event.listen(engine, "connect", lambda made, _: self._keep(made))

    def own(self, lock_timeout_seconds: float) -> Callable[[], psycopg.Connection]:
        """What gives one connection of its own, to whichever thread holds the right to it, made anew if it broke.

        Others wait for that thread, so the pulse hangs up where a statement outlasts the server's own time-out.
        """
        held: list[psycopg.Connection] = []

        def get() -> psycopg.Connection:
            if not held or not _is_usable(held[0]):
                held[:] = [self._connect(lock_timeout_seconds, timed)]
            return held[0]

        patience = statement_timeout_seconds(self._settings) + MARGIN_SECONDS
        timed = type("TimedConnection", (TimedConnection,), {"patience": patience})
        return get

    def _connect(
        self, lock_timeout_seconds: float | None = None, kind: type[psycopg.Connection] = psycopg.Connection
    ) -> psycopg.Connection:
        self.pulse.check()
        with self._door.passing():
            connection = connect(self._settings, lock_timeout_seconds, kind)
        self._keep(connection)
        return connection

    def _check_in(self) -> None:
        """Returns nothing, so that the engine connects as it would. Raises psycopg.OperationalError."""
        self.pulse.check()
        self._door.check()

    def _keep(self, connection: psycopg.Connection) -> None:
        with self._lock:
            self._open.add(connection)

    def _all_open(self) -> list[psycopg.Connection]:
        with self._lock:
            return list(self._open)

    def close(self) -> None:
        """Close the connections of all threads, once none uses them any more."""
        self.pulse.stop()
        for connection in self._all_open():
            connection.close()


def _is_usable(connection: psycopg.Connection | None) -> TypeGuard[psycopg.Connection]:
    """Whether a connection may be given a statement. An idle one has nothing to say, but that the server hung up while
    nobody looked: whoever used it then would be told that his statement may have been lost. Costs 2 µs."""
    if connection is None or connection.closed:
        return False
    if connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE and is_readable(connection, 0.0):
        connection.close()
        return False
    return True


# A dump restored elsewhere gets a new database oid, a recovery or a promoted replica a new timeline: a new id each.
# The timeline is that of the log that is being written: the control file learns of it minutes later, by a checkpoint.
_STATE = """
SELECT to_hex(s.system_identifier) || '-' || d.oid || '-'
           || ('x' || left(pg_walfile_name(w.lsn), 8))::bit(32)::integer,
       w.lsn - '0/0'
  FROM pg_control_system() s, pg_database d, (SELECT pg_current_wal_lsn()) w(lsn) WHERE d.datname = current_database()
"""


class DatabaseState(NamedTuple):
    """Which database this is, and how much of its log was written: a byte position that only grows."""

    id: str
    position: int


def database_state(connection: psycopg.Connection) -> DatabaseState:
    """The state of a primary. Raises psycopg.OperationalError, ObjectNotInPrerequisiteState for a replica."""
    row = connection.execute(_STATE).fetchone()
    assert row is not None
    return DatabaseState(str(row[0]), int(row[1]))


def database_id(connection: psycopg.Connection) -> str:
    """The id under which copies of this database are kept in Redis; another one once it was restored or promoted."""
    return database_state(connection).id

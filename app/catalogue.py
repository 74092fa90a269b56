"""Zones and rates in force, held in memory by every process and renewed within a second of a change."""

import logging
import threading
import time
from collections.abc import Callable

import psycopg
from sqlalchemy import Engine

from app.database import DatabaseState, database_state
from app.errors import Unavailable
from billing import plans, vat
from billing.rates import RateTable
from billing.vat import VatTable
from zones import places

log = logging.getLogger(__name__)
REFRESH_SECONDS = 1.0


class Catalogue:
    """The newest zones and rates that could be read, and the id of the database they come from."""

    def __init__(self, engine: Engine, note: Callable[[float, DatabaseState], None] = lambda _, __: None) -> None:
        """`note` is told the database's state at each look, with the monotonic second before it."""
        self._engine = engine
        self._note = note
        self._revisions: dict[str, int] = {}
        self._places: places.Places | None = None
        self._rates: RateTable | None = None
        self._vat: VatTable | None = None
        self._database_id: str | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def places(self) -> places.Places:
        """The zones in force. Raises Unavailable while none could be read."""
        if self._places is None:
            raise Unavailable("the zones could not be read yet")
        return self._places

    @property
    def rates(self) -> RateTable:
        """The rates of all times. Raises Unavailable while none could be read."""
        if self._rates is None:
            raise Unavailable("the rates could not be read yet")
        return self._rates

    @property
    def vat(self) -> VatTable:
        """The tax in prices, of all times. Raises Unavailable while it could not be read."""
        if self._vat is None:
            raise Unavailable("the rates could not be read yet")
        return self._vat

    @property
    def database_id(self) -> str:
        """The id that Redis keys of this database begin with. Raises Unavailable while it could not be read."""
        if self._database_id is None:
            raise Unavailable("the database could not be read yet")
        return self._database_id

    def refresh(self) -> None:
        """Read what changed since the last time: one small query where nothing did. Raises OperationalError.

        The database's id is looked at again too: after a restore or a failover the old copies in Redis count for
        nothing.
        """
        with self._engine.connect() as pooled:
            connection = pooled.connection.driver_connection
            assert isinstance(connection, psycopg.Connection)
            began = time.monotonic()
            state = database_state(connection)
            if state.id != self._database_id:
                self._revisions = {}  # the same numbers may stand for other rows
            self._database_id = state.id
            self._note(began, state)
            found = dict(connection.execute("SELECT name, value FROM revision").fetchall())
            if found["rates"] != self._revisions.get("rates"):
                self._vat = vat.load(connection)
            connection.rollback()
            if found["zones"] != self._revisions.get("zones"):
                self._places = places.load(connection)
            if found["rates"] != self._revisions.get("rates"):
                self._rates = plans.load(pooled)
            self._revisions = found

    def keep_fresh(self) -> None:
        """Refresh once now, then every second in a thread of its own, until `stop`."""
        self._try_refresh()
        self._thread = threading.Thread(target=self._run, name="catalogue", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for that: who closes connections next must not close one under it."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(REFRESH_SECONDS):
            self._try_refresh()

    def _try_refresh(self) -> None:
        try:
            self.refresh()
        except Exception:  # a thread that dies would leave this process with old rates for ever
            log.exception("zones and rates could not be read; the last ones stay in force")

"""What the tests of the ledger share: names that no other test uses, postings, and threads that begin together."""

import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg

from billing import ledger
from billing.ledger import Posting

NOW = datetime(2026, 10, 14, 1, tzinfo=UTC)
PATIENCE = 30.0
_numbers = itertools.count(1)


def name(prefix: str = "t") -> str:
    """A name that is used once."""
    return f"{prefix}{next(_numbers)}"


def book(
    connection: psycopg.Connection, entries: dict[str, int], at: datetime = NOW, kind: str = "test", reference: str = ""
) -> UUID:
    return ledger.post(connection, [Posting(kind, reference or name("r"), at, entries)])[0]


def top_up(connection: psycopg.Connection, owner: str, amount: int, at: datetime = NOW) -> None:
    book(connection, {"clearing/bank": amount, f"wallet/{owner}": -amount}, at)


def hold(
    connection: psycopg.Connection, owner: str, *amounts: int, at: datetime = NOW, hours: float = 24
) -> list[UUID]:
    """Put amounts aside in one call, a session each; the sessions' ids."""
    ids = [uuid4() for _ in amounts]
    ends = [at + timedelta(hours=hours)] * len(ids)
    place = "SELECT place_holds(%s, %s, %s, %s, %s, %s, 'wallet')"
    connection.execute(place, (ids, [owner] * len(ids), list(amounts), ends, at, 10**12))
    return ids


def raise_hold(
    connection: psycopg.Connection, owner: str, session: UUID, amount: int, owed_limit: int = 10**12
) -> None:
    """Put so much aside for a session in all."""
    ledger.raise_hold(connection, ledger.Hold(session, owner, amount, NOW + timedelta(hours=24)), NOW, owed_limit)


def charge(
    connection: psycopg.Connection,
    sessions: Sequence[tuple[UUID, str, str, int]],
    at: datetime = NOW,
    district: str = "002",
) -> None:
    """Charge (session, client, method, fee), in one call."""
    ids, clients, methods, fees = (list(column) for column in zip(*sessions, strict=True))
    connection.execute(
        "SELECT charge_sessions(%s, %s, %s, %s, %s, %s)", (ids, clients, methods, fees, [district] * len(ids), at)
    )


def hold_states(connection: psycopg.Connection, ids: Sequence[UUID]) -> list[tuple[str, int | None]]:
    rows = connection.execute("SELECT id, state, captured FROM hold WHERE id = ANY(%s)", [list(ids)]).fetchall()
    found = {row[0]: (row[1], row[2]) for row in rows}
    return [found[one] for one in ids]


def is_blocked(connection: psycopg.Connection, other: psycopg.Connection) -> bool:
    """Whether `other` waits for a lock that somebody holds."""
    query = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
    row = connection.execute(query, (other.info.backend_pid,)).fetchone()
    return row == (True,)


def together(url: str, works: Sequence[Callable[[psycopg.Connection], Any]]) -> list[Any]:
    """Run each work on a connection and a thread of its own, all begun at once; what each returned or raised."""
    gate = threading.Barrier(len(works))

    def run(work: Callable[[psycopg.Connection], Any]) -> Any:
        with psycopg.connect(url, autocommit=True) as connection:
            gate.wait(PATIENCE)
            try:
                return work(connection)
            except psycopg.Error as error:
                return error

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))

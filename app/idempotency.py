"""Idempotency for the POSTs that no row of their own protects: the key, a hash of the request and the first answer."""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import orjson
import psycopg

from zones.errors import KeyConflict

MEMORY = timedelta(hours=24)


class Request(NamedTuple):
    """One POST: who sends what where, and its key (None: do it whenever asked)."""

    client: str
    path: str
    key: str | None
    body: Any


def digest(body: Any) -> bytes:
    """Two requests are the same if their validated bodies are."""
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS, default=str)).digest()


def once(connection: psycopg.Connection, call: Request, now: datetime, do: Callable[[], Any]) -> bytes:
    """Do it in one transaction with its key, or give the first answer again. Answers are JSON.

    A duplicate of a request still running waits for it (the connection's lock time-out, then LockNotAvailable). What
    was refused is rolled back and not remembered. Raises KeyConflict.
    """
    if call.key is None:
        return orjson.dumps(do())
    with connection.transaction():
        remembered = _claim(connection, call, now)
        if remembered is not None:
            return remembered
        answer = orjson.dumps(do())
        connection.execute(
            "UPDATE idempotency_key SET answer = %s WHERE (client, path, key) = (%s, %s, %s)",
            (answer, call.client, call.path, call.key),
        )
        return answer


def _claim(connection: psycopg.Connection, call: Request, now: datetime) -> bytes | None:
    """Take the key: None where it is ours now, else the answer that it got before. A key of yesterday is free again."""
    connection.execute(
        "DELETE FROM idempotency_key WHERE (client, path, key) = (%s, %s, %s) AND created_at <= %s",
        (call.client, call.path, call.key, now - MEMORY),
    )
    taken = connection.execute(
        "INSERT INTO idempotency_key (client, path, key, request_hash, created_at) VALUES (%s, %s, %s, %s, %s) "
        "ON CONFLICT DO NOTHING RETURNING key",
        (call.client, call.path, call.key, digest(call.body), now),
    ).fetchone()
    if taken:
        return None
    row = connection.execute(
        "SELECT request_hash, answer FROM idempotency_key WHERE (client, path, key) = (%s, %s, %s)",
        (call.client, call.path, call.key),
    ).fetchone()
    if row is None or bytes(row[0]) != digest(call.body):
        raise KeyConflict("the key was used with another request")
    return bytes(row[1])


def forget(connection: psycopg.Connection, now: datetime) -> int:
    """Delete the keys that are no longer remembered; their number."""
    return connection.execute("DELETE FROM idempotency_key WHERE created_at <= %s", (now - MEMORY,)).rowcount

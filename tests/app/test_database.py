"""What a connection of the service is given: its time-outs, and when it notices that the other end is gone."""

import os
import socket
from collections.abc import Callable

import psycopg
import pytest

from app.resources import GROUP_LOCK_TIMEOUT_SECONDS, Resources

Open = Callable[[Resources], psycopg.Connection]
OPENS: dict[str, Open] = {
    "thread": lambda held: held.connections.get(),
    "group": lambda held: held.connections.own(GROUP_LOCK_TIMEOUT_SECONDS)(),
    "engine": lambda held: held.engine.raw_connection().driver_connection,  # type: ignore[return-value]
}
TIME_OUTS = "lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"


def time_outs(connection: psycopg.Connection) -> tuple[str, ...]:
    query = f"SELECT {', '.join(f'current_setting({name!r})' for name in TIME_OUTS)}"
    return connection.execute(query).fetchone()  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(("name", "lock"), [("thread", "5s"), ("group", "200ms"), ("engine", "5s")])
def test_only_for_locks_is_a_group_in_a_hurry(resources: Resources, name: str, lock: str):
    """A database that stalls for a second must not cancel each group, whose members would then all run alone."""
    assert time_outs(OPENS[name](resources)) == (lock, "20s", "10s")


@pytest.mark.parametrize("name", OPENS)
def test_a_connection_notices_that_its_server_is_gone(resources: Resources, name: str):
    """What is sent and not received is given up after 2 s, and one that only waits asks after 5 s."""
    connection = OPENS[name](resources)
    with socket.socket(fileno=os.dup(connection.pgconn.socket)) as its:
        found = [
            its.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_USER_TIMEOUT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        ]
    assert found == [2000, 5, 2, 3]

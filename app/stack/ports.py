"""Ports on the loopback address: finding a free one, and saying who holds a taken one."""

import random
import socket
from collections.abc import Container

import psutil

from app.stack.errors import StackError

# Below the range from which Linux takes the near ends of outgoing connections, which would take a port for a while.
CANDIDATES = range(15_000, 30_000)


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on `port` now. A just closed one may: its last connections do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def choose_free(taken: Container[int] = ()) -> int:
    """A free port that is not among `taken`."""
    for port in random.sample(CANDIDATES, len(CANDIDATES)):
        if port not in taken and is_free(port):
            return port
    raise StackError(f"no free port between {CANDIDATES.start} and {CANDIDATES.stop}")


def holder(port: int) -> str:
    """Who listens on `port`, in words; only root is told of other people's processes."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        pass
    return "another program"


def require_free(port: int, what: str, remedy: str, host: str = "127.0.0.1") -> None:
    """Raise StackError if `port`, wanted for `what`, is taken; `remedy` says what can be done."""
    if not is_free(port, host):
        raise StackError(f"port {port} of {what} is taken by {holder(port)}: free it, or {remedy}")

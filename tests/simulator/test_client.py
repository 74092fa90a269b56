"""The client's own promises: every request is done in the end, and each failed try is told by its kind."""

import asyncio

from app.stack.ports import choose_free
from simulator.client import Client


class Call:
    """A request that, when it is over, submits the next of its chain."""

    wire = b"GET / HTTP/1.1\r\n\r\n"

    def __init__(self, client: Client, left: int, over: asyncio.Event) -> None:
        self.client, self.left, self.over = client, left, over
        self.sent = self.answered = 0.0
        self.tries = self.status = 0
        self.body = b""

    def done(self) -> None:
        if self.left:
            self.client.submit(Call(self.client, self.left - 1, self.over))
        else:
            self.over.set()


def test_a_request_that_follows_a_failed_connect_is_not_forgotten():
    async def chain() -> Client:
        client = Client(f"http://127.0.0.1:{choose_free()}", tries=1)
        over = asyncio.Event()
        client.submit(Call(client, 4, over))
        async with asyncio.timeout(10):
            await over.wait()
        await client.close()
        return client

    client = asyncio.run(chain())
    assert {kind: found["count"] for kind, found in client.failures.by_kind.items()} == {"unconnected": 5}
    assert client.failures.total == 5

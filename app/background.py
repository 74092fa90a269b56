"""Work that waits for others' servers, in threads of its own: the jobs beside it keep their cadence."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from app.resources import Resources

Verb = Callable[[Resources], int]


class Background:
    """A verb as a job: run by each of some threads that is free, and never twice in one."""

    def __init__(self, verb: Verb, threads: int = 1) -> None:
        self._verb, self._threads = verb, threads
        self._pool: ThreadPoolExecutor | None = None
        self._running: list[Future[int]] = []

    def __call__(self, resources: Resources) -> int:
        """Begin anew where a run has ended; what ended runs have done. Raises what one of them raised."""
        self._pool = self._pool or ThreadPoolExecutor(self._threads, self._verb.__name__)
        ended = [one for one in self._running if one.done()]
        self._running = [one for one in self._running if not one.done()]
        free = self._threads - len(self._running)
        self._running += [self._pool.submit(self._verb, resources) for _ in range(free)]
        return sum(one.result() for one in ended)

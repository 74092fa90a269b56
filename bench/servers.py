"""The servers that are measured: the service as `./iparking up` starts it, and the reference under the same granian."""

from pathlib import Path

from app.stack import Server, Stack
from app.stack.ports import choose_free

DATABASE = "bench"


class Service(Server):
    """The full service, API and jobs, on the bench's own database, with keys of its own."""

    def __init__(self, stack: Stack, folder: Path, name: str, workers: int, threads: int, drivers: int) -> None:
        """`folder` is where keys.json goes, so that the keys of the real service are left alone."""
        super().__init__(
            stack, DATABASE, choose_free(), name=f"bench-{name}", workers=workers, threads=threads, drivers=drivers
        )
        self._folder = folder

    @property
    def keys_path(self) -> Path:
        return self._folder / "keys.json"

    def processes(self) -> list[int]:
        """The ids of the API's processes: granian and its workers."""
        return self._started["api"].members()


class Reference(Service):
    """The reference application under the very command line of the API, and no jobs."""

    def __init__(self, stack: Stack, folder: Path, workers: int, threads: int) -> None:
        super().__init__(stack, folder, f"reference-{threads}", workers, threads, drivers=0)

    def _commands(self) -> dict[str, list[str]]:
        commands = super()._commands()
        return {**commands, "api": [*commands["api"][:-1], "bench.reference:application"]}

    def _start(self, part: str) -> None:
        if part == "api":
            super()._start(part)

"""The servers that are measured: the service as `./iparking up` starts it, and the reference under the same granian."""

from collections.abc import Mapping
from pathlib import Path

import psutil

from app.stack import Server, Stack
from app.stack.ports import choose_free
from bench.reference import BYTES_FILE

DATABASE = "bench"


class Service(Server):
    """The full service, API and jobs, on the bench's own database, with keys of its own."""

    parts: tuple[str, ...] = ("api", "jobs")

    def __init__(
        self,
        stack: Stack,
        folder: Path,
        name: str,
        workers: int,
        threads: int,
        drivers: int,
        environment: Mapping[str, str] | None = None,
        database: str = DATABASE,
        funds: int | None = None,
    ) -> None:
        """`folder` is where keys.json goes, so that the keys of the real service are left alone; `funds` is what each
        driver's wallet is given, in VND (so it is no production)."""
        super().__init__(
            stack, database, choose_free(), name=f"bench-{name}", workers=workers, threads=threads, drivers=drivers,
            environment={"IPARKING_ENV": "test", **(environment or {})}, funds=funds,
        )  # fmt: skip
        self._folder = folder

    @property
    def keys_path(self) -> Path:
        return self._folder / "keys.json"

    @property
    def bytes_file(self) -> Path:
        """What the reference application answers with where it returns the bytes of the service's answer."""
        return self._folder / "answer"

    def processes(self) -> list[int]:
        """The ids of the API's processes: granian and its workers."""
        return self._started["api"].members()

    def worker_processes(self) -> list[int]:
        """The ids of granian's workers, which serve."""
        leader = self._started["api"].pid
        children = psutil.Process(leader).children()
        return sorted(child.pid for child in children if "resource_tracker" not in " ".join(child.cmdline()))

    def _start(self, part: str) -> None:
        if part in self.parts:
            super()._start(part)


class Trial(Service):
    """The service without jobs: several run at once while the best number of threads is sought."""

    parts = ("api",)


class Reference(Service):
    """The reference application under the very command line of the API, and no jobs."""

    parts = ("api",)

    def __init__(self, stack: Stack, folder: Path, workers: int, threads: int, database: str = DATABASE) -> None:
        environment = {BYTES_FILE: str(folder / "answer")}
        super().__init__(
            stack, folder, f"reference-{threads}", workers, threads, drivers=0, environment=environment,
            database=database,
        )  # fmt: skip

    def _environment(self) -> dict[str, str]:
        """Its tables are none of the service's, so it is their owner."""
        return super()._environment() | {"IPARKING_DATABASE_URL": self.stack.database_url(self.database)}

    def _commands(self) -> dict[str, list[str]]:
        commands = super()._commands()
        return {**commands, "api": [*commands["api"][:-1], "bench.reference:application"]}

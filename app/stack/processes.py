"""Programs that outlive the command that started them: started without its descriptors, found again by record.

A process id alone proves nothing, because ids are used again. A record therefore holds the boot and the tick at which
the process started too, and nothing is ever signalled whose record does not match.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from app.stack.errors import StackError

POLL_SECONDS = 0.02
LARGEST_LOG = 20_000_000  # bytes


@dataclass(frozen=True, slots=True)
class Process:
    """A process that leads a session of its own, so that its children are found by its id."""

    name: str
    pid: int
    started: int
    boot: str

    def is_alive(self) -> bool:
        """Whether this very process runs. One that only waits for us to take note of its end does not."""
        if self.boot != boot_id():
            return False
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return _start_tick(self.pid) == self.started

    def members(self) -> list[int]:
        """The ids of all that live in its session, itself included."""
        if self.boot != boot_id() or _start_tick(self.pid) not in (self.started, None):
            return []
        return [pid for pid, session, started in _sessions() if session == self.pid and started >= self.started]

    def send(self, number: int) -> None:
        """Send a signal to this process alone, if it still runs."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def stop(self, number: int = signal.SIGTERM, patience: float = 10.0) -> None:
        """Ask it to end with signal `number`; kill it after `patience` seconds, and what is left of its session."""
        self.send(number)
        if not wait_until(lambda: not self.is_alive(), patience):
            self.send(signal.SIGKILL)
        for pid in self.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not wait_until(lambda: not self.is_alive() and not self.members(), patience):
            raise StackError(f"{self.name} (process {self.pid}) does not end, even killed")


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Look at `condition` until it holds; False if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def identify(name: str, pid: int) -> Process:
    """The record of the process that has this id now. Raises StackError if there is none."""
    started = _start_tick(pid)
    if started is None:
        raise StackError(f"{name} (process {pid}) ended at once")
    return Process(name, pid, started, boot_id())


def boot_id() -> str:
    """What tells one run of the machine from the next."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def working_in(folder: Path) -> list[int]:
    """The ids of all processes whose current folder is `folder` or lies in it, as far as the caller may see them."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if Path(os.readlink(f"/proc/{entry}/cwd")).is_relative_to(folder):
                found.append(int(entry))
    return found


def kill_all(processes: list[int], patience: float = 10.0) -> None:
    """Kill each at once and wait until all are gone."""
    records = [identify("leftover", pid) for pid in processes if _start_tick(pid) is not None]
    for process in records:
        process.send(signal.SIGKILL)
    wait_until(lambda: not any(process.is_alive() for process in records), patience)


def _start_tick(pid: int) -> int | None:
    fields = _stat_fields(pid)
    return None if fields is None or fields[0] in ("Z", "X") else int(fields[19])


def _stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the third on: the second is a name that may hold anything, in brackets."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _sessions() -> Iterator[tuple[int, int, int]]:
    """(process, session, start tick) of everything that runs."""
    for entry in os.listdir("/proc"):
        fields = _stat_fields(int(entry)) if entry.isdigit() else None
        if fields and fields[0] not in ("Z", "X"):
            yield int(entry), int(fields[3]), int(fields[19])


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one stack's processes, one file each under `.iparking/run/`."""

    folder: Path

    def write(self, process: Process) -> None:
        replace_file(self.folder / f"{process.name}.json", json.dumps(asdict(process)) + "\n")

    def read(self, name: str) -> Process | None:
        """The process of this name if it still runs, or has left children running."""
        try:
            process = Process(**json.loads((self.folder / f"{name}.json").read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return process if process.is_alive() or process.members() else None

    def remove(self, name: str) -> None:
        (self.folder / f"{name}.json").unlink(missing_ok=True)

    def names(self) -> list[str]:
        return sorted(file.stem for file in self.folder.glob("*.json"))

    def stop(self, name: str, number: int = signal.SIGTERM, patience: float = 10.0) -> bool:
        """Stop the process of this name and forget it. Returns whether there was one."""
        process = self.read(name)
        if process is not None:
            process.stop(number, patience)
        self.remove(name)
        return process is not None


def replace_file(path: Path, text: str, mode: int = 0o600) -> None:
    """Write `text` so that a reader sees the old file or the new one, never a half."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def rotate(log: Path, largest: int = LARGEST_LOG) -> None:
    """Put a long log aside as `<name>.1`, in place of the one put aside before."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > largest:
            log.replace(f"{log}.1")


def spawn(
    arguments: Sequence[str | os.PathLike[str]],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    user: Mapping[str, object] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own that writes to `log` and holds no other descriptor of the caller.

    `user` holds the arguments of subprocess that make it run as another one (RunUser.popen_arguments)."""
    rotate(log)
    with open(log, "ab") as output:
        return subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            close_fds=True,
            start_new_session=True,
            env=None if environment is None else dict(environment),
            cwd=folder or "/",
            umask=0o077,
            **(user or {}),  # type: ignore[call-overload]
        )

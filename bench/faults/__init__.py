"""`./iparking bench faults`: break one thing at a time under load, and prove that nothing is lost, doubled or wrong."""

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
from rich.console import Console

from app.stack.machine import default_root
from bench.errors import BenchError
from bench.faults import report, trial
from bench.faults.kinds import BY_NAME, FAULTS, Fault
from bench.faults.site import Site, open_site
from bench.faults.traffic import Plates
from bench.faults.trial import Result

WORKERS, THREADS = 2, 8
DISK_SIZE = "480m"


def run(json: bool = False, seed: int = 1, names: Sequence[str] = (), rate: float = trial.RATE) -> int:
    """Try the faults of these names (none: all) in an order that the seed gives; the exit code says whether every
    promise held. Raises StackError, BenchError.

    With `json`, standard output is one JSON object and nothing else; progress goes to standard error.
    """
    found = try_all(default_root() / "faults", chosen(names), seed, rate)
    if json:
        sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    else:
        report.show(found, Console())
    return 1 if found["violations"] else 0


def chosen(names: Sequence[str]) -> list[Fault]:
    """The faults of these names; none: all. Raises BenchError."""
    unknown = sorted(set(names) - set(BY_NAME))
    if unknown:
        raise BenchError(f"no fault {', '.join(unknown)}; there are {', '.join(BY_NAME)}")
    return [fault for fault in FAULTS if not names or fault.name in names]


def in_order(faults: Sequence[Fault], chance: random.Random) -> list[Fault]:
    """The faults in a random order; those that need a disk of their own last."""
    return sorted(faults, key=lambda fault: (fault.own_disk, chance.random()))


def try_all(root: Path, faults: Sequence[Fault], seed: int, rate: float = trial.RATE) -> dict:
    """Try these faults on servers under `root`; what `report.summary` says of them."""
    began = time.monotonic()
    chance, plates = random.Random(seed), Plates()
    order = in_order(faults, chance)
    results: list[Result] = []
    with contextlib.ExitStack() as sites:
        site: Site | None = None
        for fault in order:
            if not fault.own_disk:
                site = site or sites.enter_context(open_site(root, WORKERS, THREADS))
                results.append(_try(site, fault, plates, chance, rate))
    results += [_try_on_small_disk(fault, plates, chance, rate) for fault in order if fault.own_disk]
    return report.summary(results, seed, time.monotonic() - began)


def _try(site: Site, fault: Fault, plates: Plates, chance: random.Random, rate: float) -> Result:
    print(f"{fault.name}: {fault.words}", file=sys.stderr, flush=True)
    result = trial.run(site, fault, plates, chance, rate)
    verdict = "; ".join(result.violations) or "all promises held"
    struck = f"{result.struck}; {result.in_flight} in flight"
    print(f"{fault.name}: {struck}; {result.errors} errors; {verdict}", file=sys.stderr, flush=True)
    return result


def _try_on_small_disk(fault: Fault, plates: Plates, chance: random.Random, rate: float) -> Result:
    if os.geteuid() != 0:
        return Result(fault.name, skipped="only root may mount a small disk")
    with contextlib.ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk())
        except BenchError as error:
            return Result(fault.name, skipped=str(error))
        site = stack.enter_context(open_site(disk / "stack", WORKERS, THREADS))
        return _try(site, fault, plates, chance, rate)


@contextlib.contextmanager
def small_disk() -> Iterator[Path]:
    """A file system of DISK_SIZE in memory, where nobody else writes. Raises BenchError where none can be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="iparking-disk-"))
    folder.chmod(0o755)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE},mode=755", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    try:
        if mounted.returncode:
            raise BenchError(f"no small disk can be mounted here ({mounted.stderr.strip()})")
        yield folder
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()

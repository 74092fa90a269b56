"""`./iparking bench core --soak`: does a worker of the API stay small, and does it stop growing?

A mixed load of a fixed rate (open loop) runs for some minutes while the resident memory of each worker is read every
few seconds. The verdict is on the largest value, and on the line that fits the values once the service is warm.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean, linear_regression
from typing import Any

import orjson
import psutil
from rich.console import Console
from rich.table import Table

from app.stack import Stack
from bench import machine, openloop, requests
from bench.core import Say, give, progress
from bench.errors import BenchError
from bench.load import Client
from bench.loads import ServiceLoads
from bench.servers import Service
from bench.site import DRIVERS, Site, open_site, serving

MB = 1_000_000
MOST_MB = 150.0
# Flat: the fitted line rises by no more than this over the time that is looked at.
MOST_RISE_MB = 5.0
# The first part of the time does not count for the slope: caches fill, every thread makes its connections.
WARM_SHARE = 0.3
# Of ten requests in a row; a stop or an extend takes the session of an earlier start.
MIX = ("start", "check", "start", "stop", "map", "start", "check", "stop", "start", "stop")


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how much, and how often memory is read."""

    minutes: float = 10.0
    rate: float = 200.0
    every_seconds: float = 5.0
    workers: int = 2
    threads: int = 16


@dataclass(frozen=True, slots=True)
class Sample:
    """Resident memory of each worker at an instant, in seconds from the begin and bytes."""

    at: float
    bytes: tuple[int, ...]


def run(json: bool = False, **given: Any) -> int:
    """Measure on the private servers and print the verdict; 0 where it is good. Raises StackError, BenchError.

    `given` are fields of Plan.
    """
    with Stack() as stack:
        found = measure(stack, Plan(**given))
    give(found, show, json)
    return 0 if found["met"] else 1


def measure(stack: Stack, plan: Plan, say: Say | None = None) -> dict[str, Any]:
    """The whole soak, on a database of its own. Raises BenchError where a request was refused or a worker ended."""
    with open_site(stack, Client()) as site:
        described = machine.describe(site.connection)
        service = Service(site.stack, site.folder, "service", plan.workers, plan.threads, DRIVERS)
        with serving(service):
            samples, answers = _soak(site, service, plan, say or progress)
    sizes = {"minutes": plan.minutes, "rate": plan.rate, "workers": plan.workers, "threads": plan.threads}
    return {"machine": described, **sizes, "answers": answers, **judge(samples)}


def _soak(site: Site, service: Service, plan: Plan, say: Say) -> tuple[list[Sample], dict[str, int]]:
    """The samples, and the answers by kind of call."""
    seconds = plan.minutes * 60
    mix = _Mix(service, ServiceLoads(site, service), site.zones)
    due = openloop.arrivals(plan.rate, seconds, seed=1)
    errors: list[BenchError] = []

    def send() -> None:
        try:
            openloop.run(service.url, due, mix.make, mix.hear)
        except BenchError as error:
            errors.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    samples = _watch(service, seconds, plan.every_seconds, sender, say)
    sender.join()
    if errors:
        raise errors[0]
    return samples, mix.answers


def _watch(service: Service, seconds: float, every: float, sender: threading.Thread, say: Say) -> list[Sample]:
    began, samples, workers = time.monotonic(), list[Sample](), service.worker_processes()
    while sender.is_alive() and (passed := time.monotonic() - began) < seconds:
        try:
            samples.append(Sample(passed, tuple(psutil.Process(pid).memory_info().rss for pid in workers)))
        except psutil.NoSuchProcess:
            raise BenchError("a worker of the API ended while it was watched") from None
        say(f"{passed:.0f} of {seconds:.0f} s: {', '.join(f'{size / MB:.1f}' for size in samples[-1].bytes)} MB")
        sender.join(every)
    return samples


class _Mix:
    """Starts, stops, checks and map reads in turn."""

    def __init__(self, service: Service, loads: ServiceLoads, zones: Sequence[str]) -> None:
        self._url, self._loads, self._zones = service.url, loads, zones
        self._start = loads.open_starts(1)
        self._kinds: dict[int, str] = {}
        self._running: deque[tuple[str, str]] = deque()
        self.answers = dict.fromkeys(sorted(set(MIX)), 0)

    def make(self, number: int) -> bytes:
        """Request `number`; a stop that has no session to stop becomes a start."""
        kind = MIX[number % len(MIX)]
        if kind == "stop" and not self._running:
            kind = "start"
        self._kinds[number] = kind
        match kind:
            case "start":
                return self._start(number)
            case "stop":
                return self._stop(number)
            case "check":
                return self._check(number)
        return requests.get(self._url, f"/v1/zones?bbox=105.8{number:06d},21.00,105.86,21.04")

    def hear(self, number: int, status: int, body: bytes) -> None:
        """Take an answer; a started session is stopped later. Raises BenchError for a refusal."""
        kind = self._kinds.pop(number)
        if status not in (200, 201):
            raise BenchError(f"soak: a {kind} was answered {status}: {body[:200].decode(errors='replace')}")
        self.answers[kind] += 1
        if kind == "start":
            driver = self._loads.drivers[(1 + number) % len(self._loads.drivers)]
            self._running.append((orjson.loads(body)["id"], driver))

    def _stop(self, number: int) -> bytes:
        session, driver = self._running.popleft()
        headers = {"Authorization": f"Bearer {driver}", "Idempotency_Key": f"soak-stop-{number:012d}"}
        return requests.post(self._url, f"/v1/sessions/{session}/stop", {}, **headers)

    def _check(self, number: int) -> bytes:
        seen = {
            "plate": requests.plate(max(1, number - 200)),
            "vehicle_class": "car",
            "zone": self._zones[number % len(self._zones)],
            "captured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        headers = {"Authorization": f"Bearer {self._loads.warden}", "Idempotency_Key": f"soak-check-{number:012d}"}
        return requests.post(self._url, "/v1/enforcement/checks", seen, **headers)


def judge(samples: Sequence[Sample]) -> dict[str, Any]:
    """From samples to a verdict. Raises BenchError where there are too few for a slope.

    `rise_mb` is what the fitted line of the worker that grows most rises in the time that is looked at.
    """
    if not samples:
        raise BenchError("soak: memory was never read")
    warm = [sample for sample in samples if sample.at >= WARM_SHARE * samples[-1].at]
    if len(warm) < 3:
        raise BenchError(f"soak: {len(warm)} readings of a warm service tell no slope: soak longer")
    workers = range(len(samples[0].bytes))
    rises = [_rise([sample.at for sample in warm], [sample.bytes[n] / MB for sample in warm]) for n in workers]
    most = max(size for sample in samples for size in sample.bytes) / MB
    span = warm[-1].at - warm[0].at
    return {
        "most_mb": round(most, 1),
        "mean_mb": round(fmean(size for sample in warm for size in sample.bytes) / MB, 1),
        "rise_mb": round(max(rises), 2),
        "rise_mb_an_hour": round(max(rises) / span * 3600, 1),
        "targets": {
            "most_mb": {"at_most": MOST_MB, "met": most <= MOST_MB},
            "rise_mb": {"at_most": MOST_RISE_MB, "met": max(rises) <= MOST_RISE_MB},
        },
        "met": most <= MOST_MB and max(rises) <= MOST_RISE_MB,
        "samples": [
            {"seconds": round(one.at, 1), "workers_mb": [round(size / MB, 1) for size in one.bytes]} for one in samples
        ],
    }


def _rise(at: Sequence[float], sizes: Sequence[float]) -> float:
    """How much the least-squares line rises from the first to the last instant."""
    return linear_regression(at, sizes).slope * (at[-1] - at[0])


def show(found: Mapping[str, Any], console: Console) -> None:
    """Print a run for people: some ten of the readings, then the verdict."""
    table = Table(title=f"bench core --soak: {found['minutes']:g} minutes, {found['rate']:g} requests a second")
    for heading in ("s", *(f"worker {n + 1} MB" for n in range(found["workers"]))):
        table.add_column(heading, justify="right")
    step = math.ceil(len(found["samples"]) / 12)
    for sample in found["samples"][::step]:
        table.add_row(f"{sample['seconds']:.0f}", *(f"{size:.1f}" for size in sample["workers_mb"]))
    console.print(table)
    console.print(", ".join(f"{kind} {number:,}" for kind, number in found["answers"].items()))
    for name, words in (("most_mb", "largest worker"), ("rise_mb", f"rise (the first {WARM_SHARE:.0%} left out)")):
        target = found["targets"][name]
        verdict = "met" if target["met"] else "missed"
        console.print(f"{words}: {found[name]:.1f} MB (target at most {target['at_most']:g}: {verdict})")

"""One fault under load: replay, break, mend, wait for the counts, count what was lost, audit."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from app.stack.machine import PROJECT
from app.stack.processes import wait_until
from bench.errors import BenchError
from bench.faults import oracle, traffic
from bench.faults.kinds import Fault
from bench.faults.site import OPENS, PATIENCE, Site, hold
from bench.faults.strike import BUSY, Strike
from simulator.auditor import audit

RATE = 100.0  # vehicles a second, each of some 2.4 requests
FLOWING = 100  # sessions after which the traffic is taken to flow
BEFORE_SECONDS, AFTER_SECONDS = 2.5, 6.0
CLIENT_TIMEOUT, CLIENT_TRIES = 5.0, 20
# The promises, in real seconds.
SETTLED_SECONDS, RECOVERED_SECONDS, ANSWERED_SECONDS = 5.0, 5.0, 2.0


@dataclass
class Result:
    """What a fault did. `struck` is what was seen of it (None: nothing), `in_flight` are the requests without an answer
    at that instant, `errors` tries that were no success, by kind in `errors_by_kind`; `recovered_s` is when the last of
    them ended, after the fault did; `settled_s` how long after the traffic the counts took to agree."""

    name: str
    struck: str | None = None
    requests: int = 0
    in_flight: int = 0
    errors: int = 0
    errors_by_kind: dict[str, int] = field(default_factory=dict)
    slowest_503_s: float | None = None
    unanswered: int = 0
    recovered_s: float | None = None
    settled_s: float | None = None
    starts: int = 0
    retried: int = 0
    lost: int = 0
    doubled: int = 0
    divergences: int = 0
    violations: list[str] = field(default_factory=list)
    skipped: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Span:
    """When the fault struck and ended (seconds since 1970), and what shows that it did strike."""

    struck: float
    ended: float
    proof: str | None


def run(
    site: Site,
    fault: Fault,
    plates: traffic.Plates,
    chance: random.Random,
    rate: float = RATE,
    *,
    after: float = AFTER_SECONDS,
    slack: float = 1.0,
) -> Result:
    """Try one fault, under `rate` vehicles a second that go on for `after` seconds. The seconds that are promised count
    `slack` times, for a machine that does other work. Raises BenchError where it could not be done as meant."""
    site.empty()
    path, record = site.folder / f"{fault.name}.jsonl", site.folder / f"{fault.name}.answers"
    seconds = BEFORE_SECONDS + (fault.seconds or 0.0) + after
    traffic.write(path, OPENS, site.city.zones, plates, chance, seconds, rate)
    with replaying(site, path, record) as figures:
        span = _break(site, fault, chance)
    result = _result(fault, figures, span, record)
    _settle(site, result, slack)
    _examine(site, record, result)
    judge(fault, figures, result, slack)
    return result


def _settle(site: Site, result: Result, slack: float) -> None:
    """Wait until all counts and copies agree, but no longer than was promised."""
    began, wrong = time.monotonic(), ["nobody looked"]

    def agree() -> bool:
        wrong[:] = oracle.copies_that_differ(site.database_url, site.stack.redis_url)
        return not wrong

    wait_until(agree, SETTLED_SECONDS * slack)
    result.settled_s = round(time.monotonic() - began, 2)
    result.violations += [f"a count is wrong: {one}" for one in wrong[:3]]


def _break(site: Site, fault: Fault, chance: random.Random) -> _Span:
    """Break and mend it once traffic flows."""
    if not wait_until(lambda: site.starts() >= FLOWING, PATIENCE):
        raise BenchError("no traffic came")
    return strike(site, fault, chance)


def strike(site: Site, fault: Fault, chance: random.Random, busy: int = BUSY) -> _Span:
    """Break and mend it, at an instant at which so many transactions of the service are under way."""
    mark = Strike(site, busy)
    with fault.begin(site, chance, mark):
        hold(fault.seconds or 0.0)
        ended = time.time()
    # Where something must be started again, it is away until that is done.
    return _Span(mark.at, ended if fault.seconds is None else time.time(), mark.proof)


@contextmanager
def replaying(site: Site, trace: Path, record: Path, tries: int = CLIENT_TRIES) -> Iterator[dict[str, Any]]:
    """The replayer in a process of its own, beside the block and until it is through; its figures are there then."""
    command = [sys.executable, "-m", "app.cli", "simulate", "replay", str(trace), "--url", site.service.url]
    command += ["--keys", str(site.service.keys_path), "--answers", str(record), "--align", "now", "--json"]
    command += ["--timeout", str(CLIENT_TIMEOUT), "--tries", str(tries)]
    figures: dict[str, Any] = {}
    with (site.folder / "replay.log").open("w") as log:
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment)
        try:
            yield figures
            output, _ = child.communicate(timeout=2 * PATIENCE)
        except BaseException:
            child.kill()
            child.communicate()
            raise
    if not output:
        raise BenchError(f"the replay gave nothing: see {log.name}")
    figures.update(json.loads(output))


def _result(fault: Fault, figures: dict[str, Any], span: _Span, record: Path) -> Result:
    failed = figures["failed_tries"]
    answers = oracle.read(record)
    last = max((kind["last"] for kind in failed.values()), default=span.ended)
    slowest = [kind["longest_s"] for name, kind in failed.items() if name.startswith("503")]
    return Result(
        fault.name,
        struck=span.proof,
        requests=figures["requests"],
        in_flight=sum(1 for answer in answers if answer.sent <= span.struck <= answer.answered),
        errors=sum(kind["count"] for kind in failed.values()),
        errors_by_kind={name: kind["count"] for name, kind in sorted(failed.items())},
        slowest_503_s=max(slowest, default=None),
        unanswered=sum(number for status, number in figures["answers"].items() if status == "0" or status >= "5"),
        recovered_s=round(max(0.0, last - span.ended), 2),
        violations=[] if any(answer.sent > span.ended + 1 for answer in answers) else ["no traffic after the fault"],
    )


def _examine(site: Site, record: Path, result: Result) -> None:
    """The starts against the rows, the whole run by the auditor."""
    found = oracle.examine(site.database_url, oracle.read(record))
    result.starts, result.retried = found.answered, found.retried
    result.lost, result.doubled = found.lost, found.doubled
    reader = site.stack.reader_url(site.database)
    audited = audit([record], site.service.keys_path, base_url=site.service.url, database_url=reader)
    result.divergences = audited.verdict.divergences
    result.violations += [str(one) for one in audited.verdict.kept[:5]]


def judge(fault: Fault, figures: dict[str, Any], result: Result, slack: float = 1.0) -> None:
    """Every promise that was broken, in words."""
    wrong = result.violations
    if result.struck is None:
        wrong.append("nothing shows that the fault struck")
    if not result.in_flight:
        wrong.append("no request was in flight when the fault struck")
    wrong += [f"no try ended in {kind}" for kind in sorted(fault.must - set(result.errors_by_kind))]
    for kind, number in result.errors_by_kind.items():
        if kind not in fault.may:
            wrong.append(f"{number} tries ended in {kind}")
    if result.slowest_503_s is not None and result.slowest_503_s > ANSWERED_SECONDS * slack:
        wrong.append(f"a 503 came after {result.slowest_503_s:.2f} s")
    if result.recovered_s is not None and result.recovered_s > RECOVERED_SECONDS * slack:
        wrong.append(f"the last failure came {result.recovered_s:.1f} s after the fault")
    if figures["partial"] or result.unanswered:
        wrong.append(f"{result.unanswered} requests had no answer at all")
    wrong += [f"{number} starts {name}" for name in ("lost", "doubled") if (number := getattr(result, name))]

"""Real servers under real load, broken one thing at a time (bench/faults): nothing lost, doubled or wrong.

Every fault that there is with `./iparking test --deep`; the rest of the suite tries the ones that differ most. Their
order is random, by a seed that is printed and may be given again (IPARKING_TEST_SEED).
"""

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from app.stack.processes import wait_until
from app.testing import SEED
from bench.errors import BenchError
from bench.faults import THREADS, WORKERS, in_order, kinds, oracle, small_disk, strike, traffic, trial
from bench.faults.kinds import BY_NAME, FAULTS, Fault
from bench.faults.site import OPENS, Site, open_site
from tests.stack.conftest import as_root, make_home, open_place, remove_home

DEEP = bool(os.environ.get("IPARKING_TEST_DEEP"))
RATE = 50.0
CHANCE = random.Random(int(os.environ.get(SEED, "1")))
ORDER = in_order([fault for fault in FAULTS if not fault.own_disk and (fault.short or DEEP)], CHANCE)
SIGNALS = (
    "api_worker_killed", "api_process_stopped", "clock_jump_restart", "postgresql_killed", "postgresql_backend_killed",
    "postgresql_stopped", "redis_killed", "redis_stopped",
)  # fmt: skip
# For the suite, which shares its machine with the other tests: the seconds that are promised, so many times. The exact
# ones are those of `./iparking bench faults`. What is lost, doubled, wrong or hangs has no slack.
SLACK, AFTER_SECONDS = (1.0, trial.AFTER_SECONDS) if DEEP else (3.0, 4.0)
DRAIN_SECONDS = 10.0
PATIENCE = 30.0


@pytest.fixture(scope="module")
def plates() -> traffic.Plates:
    return traffic.Plates()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Servers that may be broken, with the shipped city."""
    with open_place() as place:
        home = make_home(place)
        try:
            with open_site(home, WORKERS, THREADS) as site:
                yield site
        finally:
            remove_home(home)


@pytest.mark.parametrize("fault", ORDER, ids=lambda fault: fault.name)
def test_nothing_is_lost_doubled_or_wrong(site: Site, plates: traffic.Plates, fault: Fault) -> None:
    result = trial.run(site, fault, plates, random.Random(fault.name), RATE, after=AFTER_SECONDS, slack=SLACK)
    assert result.violations == []
    assert result.struck and result.in_flight > 0, "it struck, and in the middle of the load"
    assert result.starts > 100 and result.requests > 200, "there was a load to harm"


def violations_of(site: Site, name: str) -> list[str]:
    """What is said of a fault that is tried for a moment, without load."""
    fault = replace(BY_NAME[name], seconds=0.3)
    span = trial.strike(site, fault, random.Random(1), busy=0)
    result = trial.Result(name, struck=span.proof, in_flight=1)
    trial.judge(fault, {"partial": False}, result)
    return result.violations


@pytest.mark.parametrize("name", SIGNALS)
def test_a_fault_whose_signals_go_nowhere_is_a_violation(
    site: Site, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(kinds, "send", lambda pid, number: None)
    monkeypatch.setattr(kinds, "ENDS_SECONDS", 0.1)
    assert "nothing shows that the fault struck" in violations_of(site, name)


@pytest.mark.parametrize(
    ("name", "means", "without_effect"),
    [
        ("clock_jump", "AN_HOUR", 0.0),
        ("connection_dropped", "BACKENDS", f"{kinds.BACKENDS} AND false"),
        ("connections_exhausted", "HOGS", 0),
        ("redis_slow", "SLOW_MS", (0, 1)),
        ("redis_flushed", "FLUSH", ("PING",)),
    ],
)
def test_a_fault_whose_means_have_no_effect_is_a_violation(
    site: Site, monkeypatch: pytest.MonkeyPatch, name: str, means: str, without_effect: object
) -> None:
    monkeypatch.setattr(kinds, means, without_effect)
    monkeypatch.setattr(kinds, "ENDS_SECONDS", 0.1)
    assert "nothing shows that the fault struck" in violations_of(site, name)


def test_no_fault_strikes_an_idle_service(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strike, "PATIENCE", 0.2)
    with pytest.raises(BenchError, match="the service was not busy"):
        strike.Strike(site).wait()


@as_root
@pytest.mark.skipif(not DEEP, reason="a second city on a disk of its own takes half a minute: --deep")
def test_a_full_disk_loses_nothing(plates: traffic.Plates) -> None:
    (fault,) = (fault for fault in FAULTS if fault.own_disk)
    with small_disk() as disk, open_site(disk / "stack", WORKERS, THREADS) as site:
        result = trial.run(site, fault, plates, random.Random(1), RATE)
    assert result.violations == [] and result.errors_by_kind.get("503", 0) > 0


def test_sigterm_answers_all_that_was_sent_and_ends_within_ten_seconds(site: Site, plates: traffic.Plates) -> None:
    """What comes later finds the door shut: it is refused or hung up on, before anything of it was done."""
    site.empty()
    path, record = site.folder / "drain.jsonl", site.folder / "drain.answers"
    traffic.write(path, OPENS, site.city.zones, plates, random.Random(5), 6.0, 2 * RATE)
    try:
        with trial.replaying(site, path, record, tries=1):
            assert wait_until(lambda: site.starts() >= trial.FLOWING, PATIENCE)
            asked = time.time()
            os.kill(site.service.main(), signal.SIGTERM)
            assert wait_until(lambda: "api" in site.service.dead(), DRAIN_SECONDS)
            assert time.time() - asked <= DRAIN_SECONDS
    finally:
        site.service.stop()
        site.service.start()
    answers = oracle.read(record)
    before = [answer for answer in answers if answer.sent < asked]
    after = [answer for answer in answers if answer.sent >= asked]
    assert {answer.status for answer in before} <= {200, 201, 409}, "every request that was sent has its answer"
    assert after and any(answer.status == 0 for answer in after), "it did end while traffic came"
    found = oracle.examine(site.database_url, answers)
    assert (found.lost, found.doubled) == (0, 0)
    unanswered = {answer.key for answer in answers if answer.action == "start" and answer.status == 0}
    with site.connect() as connection:
        query = "SELECT count(*) FROM active_session WHERE idempotency_key = ANY(%s)"
        assert connection.execute(query, (list(unanswered),)).fetchone() == (0,), "who was not answered is not parked"

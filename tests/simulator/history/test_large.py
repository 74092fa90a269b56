"""Long histories are decided too, by the bounds and by the search: 20,000 operations, with --deep a million."""

import os
import time
from collections.abc import Iterator
from random import Random

import pytest

from simulator import history
from simulator.history import Operation, ZoneModel

LENGTH = 1_000_000 if os.environ.get("IPARKING_TEST_DEEP") else 20_000
ZONES, PLATES, CAPACITY = 8, 400, 20
STEP, SPREAD = 1_000, 12_000  # some dozen calls overlap any one


def crowd(length: int, random: Random) -> Iterator[Operation]:
    """A service that does one thing every STEP nanoseconds, each called and answered some time around it."""
    standing: dict[str, tuple[str, str]] = {}
    counts = dict.fromkeys((f"Z-{number}" for number in range(ZONES)), 0)
    for number in range(length):
        plate, zone = f"plate {random.randrange(PLATES)}", random.choice(list(counts))
        instant = SPREAD + number * STEP
        called, answered = instant - random.randrange(SPREAD), instant + random.randrange(SPREAD)
        session = None
        if plate in standing and random.random() < 0.7:
            zone, session = standing.pop(plate)
            counts[zone] -= 1
            yield Operation("stop", "done", called, answered, zone, "car", plate, session=session)
            continue
        outcome = "already_parked" if plate in standing else "zone_full" if counts[zone] >= CAPACITY else "done"
        if outcome == "done":
            session = f"session {number}"
            standing[plate] = zone, session
            counts[zone] += 1
        yield Operation("start", outcome, called, answered, zone, "car", plate, session=session)


@pytest.mark.parametrize("exact", [True, False])
def test_long_history_is_decided_and_one_lost_stop_in_it_is_found(exact: bool):
    operations = list(crowd(LENGTH, Random(7)))
    zones = {(f"Z-{number}", "car"): ZoneModel(CAPACITY) for number in range(ZONES)}
    began = time.monotonic()
    assert history.check(operations, zones, exact=exact).violations == []
    took = time.monotonic() - began
    print(f"\n{LENGTH:,} operations, {'searched' if exact else 'bounds only'}: {took:.1f} s")
    lost = next(number for number in range(LENGTH // 2, LENGTH) if operations[number].action == "stop")
    found = history.check(operations[:lost] + operations[lost + 1 :], zones, exact=False)
    assert "two_sessions_at_once" in {violation.rule for violation in found.violations}

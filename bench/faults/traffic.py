"""Traffic for one fault: short stays that start, extend, are checked and stop, some in zones that are full."""

import random
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import count
from pathlib import Path

from simulator import trace
from simulator.city import Zone
from simulator.trace import Event

SPEED = 60.0  # of the service's clock: stays end, and cost something, within seconds
LETTERS = "ABCDEFGHKLMNPSTUVXYZ"
NUMBERS = 100_000
# Of the starts, the share that goes to the smallest strict zones, which are soon full; of the vehicles, the share whose
# plate is sent a second time while it is parked, that extends, that a warden checks.
CROWDED, TWICE, EXTENDS, CHECKED = 0.12, 0.03, 0.15, 0.15
SMALLEST = 4
# Vehicles come in platoons, as a traffic light lets them go: so many at the same instant.
PLATOON = 16


class Plates:
    """Plates of cars, each once: whoever is parked from an earlier fault is in nobody's way."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def next(self) -> str:
        """Another plate."""
        letter, number = divmod(next(self._numbers), NUMBERS)
        return f"30{LETTERS[letter]}-{number // 100:03d}.{number % 100:02d}"


def write(
    path: Path,
    start: datetime,
    zones: Sequence[Zone],
    plates: Plates,
    chance: random.Random,
    seconds: float,
    rate: float,
) -> int:
    """Write a trace of `seconds` real seconds with `rate` vehicles a second on average; the number of its events."""
    cars = [zone for zone in zones if zone.serves("car")]
    small = sorted((zone for zone in cars if zone.strict), key=lambda zone: (zone.capacity["car"], zone.code))
    events: list[Event] = []
    at, number = 0.0, 0
    while (at := at + chance.expovariate(rate / PLATOON)) < seconds:
        for _ in range(PLATOON):
            number += 1
            zone = chance.choice(small[:SMALLEST] if chance.random() < CROWDED else cars)
            events += _stay(f"v{number}", plates.next(), zone.code, at, chance)
    events.sort(key=lambda event: event.t)
    return trace.write(path, trace.header(seed=0, origin="faults", start=start), events)


def _stay(vehicle: str, plate: str, zone: str, at: float, chance: random.Random) -> Iterator[Event]:
    """One vehicle's events; `at` and stays are in real seconds."""
    leaves = at + 0.2 + min(chance.expovariate(0.5), 6.0)
    minutes = chance.choice([None, None, 2, 10, 30, 60])

    def event(real: float, vehicle: str, action: str, minutes: int | None = None) -> Event:
        return Event(real * SPEED, vehicle, plate, "car", zone, action, minutes)  # type: ignore[arg-type]

    yield event(at, vehicle, "start", minutes)
    between = chance.uniform(at, leaves)
    if minutes is not None and chance.random() < EXTENDS:
        yield event(between, vehicle, "extend", 10)
    if chance.random() < CHECKED:
        yield event(between, f"{vehicle}-check", "check")
    if chance.random() < TWICE:
        yield event(between, f"{vehicle}-again", "start")
    yield event(leaves, vehicle, "stop")

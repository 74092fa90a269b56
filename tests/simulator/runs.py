"""Short traces, keys and replays for the tests of the replayer and the auditor."""

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from simulator import trace
from simulator.replay import Plan, replay
from simulator.trace import Event

START = "2026-11-23T07:00:00+07:00"
KEYS = {"driver": "d", "warden": "w", "operator": "o", "planner": "p", "drivers": ["d0", "d1", "d2"]}


def event(t: float, vehicle: str, action: str, zone: str = "ADV-1", minutes: int | None = None, **more: Any) -> Event:
    """An event of a car whose plate follows from its name (`v1` has 30A-000.01), unless `plate` says otherwise."""
    plate = more.pop("plate", f"30A-000.{int(vehicle[1:]):02d}")
    return Event(t, vehicle, plate, more.pop("vehicle_class", "car"), zone, action, minutes)  # type: ignore[arg-type]


def write_trace(folder: Path, events: Iterable[Event], start: str = START) -> Path:
    path = folder / "trace.jsonl"
    trace.write(path, trace.header(seed=1, origin="test", start=datetime.fromisoformat(start)), events)
    return path


def write_keys(folder: Path) -> Path:
    path = folder / "keys.json"
    path.write_text(json.dumps(KEYS))
    return path


def plan(folder: Path, url: str, events: Iterable[Event], **more: Any) -> Plan:
    return Plan(write_trace(folder, events), url, write_keys(folder), folder / "answers.jsonl", quiet=True, **more)


def run(folder: Path, url: str, events: Iterable[Event], **more: Any) -> dict[str, Any]:
    """Replay the events on the service at `url` and give the figures; the record is answers.jsonl."""
    return replay(plan(folder, url, events, **more))

"""Recorded traffic: readings of parking spaces, from the event CSV form or from CDS events as JSON.

Event CSV form: UTF-8, a header line, then one reading a line in any order:

    space_id,epoch_ms,occupied,utc
    Parking_18,1516036323483,1,2018-01-15T17:12:03.483Z

`occupied` is 1 when a vehicle came and 0 when it left; `utc` may be left out, and must be the same instant where it is
there; further columns are not looked at.

CDS form: an array of events, an object with `events`, or one with `data.events` (an answer of the Events API);
`park_start` and `park_end` are taken, at `event_time` (ms), by `curb_space_id`, else by `event_session_id`.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from simulator.trace import InputError, explain, open_input

COLUMNS = ("space_id", "epoch_ms", "occupied")
LATEST_MS = 4_102_444_800_000  # 2100-01-01
LONGEST_ID = 64
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
OCCUPIED = {"park_start": True, "park_end": False}


class Reading(NamedTuple):
    """At `ms` (since 1970) a space became occupied or free."""

    ms: int
    space: str
    occupied: bool


@dataclass(frozen=True)
class Readings:
    """The readings of a file in order of time; how many were sent twice (same CDS event id) or are of other types."""

    readings: list[Reading]
    repeated: int = 0
    other: int = 0


class _CurbEvent(msgspec.Struct, frozen=True):
    """The fields of a CDS event that are used here (CDS 1.0.1 and 1.1, Events API)."""

    event_id: str
    event_type: str
    event_time: int
    curb_space_id: str | None = None
    event_session_id: str | None = None


def read(path: str | Path) -> Readings:
    """The readings of a file of either form ("-" is standard input, .gz is unpacked).

    Raises InputError at the first fault, with line (or index), field and rule.
    """
    with open_input(path) as file:
        head = file.peek(64)[:64].lstrip()
        return read_cds(file.read(), str(path)) if head[:1] in (b"{", b"[") else read_csv(file, str(path))


def read_csv(file: Iterable[bytes], source: str) -> Readings:
    """Readings in the event CSV form."""
    rows = csv.reader(_text(file, source), strict=True)
    readings = []
    try:
        columns = _columns(next(rows, []), source)
        for row in rows:
            if row:
                readings.append(_row(row, columns, source, rows.line_num))
    except csv.Error as error:
        raise InputError(source, rows.line_num, None, f"not CSV ({error})") from None
    return Readings(sorted(readings, key=lambda reading: reading.ms))


def _text(file: Iterable[bytes], source: str) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise InputError(source, number, None, "not UTF-8") from None


def _columns(header: list[str], source: str) -> list[str]:
    for name in COLUMNS:
        if name not in header:
            raise InputError(source, 1, name, f"the column is missing; the header line is {','.join(COLUMNS)},utc")
    return header


def _row(row: list[str], columns: list[str], source: str, line: int) -> Reading:
    if len(row) != len(columns):
        raise InputError(source, line, None, f"{len(row)} values, but {len(columns)} columns")
    values = dict(zip(columns, row, strict=True))
    try:
        space = _space(values["space_id"])
        ms = _ms(values["epoch_ms"])
        occupied = _flag(values["occupied"])
        if "utc" in values:
            _same_instant(values["utc"], ms)
    except _Fault as fault:
        raise InputError(source, line, *fault.args) from None
    return Reading(ms, space, occupied)


class _Fault(Exception):
    """(field, rule) of a value that breaks a rule."""


def _space(text: str) -> str:
    if not 1 <= len(text) <= LONGEST_ID:
        raise _Fault("space_id", f"1 to {LONGEST_ID} characters")
    return text


def _ms(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(LATEST_MS)) and int(text) < LATEST_MS):
        raise _Fault("epoch_ms", f"{text[:40]!r} is not milliseconds since 1970 (before 2100)")
    return int(text)


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise _Fault("occupied", f"{text[:40]!r} is neither 0 nor 1")
    return text == "1"


def _same_instant(text: str, ms: int) -> None:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise _Fault("utc", f"{text[:40]!r} is not an RFC 3339 instant") from None
    if instant.tzinfo is None:
        raise _Fault("utc", "the offset is missing")
    if instant - EPOCH != timedelta(milliseconds=ms):
        raise _Fault("utc", f"{text} is not the instant of epoch_ms")


def read_cds(data: bytes, source: str) -> Readings:
    """Readings from CDS events. One may be there twice: publishers send again after a lost connection."""
    seen: set[str] = set()
    readings, repeated, other = [], 0, 0
    for index, raw in enumerate(_events(data, source)):
        event = _event(raw, index, source)
        if event.event_id in seen:
            repeated += 1
        elif event.event_type not in OCCUPIED:
            other += 1
        else:
            readings.append(_reading(event, index, source))
        seen.add(event.event_id)
    return Readings(sorted(readings, key=lambda reading: reading.ms), repeated, other)


def _events(data: bytes, source: str) -> list[Any]:
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(source, _line_of(error, data), None, f"not JSON ({error})") from None
    if isinstance(document, dict) and isinstance(document.get("data"), dict):
        document = document["data"]
    events = document.get("events") if isinstance(document, dict) else document
    if not isinstance(events, list):
        raise InputError(source, None, "events", "an array of CDS events is expected")
    return events


def _line_of(error: Exception, data: bytes) -> int | None:
    place = re.search(r"\(byte (\d+)\)", str(error))
    return data.count(b"\n", 0, int(place.group(1))) + 1 if place else None


def _event(raw: Any, index: int, source: str) -> _CurbEvent:
    try:
        event = msgspec.convert(raw, _CurbEvent)
    except msgspec.ValidationError as error:
        field, rule = explain(error)
        raise InputError(source, None, f"events[{index}]" + (f".{field}" if field else ""), rule) from None
    if not 0 <= event.event_time < LATEST_MS:
        raise InputError(source, None, f"events[{index}].event_time", "milliseconds since 1970 (before 2100)")
    return event


def _reading(event: _CurbEvent, index: int, source: str) -> Reading:
    space = event.curb_space_id or event.event_session_id
    if not space:
        rule = "curb_space_id or event_session_id is needed to find the end that belongs to a start"
        raise InputError(source, None, f"events[{index}].curb_space_id", rule)
    return Reading(event.event_time, space, OCCUPIED[event.event_type])

"""Traces: what vehicles do and when, as JSON Lines (one header line, then one event a line, in order of time).

    {"trace": 1, "seed": 7, "origin": "demand", "start": "2026-11-23T07:00:00+07:00", "seconds": 10800.0}
    {"t": 12.5, "vehicle": "v000001", "plate": "30A-123.45", "class": "car", "zone": "HK-001", "action": "start",
     "minutes": 60}

(the event on one line). `t` is seconds of business time after the header's `start`. `vehicle` says which vehicle an
event is about and chains its events: the next one waits for the answer to the one before. `plate` is what the client
sends: for a check it is what the warden typed, which may not be the plate that the vehicle carries. `minutes` is the
prepaid time of a start (null: it runs until stopped) or the time that an extend adds, and null for a stop and a check.

Readers and writers stream: a trace of any length passes through a few kilobytes. Files that end in .gz are compressed.
"""

import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, BinaryIO, Literal, Self, cast

import msgspec

MAX_LINE = 64 * 1024
BUFFER = 256 * 1024
STDIN = "standard input"
GZIP_MAGIC = b"\x1f\x8b"

Action = Literal["start", "stop", "extend", "check"]
VehicleClass = Literal["car", "motorbike"]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=10 * 366 * 86400)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Minutes = Annotated[int, msgspec.Meta(ge=1, le=60 * 24 * 366)]


class InputError(Exception):
    """A line of an input file breaks a rule. Says where it is, which field it concerns and what the rule is."""

    def __init__(self, source: str, line: int | None, field: str | None, rule: str) -> None:
        self.source, self.line, self.field, self.rule = source, line, field, rule
        where = source if line is None else f"{source}, line {line}"
        super().__init__(f"{where}: {rule}" if field is None else f"{where}, {field}: {rule}")


class TrafficError(ValueError):
    """No trace can be made of what was asked; the text says why."""


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The first line: which form, from which seed, from where, and the business instant at which t is 0.

    `seconds` is the length of the window that the trace covers; what still runs then has no further event.
    """

    trace: Literal[1]
    seed: int
    origin: str
    start: str
    seconds: Seconds | None = None
    city: str | None = None
    parameters: str | None = None

    @property
    def start_at(self) -> datetime:
        """The business instant of t = 0 (aware)."""
        return datetime.fromisoformat(self.start)

    def instant(self, t: float) -> datetime:
        """The business instant `t` seconds after the start (aware)."""
        return self.start_at + timedelta(seconds=t)


class Event(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, rename={"vehicle_class": "class"}):
    """One thing that one vehicle does, or that a warden does with it."""

    t: Seconds
    vehicle: Name
    plate: Name
    vehicle_class: VehicleClass
    zone: Name
    action: Action
    minutes: Minutes | None


def header(*, seed: int, origin: str, start: datetime, seconds: float | None = None, **more: str) -> Header:
    """A header of the present version; `start` must carry its offset."""
    if start.tzinfo is None:
        raise ValueError("the start of a trace carries its offset")
    return Header(trace=1, seed=seed, origin=origin, start=start.isoformat(), seconds=seconds, **more)


class TraceReader:
    """An open trace: `.header`, then the events by iteration, once, each checked. Close it, or use it in a `with`."""

    def __init__(self, path: str | Path) -> None:
        """Open `path` ("-" is standard input) and read the header. Raises InputError where it is none."""
        self.source = _name(path)
        self._file = open_input(path)
        try:
            self.header = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Event]:
        """The events in order. Raises InputError at the first line that is not one, naming line, field and rule."""
        decode = msgspec.json.Decoder(Event).decode
        last = 0.0
        for number, line in self._lines(first=2):
            try:
                event = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise self._explained(error, number) from None
            if event.t < last:
                raise InputError(
                    self.source, number, "t", f"{event.t:g} is before the event on the line above ({last:g})"
                )
            last = event.t
            if (event.minutes is not None) != (event.action == "extend") and event.action != "start":
                raise InputError(self.source, number, "minutes", _minutes_rule(event.action))
            yield event

    def _read_header(self) -> Header:
        for number, line in self._lines(first=1):
            try:
                read = msgspec.json.decode(line, type=Header)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise self._explained(error, number) from None
            _check_start(read, self.source)
            return read
        raise InputError(self.source, 1, None, "the file is empty; a header line is expected")

    def _lines(self, first: int) -> Iterator[tuple[int, bytes]]:
        read = self._file.readline
        number = first
        while line := read(MAX_LINE):
            if len(line) == MAX_LINE and not line.endswith(b"\n"):
                raise InputError(self.source, number, None, f"a line has at most {MAX_LINE - 1} bytes")
            yield number, line
            number += 1

    def _explained(self, error: Exception, number: int) -> InputError:
        field, rule = explain(error)
        return InputError(self.source, number, field, rule)


def explain(error: Exception) -> tuple[str | None, str]:
    """(field or None, rule) of what msgspec found wrong with one JSON value."""
    if isinstance(error, UnicodeDecodeError):
        return None, "not UTF-8"
    text, _, place = str(error).partition(" - at `$.")
    missing = re.search(r"(?:missing required|contains unknown) field `(.+?)`", text)
    field = place.rstrip("`") or (missing.group(1) if missing else None)
    return field, text if isinstance(error, msgspec.ValidationError) else f"not one JSON object on a line ({text})"


def write(path: str | Path, header: Header, events: Iterable[Event]) -> int:
    """Write a trace to `path` ("-" is standard output, .gz compresses) and give the number of events.

    The file appears only when it is whole. Raises ValueError where an event is before the one above it.
    """
    encode = msgspec.json.Encoder().encode
    count, last = 0, 0.0
    with _writing(path) as out:
        out.write(encode(header) + b"\n")
        for event in events:
            if event.t < last:
                raise ValueError(f"event {count + 1} at {event.t:g} s is before the one above it ({last:g} s)")
            last = event.t
            out.write(encode(event) + b"\n")
            count += 1
    return count


def _check_start(read: Header, source: str) -> None:
    try:
        start = read.start_at
    except ValueError:
        raise InputError(source, 1, "start", f"{read.start!r} is not an RFC 3339 instant") from None
    if start.tzinfo is None:
        raise InputError(source, 1, "start", "the offset is missing")


def _minutes_rule(action: str) -> str:
    return "an extend says how many minutes it adds" if action == "extend" else f"a {action} has no minutes (null)"


class _Unpacked(io.RawIOBase):
    """The content of a gzip stream. Damage is an InputError; closing it closes the file below it."""

    def __init__(self, source: str, below: io.BufferedReader) -> None:
        self._source, self._below = source, below
        self._packed = gzip.GzipFile(fileobj=below, mode="rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._packed.read1(len(buffer))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(self._source, None, None, f"the compressed file is damaged ({error})") from None
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._below.close()
        super().close()


def open_input(path: str | Path) -> io.BufferedReader:
    """A file ("-" is standard input) as bytes, unpacked where it is gzip. Raises InputError if it cannot be opened."""
    source = _name(path)
    try:
        raw = sys.stdin.buffer if source == STDIN else io.FileIO(path)
    except OSError as error:
        raise InputError(source, None, None, error.strerror or str(error)) from None
    file: io.BufferedReader = io.BufferedReader(cast(Any, raw))
    if not file.peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC):
        return file
    return io.BufferedReader(_Unpacked(source, file), BUFFER)


def _name(path: str | Path) -> str:
    return STDIN if str(path) == "-" else str(path)


@contextmanager
def _writing(path: str | Path) -> Iterator[BinaryIO]:
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = Path(f"{path}.part")
    try:
        with part.open("wb") as raw:
            if str(path).endswith(".gz"):
                # No name and no time in the gzip header: the same seed gives the same bytes.
                with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0, compresslevel=6) as packed:
                    yield cast(BinaryIO, packed)
            else:
                yield raw
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)

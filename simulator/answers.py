"""The record of a run: every request with what came of it, as JSON Lines for the auditor and the report.

The first line is a header (which service, which trace, how its clock ran, which zones it had), then one array a request
in the order in which the answers came, and last a line that says how the run ended. Where that line is missing, the run
was cut off. Real instants are seconds since 1970 by the client's clock; business instants are microseconds since 1970.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

import msgspec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
T = TypeVar("T")


class AnswersError(ValueError):
    """An answers file is not one; the text says where and why."""


def microseconds(instant: str) -> int:
    """An RFC 3339 instant with offset as microseconds since 1970. Raises ValueError where it is none."""
    moment = datetime.fromisoformat(instant)
    if moment.tzinfo is None:
        raise ValueError(f"{instant!r} has no offset")
    return (moment - _EPOCH) // _MICROSECOND


def rfc3339(business: int) -> str:
    """Microseconds since 1970 as an RFC 3339 instant in UTC."""
    return (_EPOCH + timedelta(microseconds=business)).isoformat()


class Clock(msgspec.Struct, frozen=True):
    """How the service's clock runs against ours: it showed `business` at our `real`, give or take `error` real
    seconds."""

    business: int
    real: float
    speed: float
    error: float

    def business_at(self, real: float) -> int:
        """The business instant at our real instant."""
        return self.business + round((real - self.real) * self.speed * 1e6)

    def real_at(self, business: int) -> float:
        """The real instant at which the service's clock shows `business`."""
        return self.real + (business - self.business) / 1e6 / self.speed

    @property
    def margin(self) -> int:
        """How far `business_at` may be off, in business microseconds: the reading's error, and 2 ms for two machines'
        drift."""
        return round((self.error + 0.002) * self.speed * 1e6)


class ZoneFacts(msgspec.Struct, frozen=True, gc=False):
    """A zone as the service described it before the run; `occupied` is what stood there already."""

    district: str
    street: str
    rate_area: str
    admission: str
    max_stay_minutes: int
    capacity: dict[str, int]
    occupied: dict[str, int]


class RunHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The first line. `start` is the business instant of the trace's t = 0."""

    answers: Literal[1] = 1
    synthetic: Literal[True] = True
    run: str
    base_url: str
    trace: str
    start: int
    clock: Clock
    drivers: int
    zones: dict[str, ZoneFacts]
    districts: dict[str, str]


class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request. `status` 0: no answer came in all `tries`, and nobody knows whether it was done."""

    due: float
    ready: float  # due, or when the same vehicle's answer before it came
    sent: float
    answered: float
    tries: int
    action: str
    plate: str
    vehicle_class: str
    zone: str
    minutes: int | None
    key: str
    driver: int
    session: str | None  # which session a stop or an extend was about
    captured_at: int | None
    status: int
    body: str


class RunEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The last line: `partial` where the run was broken off."""

    end: Literal[1] = 1
    partial: bool
    events: int
    requests: int
    skipped: int


class AnswersWriter:
    """Writes one run to a file, buffered; `close` with the ending makes it whole."""

    def __init__(self, path: str | Path, header: RunHeader) -> None:
        self._file = Path(path).open("wb", buffering=1 << 18)  # noqa: SIM115 (closed by close)
        self._encode = msgspec.json.Encoder().encode
        self._file.write(self._encode(header) + b"\n")

    def write(self, answer: Answer) -> None:
        self._file.write(self._encode(answer))
        self._file.write(b"\n")

    def close(self, ending: RunEnd | None) -> None:
        """Without an ending the file says, by its lack, that the run was cut off."""
        if ending is not None:
            self._file.write(self._encode(ending) + b"\n")
        self._file.close()


class AnswersReader:
    """An open record: `.header`, then the answers by iteration, once; `.ending` is known after the last."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.ending: RunEnd | None = None
        try:
            self._file = Path(path).open("rb")  # noqa: SIM115 (closed by __exit__)
        except OSError as error:
            raise AnswersError(f"{path}: {error.strerror}") from None
        self.header = self._decode(self._file.readline(), RunHeader, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Answer]:
        decoder = msgspec.json.Decoder(Answer)
        for number, line in enumerate(self._file, start=2):
            if line.startswith(b"{"):
                self.ending = self._decode(line, RunEnd, number)
                return
            try:
                yield decoder.decode(line)
            except msgspec.DecodeError as error:
                raise AnswersError(f"{self.path}, line {number}: {error}") from None

    def _decode(self, line: bytes, kind: type[T], number: int) -> T:
        try:
            return msgspec.json.decode(line, type=kind)
        except msgspec.DecodeError as error:
            raise AnswersError(f"{self.path}, line {number}: {error}") from None

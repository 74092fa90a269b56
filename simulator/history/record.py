"""What was asked and what was answered, and when: the operations of a history.

Instants are nanoseconds of the monotonic clock, which all processes of one machine share. The service carried an
operation out at some instant between `invoked` and `returned`. One that got no answer, or a 5xx, may have been carried
out at any time since, or never: its outcome is MAYBE and it has no `returned`.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from simulator.answers import Answer, microseconds

DONE = "done"
MAYBE = "maybe"
# Refusals that say nothing about a zone or a plate, and change nothing.
WITHOUT_EFFECT = frozenset({"request_in_progress"})


class Operation(msgspec.Struct, frozen=True, array_like=True, gc=False, omit_defaults=True):
    """One call and its answer.

    `action` is one of start, stop, extend, look (GET of a session), count (a zone's availability), and, though nobody
    calls them over this interface, capacity (a zone's places were changed) and expiry (a session's time was over).
    `outcome` is DONE, MAYBE, a refusal's code, or for a look the state that was answered.
    """

    action: str
    outcome: str
    invoked: int
    returned: int | None
    zone: str
    vehicle_class: str
    plate: str = ""
    client: str = ""
    key: str | None = None
    session: str | None = None
    number: int | None = None  # count: occupied; capacity: the places from now on; extend: minutes
    ends: int | None = None  # the answered end of prepaid time, business microseconds since 1970

    @property
    def is_open(self) -> bool:
        """Whether it may have been carried out at any time since it was invoked, or never."""
        return self.returned is None


def judged(asked: Operation, returned: int, status: int, body: bytes | str) -> Operation:
    """What was asked, with what came of it. `status` is 0 where no answer came; a body that is no JSON object and a
    status of no meaning here give an outcome that no model accepts."""
    if status == 0 or status >= 500:
        return msgspec.structs.replace(asked, outcome=MAYBE, returned=None)
    try:
        document = msgspec.json.decode(body)
        facts = _facts(asked, document) if status in (200, 201) else {"outcome": str(document["code"])}
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
        facts = {"outcome": f"{status}, unreadable: {error!r}"}
    return msgspec.structs.replace(asked, returned=returned, **facts)


def _facts(asked: Operation, document: dict[str, Any]) -> dict[str, Any]:
    if asked.action == "count":
        return {"outcome": DONE, "number": document[asked.vehicle_class]["occupied"]}
    ends = document["ends_at"] and microseconds(document["ends_at"])
    outcome = document["state"] if asked.action == "look" else DONE
    return {"outcome": outcome, "session": document["id"], "ends": ends}


def of_answers(answers: Iterable[Answer]) -> Iterator[Operation]:
    """The operations of a replayed run; checks of plates are left out.

    A refusal that took several tries leaves open what became of the first ones: they are a second operation.
    """
    for answer in answers:
        if answer.action not in ("start", "stop", "extend"):
            continue
        asked = Operation(
            answer.action, MAYBE, round(answer.sent * 1e9), None, answer.zone, answer.vehicle_class, answer.plate,
            str(answer.driver), answer.key, answer.session, answer.minutes if answer.action == "extend" else None,
        )  # fmt: skip
        known = judged(asked, round(answer.answered * 1e9), answer.status, answer.body)
        yield known
        if answer.tries > 1 and known.outcome not in (DONE, MAYBE):
            yield asked


def write(path: Path, operations: Iterable[Operation]) -> None:
    """A history as JSON Lines, one array an operation."""
    encoder = msgspec.json.Encoder()
    with path.open("wb") as file:
        for operation in operations:
            file.write(encoder.encode(operation) + b"\n")


def read(paths: Iterable[Path]) -> list[Operation]:
    """The operations of several files. Raises msgspec.DecodeError."""
    decoder = msgspec.json.Decoder(Operation)
    return [decoder.decode(line) for path in paths for line in path.read_bytes().splitlines()]

"""What an import says: every bad record, or what was written."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from zones.errors import ZoneError

SHOWN = 60  # characters of a value from the file that a report repeats


def shown(value: object) -> str:
    """A value as it can stand in a report: short and on one line."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else "\ufffd" for c in text[: SHOWN + 1])
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


@dataclass(frozen=True, slots=True)
class BadRecord:
    """One thing that is wrong. `where` is `line 7`, `features[6]` or `file`; `id` is the record's code, if any."""

    where: str
    id: str | None
    field: str | None
    rule: str
    detail: str

    def __str__(self) -> str:
        place = " ".join(filter(None, (self.where, self.id, self.field)))
        return f"{place}: {self.rule}: {self.detail}"


class ImportRefused(ZoneError):
    """The file was not imported, and nothing of it: `records` says all that is wrong with it."""

    def __init__(self, records: Iterable[BadRecord]) -> None:
        self.records = list(records)
        super().__init__("\n".join(map(str, self.records)))

    def as_dict(self) -> dict[str, Any]:
        return {"records": [asdict(each) for each in self.records]}


class Problems:
    """Collects bad records, so that a report has all of them and not the first."""

    def __init__(self) -> None:
        self.records: list[BadRecord] = []

    def add(self, where: str, rule: str, detail: str, *, id: object = None, field: str | None = None) -> None:
        self.records.append(BadRecord(where, None if id is None else shown(id), field, rule, detail))

    def refuse_if_any(self) -> None:
        """Raise ImportRefused if anything was found."""
        if self.records:
            raise ImportRefused(self.records)


@dataclass(frozen=True, slots=True)
class Report:
    """How many records of the file were new, changed, changed in shape (a new version) or as they stood.

    `written` has the codes of all but the unchanged. In a dry run it is what would have been written.
    """

    kind: str
    created: int
    changed: int
    reversioned: int
    unchanged: int
    written: tuple[str, ...]
    dry_run: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"written": list(self.written)}

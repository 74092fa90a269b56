"""What an import says: every bad record, or what was written."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from billing.errors import BillingError

SHOWN = 60  # characters of a value from the file that a report repeats


def shown(value: str) -> str:
    """A value as it can stand in a report: short and on one line."""
    text = "".join(c if c.isprintable() else "\ufffd" for c in value[: SHOWN + 1])
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


@dataclass(frozen=True, slots=True)
class BadRecord:
    """One thing that is wrong. `where` is `line 7` or `file`; `id` is the record's version, if it has one."""

    where: str
    id: str | None
    field: str | None
    rule: str
    detail: str

    def __str__(self) -> str:
        place = " ".join(filter(None, (self.where, self.id, self.field)))
        return f"{place}: {self.rule}: {self.detail}"


class ImportRefused(BillingError):
    """The file was not imported, and nothing of it: `records` says all that is wrong with it."""

    def __init__(self, records: Iterable[BadRecord]) -> None:
        self.records = list(records)
        super().__init__("\n".join(map(str, self.records)))

    def as_dict(self) -> dict[str, Any]:
        return {"records": [asdict(record) for record in self.records]}


class Problems:
    """Collects bad records, so that a report has all of them and not the first."""

    def __init__(self) -> None:
        self.records: list[BadRecord] = []

    def add(self, where: str, rule: str, detail: str, *, id: str | None = None, field: str | None = None) -> None:
        self.records.append(BadRecord(where, None if id is None else shown(id), field, rule, detail))

    def refuse_if_any(self) -> None:
        """Raise ImportRefused if anything was found."""
        if self.records:
            raise ImportRefused(self.records)


@dataclass(frozen=True, slots=True)
class Report:
    """How many versions were new, how many older ones they end, and how many stood already as they are.

    `written` has the new versions. In a dry run it is what would have been written.
    """

    created: int
    closed: int
    unchanged: int
    written: tuple[str, ...]
    dry_run: bool
    kind: str = "rates"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"written": list(self.written)}

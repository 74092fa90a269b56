"""The auditor: keeps its own books of a run from the answers, and holds the service and its database against them.

It knows the rules from the documents, prices with a list and code of its own, and reads the database with SQL of its
own: an auditor that calls the code it audits proves nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.answers import AnswersError, AnswersReader, RunHeader
from simulator.auditor import database, districts, interface, money, reports, rules
from simulator.auditor.model import Book
from simulator.auditor.verdict import Divergence, Verdict
from simulator.report import Latencies
from simulator.service import Service
from simulator.users import Keys

__all__ = ["Audit", "Divergence", "Verdict", "audit", "read_book"]


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit gives: the book, its verdict, and the figures of the run up to its last answer."""

    book: Book
    latencies: Latencies
    districts: list[dict[str, Any]]
    partial: bool

    @property
    def verdict(self) -> Verdict:
        return self.book.verdict

    def _total(self, name: str) -> int | None:
        """Of all districts; None where the database was not read."""
        told = [row[name] for row in self.districts if row[name] is not None]
        return sum(told) if told else None

    def as_dict(self) -> dict[str, Any]:
        book = self.book
        return {
            "synthetic": True,
            "requests": book.requests,
            "errors": book.errors,
            "refusals": sum(book.codes.values()),
            "refusals_by_code": dict(sorted(book.codes.items())),
            "sessions": len(book.sessions),
            "revenue": sum(row["revenue"] for row in self.districts),
            "ledger": self._total("ledger"),
            "receipts": self._total("receipts"),
            "partial": self.partial,
            **self.verdict.as_dict(),
            **self.latencies.as_dict(),
            "districts": self.districts,
        }


def read_book(paths: Sequence[Path]) -> tuple[Book, Latencies, districts.Responses, bool]:
    """The closed book of a run from its record (several files where several workers ran it), its times, and whether it
    is partial.

    Raises AnswersError.
    """
    latencies, responses, partial = Latencies(), districts.Responses(), False
    book: Book | None = None
    for path in paths:
        with AnswersReader(path) as reader:
            book = book or Book(reader.header, Verdict())
            _same_run(book.header, reader.header, path)
            for answer in reader:
                book.take(answer)
                latencies.add(answer.due, answer.ready, answer.sent, answer.answered)
                responses.add(answer.zone, answer.answered - answer.due)
            if reader.ending is None:
                book.verdict.notes.append(
                    f"{path} has no ending: that run was cut off, and what it had under way is unknown"
                )
            partial = partial or reader.ending is None or reader.ending.partial
    if book is None:
        raise AnswersError("no record is given")
    book.close()
    return book, latencies, responses, partial


def _same_run(first: RunHeader, other: RunHeader, path: Path) -> None:
    if (other.base_url, other.start) != (first.base_url, first.start):
        raise AnswersError(f"{path} is the record of another run")


def audit(
    paths: Sequence[Path], keys_path: Path, *, base_url: str | None = None, database_url: str | None = None
) -> Audit:
    """Audit a run: the answers against each other, then against the API (`base_url`, default: where the run went) and,
    where a URL is given, against PostgreSQL. Raises AnswersError, KeysError, ServiceError."""
    book, latencies, responses, partial = read_book(paths)
    keys = Keys.read(keys_path)
    rules.check(book)
    service = Service(base_url or book.header.base_url)
    try:
        interface.compare(book, service, keys)
        reported = reports.compare(book, service, keys, book.settled)
    finally:
        service.close()
    incomes = {} if database_url is None else database.compare(book, database_url, reported)
    rows = districts.summarise(book, responses, book.settled)
    return Audit(book, latencies, [row | money.columns(incomes.get(row["code"])) for row in rows], partial)

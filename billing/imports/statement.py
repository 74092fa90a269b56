"""A bank's statement: each credit in it is booked, once, whoever told us of it before.

The file is read as a whole or refused (billing/gateways/statements.py). Each credit is a transaction of its own, so
that no wallet waits for a long file; a file that was read half way is read again, and what was booked is known.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from billing import transfers
from billing.gateways.statements import Movement
from billing.transfers import Credit

GATEWAY = "vietqr"


class Line(NamedTuple):
    """A credit that somebody should look at, and why (see billing/transfers.py)."""

    where: str
    transaction: str
    amount: int
    why: str

    def __str__(self) -> str:
        return f"{self.where} {self.transaction}: {self.amount:,} VND: {self.why}"


@dataclass(slots=True)
class Report:
    """What became of a statement: how many of its credits were booked now and how many were known; those that nobody's
    payment explains, that differ from what was asked for, and that were told with another amount before."""

    dry_run: bool
    booked: int = 0
    known: int = 0
    debits: int = 0
    unmatched: list[Line] = field(default_factory=list)
    noted: list[Line] = field(default_factory=list)
    different: list[Line] = field(default_factory=list)
    kind: str = "statement"

    @property
    def lines(self) -> list[str]:
        """What somebody should look at, in words."""
        parts = {"unmatched": self.unmatched, "noted": self.noted, "different": self.different}
        return [f"{name}: {line}" for name, lines in parts.items() for line in lines]

    def as_dict(self) -> dict[str, Any]:
        named = {name: [line._asdict() for line in getattr(self, name)] for name in ("unmatched", "noted", "different")}
        return asdict(self) | named


def apply(connection: psycopg.Connection, movements: Iterable[Movement], now: datetime, dry_run: bool) -> Report:
    """Book the credits of a statement over an autocommit connection; a dry run only reports what it would do."""
    report = Report(dry_run)
    with connection.transaction(force_rollback=True) if dry_run else nullcontext():
        for movement in movements:
            if movement.amount < 0:
                report.debits += 1
            else:
                _receive(connection, movement, now, report)
    return report


def _receive(connection: psycopg.Connection, movement: Movement, now: datetime, report: Report) -> None:
    credit = Credit(GATEWAY, movement.transaction, movement.amount, movement.at, movement.description)
    received = transfers.receive(connection, credit, now)
    line = Line(movement.where, movement.transaction, movement.amount, received.note or "")
    if received.differs:
        report.different.append(line._replace(why="another amount was told before"))
    elif received.client is None:
        report.unmatched.append(line)
    elif not received.is_new:
        report.known += 1
    else:
        report.booked += 1
        if received.note:
            report.noted.append(line)

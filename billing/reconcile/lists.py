"""The gateways' own lists, in one shape: read whole before anything is compared, and kept on disk meanwhile.

Stripe's comes page by page from its address, a bank's statement and VNPay's list as files. Where there is no file, the
credits that we were told of at the time stand in for it: then the ledger is compared with them alone.
"""

import csv
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

from billing.errors import BillingError
from billing.gateways import CardGateway, Entry
from billing.gateways.statements import Movement, Record, Settled, read_bank, read_vnpay
from billing.imports.report import ImportRefused
from billing.reconcile.days import HANOI, Span, span_of


class WrongDay(BillingError):
    """A file is of another day than the one to be reconciled."""


class Line(NamedTuple):
    """A line of a list; VND. `booking` is the kind that the ledger has, or should have, for it; `name` its reference,
    where that needs no look at our payments."""

    id: str
    booking: str  # payment, refund, payout, fee, transfer, debit, withdrawal_paid, dispute, cash_…, other
    name: str | None
    reference: str | None  # our own id of the payment
    source: str | None  # the gateway's id of it
    amount: int
    fee: int
    at: datetime
    description: str = ""


class List(AbstractContextManager["List"]):
    """A gateway's list as it was read; `source` is list, file, credits or shifts; in `span` it is whole."""

    def __init__(self, gateway: str, source: str, span: Span, lines: Iterable[Line] = ()) -> None:
        """Read all lines. Raises GatewayUnavailable."""
        self.gateway, self.source, self.span = gateway, source, span
        self.file = tempfile.TemporaryFile("w+", newline="", encoding="utf-8")  # noqa: SIM115 (closed by __exit__)
        try:
            csv.writer(self.file).writerows(lines)
        except BaseException:
            self.file.close()
            raise
        self.file.seek(0)

    def blocks(self) -> Iterator[str]:
        """All lines as CSV, in blocks."""
        self.file.seek(0)
        return iter(lambda: self.file.read(1 << 18), "")

    def __exit__(self, *_: Any) -> None:
        self.file.close()


def of_cards(gateway: CardGateway, name: str, day: date, real: datetime) -> List:
    """What a card gateway lists of a day, and of a day before and behind it; `real` is its own time now.

    Raises GatewayUnavailable.
    """
    wide = span_of(day).with_late()
    span = Span(wide.since, min(wide.until, real))
    return List(name, "list", span, (card_line(name, entry) for entry in gateway.entries(*span)))


def card_line(gateway: str, entry: Entry) -> Line:
    """A line of a card gateway's list."""
    booking = "payment" if entry.kind == "charge" else entry.kind
    name = None if booking == "payment" else f"{gateway}/{entry.source if booking == 'refund' else entry.id}"
    amount, fee = (0, entry.fee - entry.amount) if booking == "fee" else (entry.amount, entry.fee)
    source = entry.payment or entry.source
    return Line(entry.id, booking, name, entry.reference, source, amount, fee, entry.at)


def of_statement(path: Path, day: date) -> tuple[List, List]:
    """A bank's statement of our account: what came in, and what left it. Raises ImportRefused, WrongDay."""
    movements = _or_nothing(read_bank, path)
    span = _covered(path, movements, day)
    credits = List("vietqr", "file", span, (credit_line(one) for one in movements if one.amount > 0))
    debits = List("bank", "file", span, (debit_line(one) for one in movements if one.amount < 0))
    return credits, debits


def credit_line(movement: Movement) -> Line:
    """What came in."""
    name = f"vietqr/{movement.transaction}"
    return Line(
        movement.transaction, "transfer", name, None, None, movement.amount, 0, movement.at, movement.description
    )


def debit_line(movement: Movement) -> Line:
    """What went out; several may have one id. Which withdrawal it was for, the comparison finds out (debits.py)."""
    name = f"bank/{movement.transaction}"
    return Line(
        movement.where, "debit", name, movement.transaction, None, movement.amount, 0, movement.at, movement.description
    )


def of_vnpay(path: Path, day: date) -> List:
    """VNPay's list of what it settles; what was not paid is left out. Raises ImportRefused, WrongDay."""
    settled = _or_nothing(read_vnpay, path)
    return List("vnpay", "file", _covered(path, settled, day), (vnpay_line(one) for one in settled if one.is_paid))


def vnpay_line(one: Settled) -> Line:
    """A line of VNPay's list."""
    name = f"vnpay/{one.transaction}"
    return Line(one.transaction, "transfer", name, one.reference, None, one.amount, one.fee, one.at, one.reference)


def _or_nothing(read: Callable[[Path], list[Record]], path: Path) -> list[Record]:
    """The records of a file; none where it has a header alone, as that of a day without any. Raises ImportRefused."""
    try:
        return read(path)
    except ImportRefused as refused:
        if [(one.rule, one.detail) for one in refused.records] == [("empty_file", "it has no rows")]:
            return []
        raise


def _covered(path: Path, records: Sequence[Movement | Settled], day: date) -> Span:
    """The whole days from a file's first line to its last; an empty file is one of a day without any."""
    days = [record.at.astimezone(HANOI).date() for record in records] or [day]
    first, last = min(days), max(days)
    if not first <= day <= last:
        raise WrongDay(f"{path.name} has lines from {first} to {last}, and none of {day}")
    return Span(span_of(first).since, span_of(last).until)


def of_credits(gateway: str, day: date) -> List:
    """Nothing but what we were told at the time, which the comparison reads from the database."""
    return List(gateway, "credits", span_of(day).with_late())


def of_shifts(day: date) -> List:
    """Attendants' shifts: what they noted and counted, which the comparison reads from the database."""
    return List("cash", "shifts", span_of(day).with_late())

"""Which withdrawal a debit of the bank's statement was for.

An operator notes a withdrawal as paid with the bank's reference of the transfer; that names it, where the amount is the
same. Else the amount and the account that the transfer's text names do. Last, the reference alone: then the amounts
differ, unless one debit paid several withdrawals at once. Each debit and each withdrawal is matched once.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from billing import withdrawals
from billing.reconcile.days import LATE, Span
from billing.reconcile.lists import Line
from billing.withdrawals import Withdrawal

BOOKING = "withdrawal_paid"
# A statement's times may be cut to the minute.
MINUTE = timedelta(minutes=1)
# Of several withdrawals that a debit could be for: the one that is noted as paid.
_FIRST = {"paid": 0, "requested": 1, "rejected": 2}


def name_debits(connection: psycopg.Connection, span: Span) -> None:
    """Give the loaded debits of a statement the names of the withdrawals that they were for."""
    with connection.cursor(row_factory=class_row(Line)) as cursor:
        debits = cursor.execute(f"DELETE FROM line RETURNING {', '.join(Line._fields)}").fetchall()
    candidates = withdrawals.waiting(connection, span.since - LATE, span.until + LATE)
    with connection.cursor().copy("COPY line FROM STDIN") as copy:
        for line in named(debits, candidates):
            copy.write_row(line)


def named(debits: Iterable[Line], candidates: Iterable[Withdrawal]) -> Iterator[Line]:
    """The debits, those for withdrawals under their names; one that paid several becomes several."""
    left = {line.id: line for line in sorted(debits, key=lambda line: (line.at, line.id))}
    open_ = {one.id: one for one in sorted(candidates, key=lambda one: (_FIRST[one.state], one.id))}
    yield from _pairs(left, open_, lambda one: (_reference(one), one.amount), lambda line: (_told(line), -line.amount))
    yield from _pairs(left, open_, lambda one: one.amount, lambda line: -line.amount, _fits_account)
    yield from _batches(left, open_)
    yield from _pairs(left, open_, _reference, _told)
    yield from left.values()


def _reference(one: Withdrawal) -> str | None:
    return one.bank_reference and one.bank_reference.strip().casefold()


def _told(line: Line) -> str:
    return (line.reference or "").casefold()


def _pairs(
    left: dict[str, Line],
    open_: dict[UUID, Withdrawal],
    key: Callable[[Withdrawal], object],
    wanted: Callable[[Line], object],
    fits: Callable[[Line, Withdrawal], bool] = lambda line, one: True,
) -> Iterator[Line]:
    """The debits for which there is a withdrawal with the wanted key that fits; both are taken out."""
    found = _grouped(open_, key)
    for line in list(left.values()):
        match = next((one for one in found[wanted(line)] if one.id in open_ and fits(line, one)), None)
        if match is not None:
            del left[line.id], open_[match.id]
            yield line._replace(booking=BOOKING, name=str(match.id))


def _grouped(
    open_: Mapping[UUID, Withdrawal], key: Callable[[Withdrawal], object]
) -> defaultdict[object, list[Withdrawal]]:
    groups: defaultdict[object, list[Withdrawal]] = defaultdict(list)
    for one in open_.values():
        groups[key(one)].append(one)
    return groups


def _fits_account(line: Line, one: Withdrawal) -> bool:
    """Whether a transfer went to the account while the withdrawal waited, or not long after it was decided."""
    in_time = one.requested_at - MINUTE < line.at and (one.decided_at is None or line.at <= one.decided_at + LATE)
    return in_time and _names(line.description, one.account_number)


def _names(text: str, account: str) -> bool:
    """Whether a text has an account's number in it, as a word of its own; banks group its digits."""
    grouped = r"[ .-]?".join(map(re.escape, account))
    return re.search(rf"(?<![0-9A-Z]){grouped}(?![0-9A-Z])", text, re.I) is not None


def _batches(left: dict[str, Line], open_: dict[UUID, Withdrawal]) -> Iterator[Line]:
    """A debit that paid several withdrawals, which all have its reference: a line for each."""
    found = _grouped(open_, _reference)
    for line in list(left.values()):
        paid = [one for one in found[_told(line)] if one.id in open_]
        if len(paid) > 1 and sum(one.amount for one in paid) == -line.amount:
            del left[line.id]
            for one in paid:
                del open_[one.id]
                yield line._replace(id=f"{line.id}/{one.id}", booking=BOOKING, name=str(one.id), amount=-one.amount)

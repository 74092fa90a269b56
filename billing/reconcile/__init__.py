"""Reconciliation: a day of each gateway's own list beside the ledger, and every difference explained.

Each line of a list has one name in the ledger, the kind and reference that it is booked under: a charge by card
"payment <our reference>", a credit "transfer <gateway>/<transaction>", a refund "refund <gateway>/<its id>", a payout
"payout <gateway>/<line>". So the two sides are joined by name; what one side lacks, or has with another amount, is a
difference of a known kind (kinds.py), which is healed where that is provably ours to do, and else listed with the next
step. A line and its booking may lie on two sides of midnight: each day's sum holds its own, and says so (`late`).

Lists are read whole before anything is compared, with no transaction open; the comparison is one transaction; each
difference is healed in its own. So a gateway that is away leaves nothing half done, and whoever is in doubt runs it
again: what was healed stays healed, and is counted the same.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import psycopg

from billing.gateways import CardGateway
from billing.reconcile import books
from billing.reconcile.books import Compared
from billing.reconcile.healing import heal
from billing.reconcile.kinds import HEALABLE, Difference
from billing.reconcile.lists import List

__all__ = ["Difference", "List", "Result", "reconcile", "result"]


@dataclass(frozen=True, slots=True)
class Result:
    """What a day's reconciliation found, as it stands: by gateway, and each difference."""

    date: date
    gateways: Sequence[Compared]
    differences: Sequence[Difference]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it; money is VND."""
        return {
            "date": self.date.isoformat(),
            "payments": sum(one.payments for one in self.gateways),
            "differences": len(self.differences),
            "healed": self._number("healed"),
            "open": self._number("open"),
            "unexplained": sum(one.unexplained for one in self.gateways),
            "gateways": [one._asdict() for one in self.gateways],
            "kinds": self._kinds(),
            "list": [_shown(one) for one in self.differences if one.state != "explained"],
        }

    def _number(self, state: str) -> int:
        return sum(one.state == state for one in self.differences)

    def _kinds(self) -> dict[str, dict[str, int]]:
        counts = Counter(one.kind for one in self.differences)
        amounts: Counter[str] = Counter()
        for one in self.differences:
            amounts[one.kind] += one.amount
        return {kind: {"count": counts[kind], "amount": amounts[kind]} for kind in sorted(counts)}


def _shown(one: Difference) -> dict[str, Any]:
    return {
        "gateway": one.gateway, "kind": one.kind, "booking": one.booking, "reference": one.reference,
        "theirs": one.theirs, "ours": one.ours, "amount": one.amount, "at": one.at.isoformat(), "state": one.state,
        "next": one.next_step, "error": one.error,
    }  # fmt: skip


def reconcile(
    connection: psycopg.Connection, day: date, lists: Sequence[List], cards: CardGateway | None, now: datetime
) -> Result:
    """Compare a day with the lists of its gateways, heal and book what is ours to, and say how all stands.

    `connection` is an autocommit one; `cards` is asked about what is to be healed on Stripe's list. What was compared
    with a file is not compared again with less.
    """
    for listed in lists:
        if listed.source == "credits" and books.keep_file(connection, day, listed.gateway, now):
            continue
        books.compare(connection, day, listed, now)
        for difference in books.open_differences(connection, day, listed.gateway, HEALABLE):
            books.note(connection, day, heal(connection, cards, difference, now), now)
        books.settle(connection, day, listed.gateway, now)
    return result(connection, day)


def result(connection: psycopg.Connection, day: date) -> Result:
    """How a day stands, without looking anew."""
    return Result(day, books.compared(connection, day), books.all_differences(connection, day))

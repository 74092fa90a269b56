"""Value-added tax: prices include it, and its rate is dated (vat_rate says which rates are assumed for parking).

The net part of a price is rounded half up to whole VND and the tax is the rest, so the two always add up to the price.
A charge is booked by the same rule in SQL (sql/functions/charge_sessions.sql, vat_net).
"""

from bisect import bisect_right
from collections.abc import Iterable
from datetime import datetime
from operator import attrgetter
from typing import NamedTuple

import psycopg

from billing.errors import NoRate

WHOLE = 10_000  # basis points


class VatRate(NamedTuple):
    """The rate from an instant on, in basis points (800 is 8 %); `source` is `decree` or `assumed`."""

    valid_from: datetime
    basis_points: int
    source: str


class VatTable:
    """The rates of all times."""

    def __init__(self, rates: Iterable[VatRate]) -> None:
        self._dated = sorted(rates)

    def at(self, instant: datetime) -> VatRate:
        """The rate of what is charged at `instant`. Raises NoRate before the first one."""
        index = bisect_right(self._dated, instant, key=attrgetter("valid_from")) - 1
        if index < 0:
            raise NoRate(f"no rate of VAT is known for {instant:%Y-%m-%d}")
        return self._dated[index]


def load(connection: psycopg.Connection) -> VatTable:
    """All rates, as the database has them."""
    query = "SELECT valid_from, basis_points, source FROM vat_rate"
    return VatTable(VatRate(*row) for row in connection.execute(query).fetchall())


def net(gross: int, basis_points: int) -> int:
    """What is left of a price (VND, not below 0) without its tax: gross × 10,000 ÷ (10,000 + rate), half up."""
    if gross < 0:
        raise ValueError("a price is not below 0; a refund takes back what was booked")
    whole = WHOLE + basis_points
    return (2 * gross * WHOLE + whole) // (2 * whole)


def percent(basis_points: int) -> str:
    """The rate as people write it: 8%, 7.5%."""
    return f"{basis_points / 100:g}%"

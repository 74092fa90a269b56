"""What a receipt says, as the JSON that is stored with it: later names, rates and plates change nothing of it.

Money is {"amount", "currency"}, as everywhere; times are Hanoi's, in RFC 3339. A credit note says all this of the stay
that it gives money back for, and its amounts are below 0.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from billing import rates, vat
from billing.money import CURRENCY
from billing.rates import Line, Rate
from billing.receipts.charges import Charge
from billing.seller import Seller

HANOI = ZoneInfo("Asia/Ho_Chi_Minh")


class Stay(NamedTuple):
    """Where and when a vehicle stood, by the names of that time. `plate` is masked; `charged_until` may lie behind
    `ended_at` where the rate gives unused minutes not back."""

    session_id: UUID
    zone: str
    zone_name: str
    street: str
    district: str
    district_name: str
    plate: str
    vehicle_class: str
    started_at: datetime
    ended_at: datetime
    charged_until: datetime
    payment_method: str
    rate_version: str


def of_charge(charge: Charge, stay: Stay, rate: Rate, basis_points: int, seller: Seller | None) -> dict[str, Any]:
    """The content of a receipt. `basis_points` is the rate of VAT at the charge."""
    return {
        "session": str(stay.session_id),
        "zone": {"code": stay.zone, "name": stay.zone_name, "street": stay.street},
        "district": {"code": stay.district, "name": stay.district_name},
        "plate": stay.plate,
        "vehicle_class": stay.vehicle_class,
        "from": local(stay.started_at),
        "to": local(stay.ended_at),
        "payment_method": stay.payment_method,
        "rate_version": stay.rate_version,
        "lines": [line_json(line) for line in lines_of(charge.gross, stay, rate)],
        **_totals(charge, vat.percent(basis_points)),
        "seller": seller and {"name": seller.name, "tax_code": seller.tax_code, "address": seller.address},
    }


def of_refund(refund: Charge, charged: dict[str, Any]) -> dict[str, Any]:
    """The content of a credit note on a receipt that says `charged`: tax goes back at the rate at which it came."""
    return charged | {"lines": []} | _totals(refund, charged["vat"][0]["rate"])


def _totals(charge: Charge, rate: str) -> dict[str, Any]:
    tax = {"rate": rate, "net": money(charge.net), "amount": money(charge.vat)}
    return {"net": money(charge.net), "vat": [tax], "total": money(charge.gross)}


def lines_of(gross: int, stay: Stay, rate: Rate) -> Sequence[Line]:
    """The lines of the bill. They add up to what was charged: where an agreed price was another one (it is frozen at
    the start, and code may change meanwhile), one line says so for the whole stay."""
    bill = rates.price(rate, stay.started_at, max(stay.charged_until, stay.ended_at))
    if bill.total == gross:
        return bill.lines
    return (Line(stay.started_at, stay.ended_at, "stay", 1, gross, gross),)


def line_json(line: Line) -> dict[str, Any]:
    """A line as quotes show it."""
    return {"from": local(line.start), "to": local(line.end)} | {
        name: getattr(line, name) for name in ("unit", "units", "price", "amount")
    }


def local(instant: datetime) -> str:
    """RFC 3339 with Hanoi's offset, to the millisecond, which is as exact as a session is."""
    return instant.astimezone(HANOI).isoformat(timespec="milliseconds")


def money(amount: int) -> dict[str, Any]:
    """An amount with its currency."""
    return {"amount": amount, "currency": CURRENCY}

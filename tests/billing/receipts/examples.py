"""Receipts to test with: an afternoon in Phố Huế that costs 85,000 VND, and what is given back of it."""

from datetime import timedelta
from uuid import UUID

from billing import vat
from billing.receipts import content
from billing.receipts.charges import PARKING, Charge
from billing.receipts.content import Stay
from billing.receipts.store import Receipt
from billing.seller import FAKE
from tests.billing.rate_examples import CORE, hanoi

SESSION = UUID("01990000-0000-7000-8000-000000000001")
CHARGE = UUID("01990000-0000-7000-8000-00000000000a")
REFUNDED = UUID("01990000-0000-7000-8000-00000000000b")
START = hanoi("2026-10-14T13:05")
END = START + timedelta(hours=2, minutes=20)


def stay(**more: object) -> Stay:
    facts = {
        "session_id": SESSION,
        "zone": "HK-001",
        "zone_name": "Trần Hưng Đạo 1",
        "street": "Phố Trần Hưng Đạo",
        "district": "002",
        "district_name": "Hoàn Kiếm",
        "plate": "29-MĐ1 12•••",
        "vehicle_class": "car",
        "started_at": START,
        "ended_at": END,
        "charged_until": END,
        "payment_method": "wallet",
        "rate_version": CORE.version,
    }
    return Stay(**facts | more)


def charge(gross: int = 85_000, basis_points: int = 800) -> Charge:
    net = vat.net(gross, basis_points)
    return Charge(CHARGE, PARKING, END, SESSION, None, "driver-1", "002", net, gross - net)


def refund(gross: int = 25_000) -> Charge:
    net = vat.net(gross, 800)
    return Charge(REFUNDED, "refund", END, SESSION, CHARGE, "driver-1", "002", -net, net - gross)


def receipt(told: Stay | None = None, gross: int = 85_000, number: int = 123) -> Receipt:
    said = content.of_charge(charge(gross), told or stay(), CORE, 800, FAKE)
    vat_of = charge(gross).vat
    return Receipt(
        CHARGE,
        "receipt",
        "002",
        2026,
        number,
        "driver-1",
        SESSION,
        None,
        END + timedelta(seconds=2),
        gross,
        vat_of,
        said,
    )


def credit_note() -> Receipt:
    back = refund()
    return Receipt(
        REFUNDED, "credit_note", "002", 2026, 124, "driver-1", SESSION, CHARGE, END + timedelta(hours=1), back.gross,
        back.vat, content.of_refund(back, receipt().content), 123, 2026,
    )  # fmt: skip

"""The words of a printed receipt, in Vietnamese and English, and how each writes amounts and times."""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple


class Words(NamedTuple):
    """One language's words; `money` writes VND, `instant` a local time."""

    tag: str
    titles: dict[str, str]
    number: str
    issued: str
    corrects: str
    district: str
    zone: str
    vehicle: str
    start: str
    end: str
    method: str
    columns: tuple[str, str, str, str]
    net: str
    vat: str
    total: str
    refunded: str
    seller: str
    tax_code: str
    einvoice: str
    page: str
    vehicles: dict[str, str]
    methods: dict[str, str]
    units: dict[str, str]
    money: Callable[[int], str]
    instant: Callable[[datetime], str]


def _grouped(amount: int, separator: str) -> str:
    """Thousands apart, with a true minus sign."""
    return f"{amount:,}".replace(",", separator).replace("-", "−")


VIETNAMESE = Words(
    tag="vi-VN",
    titles={"receipt": "BIÊN NHẬN ĐỖ XE", "credit_note": "PHIẾU HOÀN TIỀN"},
    number="Số",
    issued="Ngày lập",
    corrects="Cho biên nhận số",
    district="Quận",
    zone="Điểm đỗ",
    vehicle="Biển số",
    start="Vào",
    end="Ra",
    method="Thanh toán",
    columns=("Thời gian", "SL", "Đơn giá", "Thành tiền"),
    net="Tiền trước thuế",
    vat="Thuế GTGT",
    total="Tổng cộng",
    refunded="Số tiền hoàn",
    seller="Đơn vị",
    tax_code="Mã số thuế",
    einvoice="Hóa đơn điện tử",
    page="Trang",
    vehicles={"car": "ô tô", "motorbike": "xe máy"},
    methods={
        "wallet": "Ví iParking",
        "card": "Thẻ",
        "vietqr": "VietQR",
        "vnpay": "VNPay",
        "cash": "Tiền mặt",
    },
    units={"hour": "giờ", "turn": "lượt", "month": "tháng", "stay": "lần"},
    money=lambda amount: f"{_grouped(amount, '.')} ₫",
    instant=lambda at: f"{at:%H:%M %d/%m/%Y}",
)
ENGLISH = Words(
    tag="en",
    titles={"receipt": "PARKING RECEIPT", "credit_note": "CREDIT NOTE"},
    number="No.",
    issued="Issued",
    corrects="For receipt no.",
    district="District",
    zone="Zone",
    vehicle="Plate",
    start="From",
    end="To",
    method="Payment",
    columns=("Time", "Qty", "Price", "Amount"),
    net="Before tax",
    vat="VAT",
    total="Total",
    refunded="Given back",
    seller="Seller",
    tax_code="Tax code",
    einvoice="E-invoice",
    page="Page",
    vehicles={"car": "car", "motorbike": "motorbike"},
    methods={"wallet": "iParking wallet", "card": "Card", "vietqr": "VietQR", "vnpay": "VNPay", "cash": "Cash"},
    units={"hour": "h", "turn": "turn", "month": "month", "stay": "stay"},
    money=lambda amount: f"{_grouped(amount, ',')} VND",
    instant=lambda at: f"{at:%Y-%m-%d %H:%M}",
)
LANGUAGES = {"vi": VIETNAMESE, "en": ENGLISH}

"""An e-invoice as XML: the elements of Decision 1450/QĐ-TCT, which carry what Decree 123/2020/NĐ-CP, article 10, wants.

For invoices from cash registers (article 11, as amended by 70/2025/NĐ-CP): a buyer who gives no tax code is named as
such, the seller needs no signature, and the authority's code is made by the register (MCCQT). A refund is an invoice
that adjusts (TTHDLQuan, nature 2), with amounts below 0.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from billing import money
from billing.einvoices.words import in_words
from billing.receipts.content import HANOI
from billing.receipts.store import Receipt
from billing.seller import Seller

VERSION = "2.1.0"
BUYER = "Người mua không cung cấp thông tin"
SERVICE = "Dịch vụ trông giữ xe"
ADJUSTS = "2"
PAYMENT = {"cash": "Tiền mặt"}
ELECTRONIC = "Không dùng tiền mặt"
Fields = Sequence[tuple[str, object]]


class Original(NamedTuple):
    """The invoice that a refund adjusts."""

    sign: str
    number: int
    issued_at: datetime


def authority_code(seller: Seller, year: int, number: int) -> str:
    """The code of an invoice from a cash register: M1-26-00000-00000000123 (form 1; the seller's five characters; its
    count of the year)."""
    return f"M1-{year % 100:02d}-{seller.register}-{number:011d}"


def make(receipt: Receipt, code_number: int, seller: Seller, original: Original | None) -> bytes:
    """The document. `original` is given with a credit note."""
    invoice = ET.Element("HDon")
    data = ET.SubElement(invoice, "DLHDon", Id=str(receipt.id))
    general = _add(data, "TTChung", _general(receipt))
    if original is not None:
        _add(general, "TTHDLQuan", _related(original))
    _add(ET.SubElement(general, "TTKhac"), "TTin", _instant(receipt))
    body = ET.SubElement(data, "NDHDon")
    _add(body, "NBan", [("Ten", seller.name), ("MST", seller.tax_code), ("DChi", seller.address)])
    _add(body, "NMua", [("Ten", BUYER)])
    _add(ET.SubElement(body, "DSHHDVu"), "HHDVu", _item(receipt))
    _add_totals(ET.SubElement(body, "TToan"), receipt)
    _add(invoice, "MCCQT", []).text = authority_code(seller, receipt.year, code_number)
    ET.indent(invoice)
    return bytes(ET.tostring(invoice, encoding="utf-8", xml_declaration=True)) + b"\n"


def _add(parent: ET.Element, name: str, fields: Fields) -> ET.Element:
    made = ET.SubElement(parent, name)
    for field, value in fields:
        ET.SubElement(made, field).text = str(value)
    return made


def _general(receipt: Receipt) -> Fields:
    return [
        ("PBan", VERSION),
        ("THDon", "Hóa đơn giá trị gia tăng khởi tạo từ máy tính tiền"),
        ("KHMSHDon", receipt.sign[0]),
        ("KHHDon", receipt.sign[1:]),
        ("SHDon", receipt.number),
        ("NLap", f"{receipt.issued_at.astimezone(HANOI):%Y-%m-%d}"),
        ("DVTTe", money.CURRENCY),
        ("TGia", 1),
        ("HTTToan", PAYMENT.get(receipt.content["payment_method"], ELECTRONIC)),
    ]


def _instant(receipt: Receipt) -> Fields:
    """The instant of issue, which the amended article 11 asks for beside the date."""
    issued = receipt.issued_at.astimezone(HANOI).isoformat(timespec="seconds")
    return [("TTruong", "Thời điểm lập"), ("KDLieu", "dateTime"), ("DLieu", issued)]


def _related(original: Original) -> Fields:
    return [
        ("TCHDon", ADJUSTS),
        ("LHDCLQuan", 1),
        ("KHMSHDCLQuan", original.sign[0]),
        ("KHHDCLQuan", original.sign[1:]),
        ("SHDCLQuan", original.number),
        ("NLHDCLQuan", f"{original.issued_at.astimezone(HANOI):%Y-%m-%d}"),
    ]


def _item(receipt: Receipt) -> Fields:
    """The stay as one service. Its price is without tax, as the totals are: lines with tax in them would not add up."""
    said = receipt.content
    span = " – ".join(f"{datetime.fromisoformat(said[name]):%H:%M %d/%m/%Y}" for name in ("from", "to"))
    (tax,) = said["vat"]
    return [
        ("TChat", 1),
        ("STT", 1),
        ("MHHDVu", said["zone"]["code"]),
        ("THHDVu", f"{SERVICE} {said['plate']}, {said['zone']['name']}, {said['district']['name']}, {span}"),
        ("DVTinh", "Lần"),
        ("SLuong", 1),
        ("DGia", said["net"]["amount"]),
        ("ThTien", said["net"]["amount"]),
        ("TSuat", tax["rate"]),
    ]


def _add_totals(parent: ET.Element, receipt: Receipt) -> None:
    said: dict[str, Any] = receipt.content
    for tax in said["vat"]:
        fields = [("TSuat", tax["rate"]), ("ThTien", tax["net"]["amount"]), ("TThue", tax["amount"]["amount"])]
        _add(ET.SubElement(parent, "THTTLTSuat"), "LTSuat", fields)
    total = said["total"]["amount"]
    for name, value in [
        ("TgTCThue", said["net"]["amount"]),
        ("TgTThue", receipt.vat),
        ("TgTTTBSo", total),
        ("TgTTTBChu", in_words(total)),
    ]:
        ET.SubElement(parent, name).text = str(value)

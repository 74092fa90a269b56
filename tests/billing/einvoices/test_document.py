"""An e-invoice's document: the fields that the decree wants, and sums that agree."""

from xml.etree import ElementTree as ET

from billing.einvoices import document
from billing.einvoices.document import Original, authority_code
from billing.seller import FAKE
from tests.billing.receipts.examples import END, credit_note, receipt, stay


def texts(made: bytes) -> dict[str, str]:
    """Every element's text by its path; those that stand more than once would be lost, so there are none."""
    found: dict[str, str] = {}

    def walk(element: ET.Element, path: str) -> None:
        for child in element:
            at = f"{path}/{child.tag}" if path else child.tag
            if len(child) == 0:
                assert at not in found
                found[at] = child.text or ""
            walk(child, at)

    walk(ET.fromstring(made), "")
    return found


def test_a_receipt_becomes_an_invoice():
    said = texts(document.make(receipt(), 7, FAKE, None))
    general = {name.rpartition("/")[2]: text for name, text in said.items() if name.startswith("DLHDon/TTChung/")}
    assert general["KHMSHDon"] + general["KHHDon"] == "1C26MAC"
    assert (general["SHDon"], general["NLap"], general["DVTTe"]) == ("123", "2026-10-14", "VND")
    assert (general["HTTToan"], general["DLieu"]) == ("Không dùng tiền mặt", "2026-10-14T15:25:02+07:00")
    body = "DLHDon/NDHDon/"
    assert [said[f"{body}NBan/{name}"] for name in ("Ten", "MST", "DChi")] == [FAKE.name, FAKE.tax_code, FAKE.address]
    assert said[f"{body}NMua/Ten"] == document.BUYER and f"{body}NMua/MST" not in said
    item = said[f"{body}DSHHDVu/HHDVu/THHDVu"]
    assert "29-MĐ1 12•••" in item and "Trần Hưng Đạo 1, Hoàn Kiếm, 13:05 14/10/2026 – 15:25 14/10/2026" in item
    assert said[f"{body}DSHHDVu/HHDVu/TSuat"] == said[f"{body}TToan/THTTLTSuat/LTSuat/TSuat"] == "8%"
    net, tax, total = (int(said[f"{body}TToan/{name}"]) for name in ("TgTCThue", "TgTThue", "TgTTTBSo"))
    assert (net, tax, total) == (78_704, 6_296, 85_000)
    assert int(said[f"{body}DSHHDVu/HHDVu/ThTien"]) == net
    assert said[f"{body}TToan/TgTTTBChu"] == "Tám mươi lăm nghìn đồng"
    assert said["MCCQT"] == "M1-26-00000-00000000007"


def test_a_credit_note_becomes_an_invoice_that_adjusts_the_first():
    said = texts(document.make(credit_note(), 8, FAKE, Original("1C26MAC", 123, END)))
    related = {name.rpartition("/")[2]: text for name, text in said.items() if "/TTHDLQuan/" in name}
    assert related == {
        "TCHDon": "2", "LHDCLQuan": "1", "KHMSHDCLQuan": "1", "KHHDCLQuan": "C26MAC", "SHDCLQuan": "123",
        "NLHDCLQuan": "2026-10-14",
    }  # fmt: skip
    assert said["DLHDon/NDHDon/TToan/TgTTTBSo"] == "-25000"
    assert said["DLHDon/NDHDon/TToan/TgTTTBChu"] == "Âm hai mươi lăm nghìn đồng"


def test_cash_is_said_and_names_are_escaped():
    told = stay(payment_method="cash", zone_name='<Chợ> & "Đ"')
    made = document.make(receipt(told), 1, FAKE, None)
    assert b"<HTTToan>Ti\xe1\xbb\x81n m\xe1\xba\xb7t</HTTToan>" in made
    assert '<Chợ> & "Đ"' in texts(made)["DLHDon/NDHDon/DSHHDVu/HHDVu/THHDVu"]


def test_the_same_receipt_is_the_same_document():
    assert document.make(receipt(), 7, FAKE, None) == document.make(receipt(), 7, FAKE, None)


def test_the_authority_s_code_has_23_characters():
    assert len(authority_code(FAKE, 2026, 99_999_999_999)) == 23

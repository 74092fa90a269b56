"""A receipt on paper, read back: every letter of Vietnamese, every figure, and the same bytes each time."""

import io
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from pypdf import PdfReader

from app.config import FONT_FOLDER
from billing import rates
from billing.errors import FontMissing
from billing.receipts import pdf
from billing.receipts.words import LANGUAGES
from tests.billing.rate_examples import CORE
from tests.billing.receipts.examples import START, credit_note, receipt, stay

LETTERS = "ĂÂĐÊÔƠƯăâđêôơư áàảãạ ắằẳẵặ ấầẩẫậ éèẻẽẹ ếềểễệ íìỉĩị óòỏõọ ốồổỗộ ớờởỡợ úùủũụ ứừửữự ýỳỷỹỵ"


def text_of(drawn: bytes) -> str:
    """All text, its breaks as spaces."""
    pages = PdfReader(io.BytesIO(drawn)).pages
    return re.sub(r"\s+", " ", " ".join(page.extract_text() for page in pages))


def test_vietnamese_receipt_reads_as_it_was_stored():
    text = text_of(pdf.draw(receipt(), "vi", FONT_FOLDER))
    for said in (
        "BIÊN NHẬN ĐỖ XE", "2026-002-0000123", "Hoàn Kiếm", "HK-001 · Trần Hưng Đạo 1, Phố Trần Hưng Đạo",
        "29-MĐ1 12•••", "13:05 14/10/2026", "15:25 14/10/2026", "Ví iParking", "25.000 ₫", "Thuế GTGT 8% 6.296 ₫",
        "Tổng cộng 85.000 ₫", "Hóa đơn điện tử: 1C26MAC · 123", "Mã số thuế: 0000000000",
    ):  # fmt: skip
        assert said in text


def test_english_receipt_reads_as_it_was_stored():
    text = text_of(pdf.draw(receipt(), "en", FONT_FOLDER))
    for said in (
        "PARKING RECEIPT",
        "2026-10-14 13:05",
        "Before tax 78,704 VND",
        "VAT 8% 6,296 VND",
        "Total 85,000 VND",
    ):
        assert said in text


def test_credit_note_names_its_receipt():
    text = text_of(pdf.draw(credit_note(), "vi", FONT_FOLDER))
    for said in ("PHIẾU HOÀN TIỀN", "Cho biên nhận số 2026-002-0000123", "Số tiền hoàn −25.000 ₫"):
        assert said in text


def test_all_letters_and_what_markup_would_be_come_back():
    told = stay(zone_name=f"<b>{LETTERS}</b> & Đ", street="")
    text = text_of(pdf.draw(receipt(told), "vi", FONT_FOLDER))
    assert set(LETTERS) - set(text) == set()
    assert "<b>" in text and "& Đ" in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_same_receipt_is_the_same_bytes_also_in_threads(language: str):
    with ThreadPoolExecutor(4) as threads:
        drawn = set(threads.map(lambda _: pdf.draw(receipt(), language, FONT_FOLDER), range(8)))
    assert len(drawn) == 1


def test_a_long_bill_takes_more_pages_each_with_its_number():
    end = START + timedelta(days=9)
    gross = rates.price(CORE, START, end).total
    drawn = pdf.draw(receipt(stay(ended_at=end, charged_until=end), gross), "vi", FONT_FOLDER)
    pages = [page.extract_text() for page in PdfReader(io.BytesIO(drawn)).pages]
    assert len(pages) > 1
    assert all("2026-002-0000123" in page for page in pages)
    assert "Tổng cộng" in pages[-1]


def test_a_missing_font_is_named(tmp_path: Path):
    with pytest.raises(FontMissing, match=r"DejaVuSans.ttf cannot be read .*fonts-dejavu-core"):
        pdf.draw(receipt(), "vi", tmp_path)

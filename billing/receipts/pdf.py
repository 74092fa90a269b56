"""A receipt as a PDF of A6 pages, in Vietnamese or English: the same bytes each time, so that its ETag holds.

reportlab is imported by whoever draws the first one: it is large, and few processes need it.
"""

import io
import threading
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from billing.errors import FontMissing
from billing.receipts.content import HANOI
from billing.receipts.store import Receipt
from billing.receipts.words import LANGUAGES, Words

# Debian's fonts-dejavu-core: they have all letters of Vietnamese, ₫ and •.
REGULAR, BOLD = "DejaVuSans", "DejaVuSans-Bold"
# reportlab's frame keeps 6 points more to itself.
MARGIN = 14
WIDTHS = (123, 34, 49, 51)
Rows = list[tuple[str, str]]
# reportlab keeps fonts and what is drawn of them in its modules.
_drawing = threading.Lock()


def draw(receipt: Receipt, language: str, fonts: Path) -> bytes:
    """The PDF, with the fonts of a folder.

    Raises FontMissing, which names the file; KeyError for a language that is not in LANGUAGES.
    """
    words = LANGUAGES[language]
    with _drawing:
        _register(fonts)
        return _build(receipt, words)


@lru_cache(maxsize=1)
def _register(folder: Path) -> None:
    """Make the font known to reportlab, once."""
    from reportlab.pdfbase.pdfmetrics import registerFont, registerFontFamily
    from reportlab.pdfbase.ttfonts import TTFError, TTFont

    try:
        for name in (REGULAR, BOLD):
            registerFont(TTFont(name, folder / f"{name}.ttf"))
    except (TTFError, OSError) as error:
        raise FontMissing(f"{folder}/{name}.ttf cannot be read (Debian: apt-get install fonts-dejavu-core)") from error
    registerFontFamily(REGULAR, normal=REGULAR, bold=BOLD, italic=REGULAR, boldItalic=BOLD)


def _build(receipt: Receipt, words: Words) -> bytes:
    from reportlab.lib.pagesizes import A6
    from reportlab.platypus import SimpleDocTemplate, Spacer

    file = io.BytesIO()
    number = receipt.number_text
    document = SimpleDocTemplate(
        file, pagesize=A6, leftMargin=MARGIN, rightMargin=MARGIN, topMargin=MARGIN, bottomMargin=MARGIN + 8,
        invariant=1, title=f"{words.titles[receipt.kind]} {number}", author="iParking", lang=words.tag,
    )  # fmt: skip
    story = [
        _text("iParking Hà Nội", 8),
        _text(f"<b>{words.titles[receipt.kind]}</b>", 12),
        _text(f"{words.number} <b>{number}</b>", 8),
        Spacer(0, 6),
        _facts(_about(receipt, words)),
        *_lines(receipt.content["lines"], words),
        _sums(receipt, words),
        Spacer(0, 6),
        *_seller(receipt, words),
    ]

    def foot(canvas: Any, page: Any) -> None:
        canvas.setFont(REGULAR, 6)
        canvas.drawRightString(A6[0] - MARGIN - 6, MARGIN, f"{number}  ·  {words.page} {page.page}")

    document.build(story, onFirstPage=foot, onLaterPages=foot)
    return file.getvalue()


def _about(receipt: Receipt, words: Words) -> Rows:
    """What it says above the lines."""
    said = receipt.content
    zone, vehicle = said["zone"], said["vehicle_class"]
    rows = [
        (words.issued, words.instant(receipt.issued_at.astimezone(HANOI))),
        (words.district, said["district"]["name"]),
        (words.zone, f"{zone['code']} · {zone['name']}, {zone['street']}"),
        (words.vehicle, f"{said['plate']} ({words.vehicles.get(vehicle, vehicle)})"),
        (words.start, words.instant(datetime.fromisoformat(said["from"]))),
        (words.end, words.instant(datetime.fromisoformat(said["to"]))),
        (words.method, words.methods.get(said["payment_method"], said["payment_method"])),
    ]
    return [(words.corrects, receipt.corrects_text), *rows] if receipt.corrects_text else rows


def _text(markup: str, size: float, right: bool = False) -> Any:
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.platypus import Paragraph

    style = ParagraphStyle(f"{size}{right}", fontName=REGULAR, fontSize=size, leading=size * 1.35, alignment=2 * right)
    return Paragraph(markup, style)


def _facts(rows: Rows) -> Any:
    """Names and values beside each other; long ones are broken."""
    from reportlab.platypus import Table, TableStyle

    cells = [[_text(escape(name), 7), _text(escape(value), 7)] for name, value in rows]
    table = Table(cells, colWidths=(70, sum(WIDTHS) - 70), hAlign="LEFT")
    table.setStyle(TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), *_tight()]))
    return table


def _lines(lines: list[dict[str, Any]], words: Words) -> list[Any]:
    """The lines of the bill; its heading stands on every page. A credit note has none."""
    from reportlab.platypus import Spacer, Table, TableStyle

    if not lines:
        return [Spacer(0, 6)]
    head = [_text(f"<b>{column}</b>", 6.5, right=n > 0) for n, column in enumerate(words.columns)]
    table = Table([head, *(_line(line, words) for line in lines)], colWidths=WIDTHS, repeatRows=1, hAlign="LEFT")
    table.setStyle(TableStyle([("LINEBELOW", (0, 0), (-1, 0), 0.5, "black"), *_tight()]))
    return [Spacer(0, 6), table]


def _line(line: dict[str, Any], words: Words) -> list[Any]:
    start, end = (datetime.fromisoformat(line[name]) for name in ("from", "to"))
    span = f"{start:%d/%m %H:%M} – {end:%d/%m %H:%M}"
    units = f"{line['units']} {words.units[line['unit']]}"
    cells = [_text(span, 6.5), _text(units, 6.5, right=True)]
    return cells + [_text(words.money(line[name]), 6.5, right=True) for name in ("price", "amount")]


def _sums(receipt: Receipt, words: Words) -> Any:
    """Net, tax and total, the total in bold."""
    from reportlab.platypus import Table, TableStyle

    said = receipt.content
    rows = [(words.net, said["net"]["amount"])]
    rows += [(f"{words.vat} {tax['rate']}", tax["amount"]["amount"]) for tax in said["vat"]]
    cells = [[_text(name, 7), _text(words.money(amount), 7, right=True)] for name, amount in rows]
    name = words.total if receipt.kind == "receipt" else words.refunded
    total = words.money(said["total"]["amount"])
    cells.append([_text(f"<b>{name}</b>", 8.5), _text(f"<b>{total}</b>", 8.5, right=True)])
    table = Table(cells, colWidths=(sum(WIDTHS) - 100, 100), hAlign="LEFT", spaceBefore=4)
    table.setStyle(TableStyle([("LINEABOVE", (0, 0), (-1, 0), 0.5, "black"), *_tight()]))
    return table


def _seller(receipt: Receipt, words: Words) -> list[Any]:
    """Who sold it and what its e-invoice is called."""
    said, lines = receipt.content["seller"], [f"{words.einvoice}: {receipt.sign} · {receipt.number}"]
    if said is not None:
        lines = [f"{words.seller}: {said['name']}", f"{words.tax_code}: {said['tax_code']}", said["address"], *lines]
    return [_text(escape(line), 6.5) for line in lines]


def _tight() -> list[Any]:
    return [
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("RIGHTPADDING", (0, 0), (-1, -1), 0),
        ("TOPPADDING", (0, 0), (-1, -1), 1),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 1),
    ]

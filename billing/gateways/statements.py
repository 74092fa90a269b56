"""What others say of our money, as files: a bank's statement of the account that receives transfers, and VNPay's list
of what it settles. Read as a whole or refused, with every line and column that is wrong.

CSV: UTF-8 with or without a byte order mark, a header; comma, semicolon or tab. Columns may stand in any order, and
others beside them. Upper case, accents and double spaces of their names do not count.

    bank      transaction_id (the bank's own, unique on the account: Số tham chiếu, Số bút toán, Mã giao dịch)
              at (dd/MM/yyyy HH:mm or HH:mm:ss, GMT+7: Ngày giao dịch, Thời gian giao dịch, Transaction date)
              debit, credit (VND, exactly one of them: Ghi nợ, Số tiền ghi nợ; Ghi có, Số tiền ghi có)
              description (the text of the transfer: Mô tả, Nội dung, Diễn giải, Remarks)
    VNPay     transaction_id (vnp_TransactionNo: Mã giao dịch VNPAY), reference (vnp_TxnRef: Mã đơn hàng, Mã tham chiếu)
              at, amount (VND: Số tiền), fee (VND, may be left out: Phí, Phí giao dịch)
              status (00, or Thành công; all others were not paid: Trạng thái)

An amount may group its thousands by dots, commas or spaces, end in two zeros behind the other sign, and carry VND or đ:
1.500.000 = 1,500,000.00 = 1 500 000 đ. A sign that could mean either is taken for thousands, for the dong has no parts.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

from billing import references
from billing.imports.report import Problems, shown
from billing.imports.rows import Row, cells_of, lines

HANOI = ZoneInfo("Asia/Ho_Chi_Minh")
MOST = 10**13
LONGEST_ID = 100
BANK_COLUMNS = {
    "transaction_id": ("so tham chieu", "so but toan", "ma giao dich", "reference", "reference number"),
    "at": ("ngay giao dich", "thoi gian giao dich", "ngay gio giao dich", "transaction date", "date"),
    "debit": ("ghi no", "so tien ghi no", "phat sinh no", "debit amount"),
    "credit": ("ghi co", "so tien ghi co", "phat sinh co", "credit amount"),
    "description": ("mo ta", "noi dung", "noi dung giao dich", "dien giai", "remarks", "details"),
}
VNPAY_COLUMNS = {
    "transaction_id": ("vnp_transactionno", "ma giao dich vnpay", "ma gd vnpay"),
    "reference": ("vnp_txnref", "ma don hang", "ma tham chieu"),
    "at": ("vnp_paydate", "ngay giao dich", "thoi gian giao dich", "thoi gian thanh toan"),
    "amount": ("so tien", "so tien giao dich"),
    "fee": ("phi", "phi giao dich"),
    "status": ("vnp_transactionstatus", "trang thai"),
}
NOT_NEEDED = {"debit", "fee"}
PAID = ("00", "thanh cong", "success")
_CURRENCY = re.compile(r" ?(vnd|vnđ|đ|₫)$")
_AMOUNT = re.compile(
    r"(?P<whole>\d+|\d{1,3}(?P<thousands>[., ])\d{3}(?:(?P=thousands)\d{3})*)(?:(?P<decimals>[.,])0{1,2})?", re.A
)
_TIME = re.compile(r"(\d{2})/(\d{2})/(\d{4}) +(\d{2}):(\d{2})(?::(\d{2}))?", re.A)


class Movement(NamedTuple):
    """One line of a bank's statement; `amount` in VND, what came in > 0, what went out < 0."""

    where: str
    transaction: str
    at: datetime
    amount: int
    description: str

    @property
    def references(self) -> list[str]:
        """What could be our references in its text."""
        return references.find(self.description)


class Settled(NamedTuple):
    """One line of VNPay's list; amounts in VND, the fee is VNPay's and not yet taken off."""

    where: str
    transaction: str
    reference: str
    at: datetime
    amount: int
    fee: int
    is_paid: bool


Record = TypeVar("Record", Movement, Settled)


class BadCell(ValueError):
    """A cell that cannot be read; `rule` names what it breaks."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule


def read_bank(path: Path) -> list[Movement]:
    """The movements of a statement in its order, a credit that stands there twice once. Raises ImportRefused."""
    return _read(path, BANK_COLUMNS, _movement, lambda movement: movement.amount > 0)


def read_vnpay(path: Path) -> list[Settled]:
    """The payments of VNPay's list in its order, one that stands there twice once. Raises ImportRefused."""
    return _read(path, VNPAY_COLUMNS, _settled, lambda settled: settled.is_paid)


def _read(
    path: Path,
    columns: Mapping[str, Collection[str]],
    make: Callable[[Row, dict[str, Any]], Record],
    is_credit: Callable[[Record], bool],
) -> list[Record]:
    problems = Problems()
    rows = _rows(path, columns, problems)
    problems.refuse_if_any()
    records = [make(row, values) for row in rows if (values := _values(row, columns, problems)) is not None]
    kept = list(_once(records, is_credit, problems))
    problems.refuse_if_any()
    return kept


def _rows(path: Path, columns: Mapping[str, Collection[str]], problems: Problems) -> list[Row]:
    """The rows by our names of the columns; those that we do not know are left out."""
    found = lines(path, problems)
    if not found:
        return []
    (where, header), *body = found
    names = [_known(folded(cell), columns) for cell in header]
    for name in columns:
        if names.count(name) > 1:
            problems.add(where, "duplicate_column", "two columns have this name, or mean the same", field=name)
        if name not in names and name not in NOT_NEEDED:
            also = ", ".join(columns[name])
            problems.add(where, "missing_column", f"is needed; also taken for it: {also}", field=name)
    return [row for line, cells in body for row in cells_of(line, names, cells, problems)]


def _known(name: str, columns: Mapping[str, Collection[str]]) -> str:
    return next((known for known, also in columns.items() if name == known or name in also), "")


def folded(text: str) -> str:
    """A text without accents, case and double spaces: "Số tiền  ghi CÓ" is "so tien ghi co"."""
    letters = unicodedata.normalize("NFD", text.replace("đ", "d").replace("Đ", "D"))
    bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return " ".join(bare.casefold().split())


def _values(row: Row, columns: Iterable[str], problems: Problems) -> dict[str, Any] | None:
    """The values of a row by column; None, and a problem each, where some are bad."""
    values: dict[str, Any] = {}
    before = len(problems.records)
    for name in columns:
        try:
            values[name] = CELLS[name](row.cells.get(name, ""))
        except BadCell as error:
            problems.add(row.where, error.rule, str(error), id=row.cells.get("transaction_id"), field=name)
    if not problems.records[before:] and "credit" in values and bool(values["credit"]) == bool(values["debit"]):
        detail = "exactly one of debit and credit must be an amount above 0"
        problems.add(row.where, "no_movement", detail, id=values["transaction_id"], field="credit")
    return None if problems.records[before:] else values


def _movement(row: Row, values: dict[str, Any]) -> Movement:
    amount = values["credit"] - values["debit"]
    return Movement(row.where, values["transaction_id"], values["at"], amount, values["description"])


def _settled(row: Row, values: dict[str, Any]) -> Settled:
    return Settled(
        row.where, values["transaction_id"], values["reference"], values["at"], values["amount"], values["fee"],
        folded(values["status"]) in PAID,
    )  # fmt: skip


def _once(records: Iterable[Record], is_credit: Callable[[Record], bool], problems: Problems) -> Iterable[Record]:
    """Each credit once. A second one with the same id and anything else in it cannot be told from a mistake."""
    seen: dict[str, Record] = {}
    for record in records:
        first = seen.setdefault(record.transaction, record) if is_credit(record) else record
        if first is record:
            yield record
        elif first[1:] != record[1:]:
            detail = f"another movement has it in {first.where}"
            problems.add(record.where, "duplicate_id", detail, id=record.transaction, field="transaction_id")


def parse_amount(text: str) -> int:
    """VND of an amount as banks print it; nothing and a lone dash are 0. Raises BadCell."""
    bare = _CURRENCY.sub("", " ".join(text.casefold().split())).removeprefix("+")
    if bare in ("", "-"):
        return 0
    match = _AMOUNT.fullmatch(bare)
    if match is None or match["thousands"] == match["decimals"] is not None:
        raise BadCell("not_an_amount", f"{shown(text)} is no whole amount of VND as 1.500.000 or 1,500,000")
    amount = int(re.sub(r"\D", "", match["whole"]))
    if amount > MOST:
        raise BadCell("out_of_range", f"{shown(text)} is more than {MOST}")
    return amount


def parse_time(text: str) -> datetime:
    """An instant of dd/MM/yyyy HH:mm[:ss] in Hanoi. Raises BadCell."""
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        day, month, year, hour, minute, second = (int(part or 0) for part in match.groups())
        return datetime(year, month, day, hour, minute, second, tzinfo=HANOI)
    except ValueError:
        detail = f"{shown(text)} is no time as 26/11/2026 09:30 or 26/11/2026 09:30:00"
        raise BadCell("not_a_time", detail) from None


def _id(text: str) -> str:
    if not 1 <= len(text) <= LONGEST_ID or not text.isprintable():
        raise BadCell("bad_id", f"1 to {LONGEST_ID} printable characters")
    return text


def _text(text: str) -> str:
    if "\x00" in text:  # which no database keeps
        raise BadCell("bad_text", "holds a NUL character")
    return text


def _debit(text: str) -> int:
    """Some banks print what goes out with a minus."""
    return parse_amount(text.strip().removeprefix("-") or "-")


CELLS: dict[str, Callable[[str], Any]] = {
    "transaction_id": _id,
    "reference": _id,
    "at": parse_time,
    "debit": _debit,
    "credit": parse_amount,
    "amount": parse_amount,
    "fee": _debit,
    "description": _text,
    "status": str,
}

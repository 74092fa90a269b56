"""Statements of banks and of VNPay: read as they are printed, or refused with the line and the column."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import references
from billing.gateways import statements
from billing.gateways.statements import BadCell, Movement, Settled, parse_amount, parse_time
from billing.imports import ImportRefused
from tests.billing.rate_examples import hanoi

REFERENCE = references.new(random.Random(1).choice)
HEADER = "transaction_id,at,debit,credit,description"
LINE = f"FT26330001,26/11/2026 09:30:15,,25000,{REFERENCE}"


def bank(folder: Path, *lines: str, encoding: str = "utf-8", end: str = "\n") -> list[Movement]:
    file = folder / "statement.csv"
    file.write_bytes(end.join(lines).encode(encoding))
    return statements.read_bank(file)


def refusal(folder: Path, *lines: str) -> list[tuple[str, str | None, str]]:
    with pytest.raises(ImportRefused) as refused:
        bank(folder, *lines)
    return [(record.where, record.field, record.rule) for record in refused.value.records]


def test_statement_is_read(tmp_path: Path):
    (movement,) = bank(tmp_path, HEADER, LINE)
    assert movement == ("line 2", "FT26330001", hanoi("2026-11-26T09:30:15"), 25_000, REFERENCE)
    assert movement.references == [REFERENCE]


def test_statement_as_a_bank_prints_it(tmp_path: Path):
    """A byte order mark, semicolons, the bank's own names, columns that are not ours, text over two lines."""
    movements = bank(
        tmp_path,
        "STT;Ngày  giao dịch;Số tham chiếu;Số tiền ghi nợ;Số tiền ghi CÓ;Số dư;Mô tả",
        '1;26/11/2026 09:30;5243.65937;;"1.500.000,00";52.547;'
        f'"MBVCB.4525077405.{REFERENCE[:6]}\n {REFERENCE[6:]}.CT tu 0351000646393 NGUYEN THE HUNG"',
        "2;26/11/2026 10:00:01;5243.65938;-99.000;0;1;Phí chuyển tiền",
        "",
        encoding="utf-8-sig",
        end="\r\n",
    )
    assert [(one.transaction, one.amount, one.where) for one in movements] == [
        ("5243.65937", 1_500_000, "line 2"),
        ("5243.65938", -99_000, "line 4"),
    ]
    assert movements[0].references == [REFERENCE] and movements[1].references == []


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_separators(tmp_path: Path, delimiter: str):
    lines = (HEADER.replace(",", delimiter), LINE.replace(",", delimiter))
    assert [movement.amount for movement in bank(tmp_path, *lines)] == [25_000]


def test_credit_that_stands_twice_is_read_once(tmp_path: Path):
    assert len(bank(tmp_path, HEADER, LINE, LINE)) == 1


def test_fee_may_carry_the_id_of_its_transfer(tmp_path: Path):
    fee = "FT26330001,26/11/2026 09:30:15,1100,,FEE"
    assert [one.amount for one in bank(tmp_path, HEADER, LINE, fee, fee)] == [25_000, -1_100, -1_100]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ((HEADER, LINE.replace("25000", "25.5")), ("line 2", "credit", "not_an_amount")),
        ((HEADER, LINE.replace("25000", "-25000")), ("line 2", "credit", "not_an_amount")),
        ((HEADER, LINE.replace("25000", "25000000000000000")), ("line 2", "credit", "out_of_range")),
        ((HEADER, LINE.replace(",,25000", ",x,25000")), ("line 2", "debit", "not_an_amount")),
        ((HEADER, LINE.replace("25000", "")), ("line 2", "credit", "no_movement")),
        ((HEADER, LINE.replace(",,", ",1,")), ("line 2", "credit", "no_movement")),
        ((HEADER, LINE.replace("26/11/2026", "2026-11-26")), ("line 2", "at", "not_a_time")),
        ((HEADER, LINE.replace("26/11/2026", "11/26/2026")), ("line 2", "at", "not_a_time")),
        ((HEADER, LINE.replace(" 09:30:15", "")), ("line 2", "at", "not_a_time")),
        ((HEADER, LINE.replace("FT26330001", "")), ("line 2", "transaction_id", "bad_id")),
        ((HEADER, LINE.replace("FT26330001", "F" * 101)), ("line 2", "transaction_id", "bad_id")),
        ((HEADER, LINE, LINE.replace("25000", "26000")), ("line 3", "transaction_id", "duplicate_id")),
        ((HEADER, LINE + "\x00"), ("line 2", "description", "bad_text")),
        ((HEADER, LINE + ",x"), ("line 2", None, "wrong_number_of_columns")),
        ((HEADER, '"' + LINE), ("line 2", None, "malformed_csv")),
        ((HEADER.replace("credit", "amount"), LINE), ("line 1", "credit", "missing_column")),
        ((HEADER.replace("at,", "when,"), LINE), ("line 1", "at", "missing_column")),
        ((HEADER.replace("debit", "Ghi có"), LINE), ("line 1", "credit", "duplicate_column")),
        ((HEADER,), ("file", None, "empty_file")),
        (("",), ("file", None, "empty_file")),
        (('{"a": 1}',), ("file", None, "not_csv")),
    ],
)
def test_bad_statement_is_refused_with_line_and_column(tmp_path: Path, lines: tuple, problem: tuple):
    assert refusal(tmp_path, *lines)[0] == problem


def test_all_that_is_wrong_is_said(tmp_path: Path):
    bad = LINE.replace("25000", "x").replace("09:30", "25:30")
    assert [where for where, *_ in refusal(tmp_path, HEADER, bad, LINE, bad)] == [
        "line 2",
        "line 2",
        "line 4",
        "line 4",
    ]


def test_bytes_that_are_no_utf8_are_named(tmp_path: Path):
    file = tmp_path / "statement.csv"
    file.write_bytes(f"{HEADER}\n{LINE} ".encode() + "Phí".encode("cp1258") + b"\n")
    with pytest.raises(ImportRefused, match="line 2: bad_utf8"):
        statements.read_bank(file)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("", 0), ("-", 0), ("0", 0), ("0,00", 0),
        ("15000", 15_000), ("15.000", 15_000), ("15,000", 15_000), ("15 000", 15_000), ("15\u00a0000", 15_000),
        ("1.500.000", 1_500_000), ("1,500,000.00", 1_500_000), ("1.500.000,00", 1_500_000), ("1500000.00", 1_500_000),
        ("+15.000", 15_000), ("15.000 đ", 15_000), ("15.000VND", 15_000), ("15,000 VNĐ", 15_000), ("15.000₫", 15_000),
        ("1.5", None), ("1,50", None), ("15.0000", None), ("1.500.00", None), ("1,500.000", None), ("1500.000", None),
        ("15..000", None), (".000", None), ("15000-", None), ("-15000", None), ("15000 USD", None), ("1e4", None),
        ("١٥٠٠٠", None), ("0.01", None), ("15.000,01", None), ("12.34.567", None),
    ],
)  # fmt: skip
def test_amounts_as_banks_print_them(text: str, amount: int | None):
    if amount is not None:
        assert parse_amount(text) == amount
        return
    with pytest.raises(BadCell):
        parse_amount(text)


@given(
    st.integers(0, 10**13), st.sampled_from([("", ""), (",", "."), (".", ","), (" ", ","), (" ", ".")]), st.booleans()
)
def test_every_amount_is_read_back(amount: int, signs: tuple[str, str], has_decimals: bool):
    thousands, decimals = signs
    printed = f"{amount:,}".replace(",", thousands) + (f"{decimals or ','}00" if has_decimals else "")
    assert parse_amount(printed) == amount


@given(st.datetimes(min_value=hanoi("2000-01-01").replace(tzinfo=None)))
def test_every_time_is_read_back(local):
    at = hanoi(local.replace(microsecond=0).isoformat())
    assert parse_time(f"{at:%d/%m/%Y %H:%M:%S}") == at
    assert parse_time(f"{at:%d/%m/%Y %H:%M}") == at.replace(second=0)


def settled(folder: Path, *lines: str) -> list[Settled]:
    file = folder / "vnpay.csv"
    file.write_text("\n".join(lines))
    return statements.read_vnpay(file)


def test_vnpays_list_is_read(tmp_path: Path):
    paid, failed = settled(
        tmp_path,
        "Mã giao dịch VNPAY,Mã đơn hàng,Thời gian giao dịch,Số tiền,Phí,Trạng thái,Ngân hàng",
        f'14226112,{REFERENCE},26/11/2026 23:35:12,"85,000","1,650",Thành công,NCB',
        f"14226113,{REFERENCE},26/11/2026 23:36:00,85000,,Thất bại,NCB",
    )
    assert paid == ("line 2", "14226112", REFERENCE, hanoi("2026-11-26T23:35:12"), 85_000, 1_650, True)
    assert (failed.is_paid, failed.fee) == (False, 0)


def test_vnpays_own_names_and_codes_are_known(tmp_path: Path):
    header = "vnp_TransactionNo,vnp_TxnRef,vnp_PayDate,amount,vnp_TransactionStatus"
    line = f"1,{REFERENCE},26/11/2026 23:35,85000,00"
    assert [one.is_paid for one in settled(tmp_path, header, line, line)] == [True]
    with pytest.raises(ImportRefused, match="line 2 1 reference: bad_id"):
        settled(tmp_path, header, line.replace(REFERENCE, ""))

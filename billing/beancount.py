"""The ledger as a beancount file: plain text that others' tools read, and that `bean-check` proves once more.

Beancount knows days (here Hanoi's), no instants; debits are positive, as here. An account's name tells its code back:
its first part comes from its kind, each part of the code after that follows as X- and the part, in which every byte of
UTF-8 but ASCII letters and digits is written -HH: wallet/driver-1 is Liabilities:Wallet:X-driver-2D1.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

HANOI = ZoneInfo("Asia/Ho_Chi_Minh")
ROOTS = {
    "wallet": "Liabilities:Wallet",
    "float": "Liabilities:Float",
    "vat": "Liabilities:Vat",
    "city_share": "Liabilities:CityShare",
    "city_share_cost": "Expenses:CityShare",
    "receivable": "Assets:Receivable",
    "clearing": "Assets:Clearing",
    "bank": "Assets:Bank",
    "revenue": "Income:Revenue",
    "fee": "Expenses:Fee",
    "refund": "Expenses:Refund",
    "cash_difference": "Expenses:CashDifference",
    "funding": "Equity:Funding",
}
KINDS = {root: kind for kind, root in ROOTS.items()}
# Rows that the server hands over at a time.
BATCH = 5_000
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def account_name(code: str) -> str:
    """The name of an account in beancount."""
    kind, *parts = code.split("/")
    return ":".join([ROOTS[kind], *(f"X-{_encode(part)}" for part in parts)])


def account_code(name: str) -> str:
    """The code of an account that has this name in beancount."""
    root, *parts = name.split(":X-")
    return "/".join([KINDS[root], *(_decode(part) for part in parts)])


def _encode(part: str) -> str:
    return "".join(
        chr(byte) if chr(byte).isascii() and chr(byte).isalnum() else f"-{byte:02X}" for byte in part.encode()
    )


def _decode(part: str) -> str:
    raw = re.sub(rb"-([0-9A-F]{2})", lambda found: bytes([int(found[1], 16)]), part.encode())
    return raw.decode()


def _text(value: str) -> str:
    return f'"{value.translate(_ESCAPES)}"'


_SPAN = "SELECT count(*), min(at), max(at) FROM ledger_transaction"
# What a person's wallet says is taken from its row, so that the entries have to agree with it.
_BALANCES = """
SELECT a.code, CASE a.kind WHEN 'wallet' THEN -w.balance WHEN 'float' THEN -w.balance WHEN 'receivable' THEN w.owed
                    ELSE COALESCE(m.amount, 0)::bigint END
  FROM ledger_account a
  LEFT JOIN (SELECT e.account_id, sum(e.amount) AS amount FROM ledger_entry e GROUP BY e.account_id) m
         ON m.account_id = a.id
  LEFT JOIN wallet w ON w.owner = a.owner AND w.kind = CASE a.kind WHEN 'float' THEN 'float' ELSE 'wallet' END
 ORDER BY a.code
"""
_ENTRIES = """
SELECT t.id, t.at, t.kind, t.reference, t.reverses, a.code, e.amount
  FROM ledger_transaction t JOIN ledger_entry e ON e.transaction_id = t.id JOIN ledger_account a ON a.id = e.account_id
 ORDER BY t.id, a.code
"""


def size(connection: psycopg.Connection) -> int:
    """How many transactions there are."""
    row = connection.execute(_SPAN).fetchone()
    return int(row[0]) if row else 0


def lines(connection: psycopg.Connection) -> Iterator[str]:
    """The file, a piece with its line ends at a time: the accounts, each transaction, and what each account must hold
    on the day after the last. `connection` is in one snapshot for as long as this lasts (REPEATABLE READ)."""
    row = connection.execute(_SPAN).fetchone()
    assert row is not None
    yield ';; -*- mode: beancount -*-\noption "title" "iParking"\noption "operating_currency" "VND"\n\n'
    if not row[0]:
        return
    first, last = (instant.astimezone(HANOI).date() for instant in row[1:])
    balances = connection.execute(_BALANCES).fetchall()
    yield f"{first} commodity VND\n"
    for code, _ in balances:
        yield f"{first} open {account_name(code)} VND\n  code: {_text(code)}\n"
    yield from _transactions(connection)
    yield "\n"
    day_after = last.fromordinal(last.toordinal() + 1)
    for code, amount in balances:
        yield f"{day_after} balance {account_name(code)} {amount} VND\n"


def _transactions(connection: psycopg.Connection) -> Iterator[str]:
    with connection.cursor("entries") as cursor:
        cursor.itersize = BATCH
        cursor.execute(_ENTRIES)
        for transaction, entries in groupby(cursor, itemgetter(slice(5))):
            yield _transaction(transaction, (row[5:] for row in entries))


def _transaction(transaction: tuple[Any, ...], entries: Iterable[tuple[Any, ...]]) -> str:
    transaction_id, at, kind, reference, reverses = transaction
    head = [f"\n{at.astimezone(HANOI).date()} * {_text(kind)} {_text(reference)}", f'  id: "{transaction_id}"']
    if reverses:
        head.append(f'  reverses: "{reverses}"')
    return "\n".join([*head, *(f"  {account_name(code)}  {amount} VND" for code, amount in entries), ""])

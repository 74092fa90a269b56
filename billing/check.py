"""Prove the ledger: its invariants over all that was ever booked, as one instant of the database has it.

The database refuses to break most of them; this looks at the rows alone, and takes no trigger's word for it. Sums and
joins are PostgreSQL's work, a few passes over the entries; nothing of their size comes here.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import psycopg
from psycopg import sql

FIRST = 5
# Each sort and each hash table in each worker may take so much. More does not pay: what is large is read in the order
# of an index, or sorted on the disk. Compiling takes longer than it gains.
SETTINGS = (
    "SET LOCAL work_mem = '32MB'",
    "SET LOCAL hash_mem_multiplier = 1",
    "SET LOCAL jit = off",
    "SET LOCAL statement_timeout = 0",
)
# No session: for a database of which only the ledger is to be proved.
NO_SESSIONS: str = "SELECT NULL::uuid AS id, 0::bigint AS fee, NULL::timestamptz AS ended_at WHERE false"
WELL_FORMED = (
    r"^((wallet|receivable|float)/.+|(clearing|fee)/[^/]+|revenue/[^/]+/[^/]+"
    r"|city_share_cost/[^/]+|vat|city_share|refund|bank|cash_difference|funding)$"
)


@dataclass(frozen=True, slots=True)
class Invariant:
    """What holds of every row of a pass that `counts`: that it is not `wrong`. `shown` says what is there. All three
    are SQL over the pass's columns."""

    name: str
    says: str
    wrong: str
    counts: str = "true"
    shown: str = "''"


@dataclass(frozen=True, slots=True)
class Proof:
    """How many rows an invariant was looked at for, how many broke it, and the first of those."""

    name: str
    says: str
    checked: int
    wrong: int
    first: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"name": self.name, "says": self.says, "checked": self.checked, "wrong": self.wrong,
                "first": list(self.first)}  # fmt: skip


_PARKING: str = "kind = 'parking'"
PASSES: dict[str, tuple[Invariant, ...]] = {
    "accounts": (
        Invariant("account_codes", "an account's code is of a known form",
                  f"what !~ '{WELL_FORMED}'"),
    ),
    "transactions": (
        Invariant("balanced", "a transaction has two entries or more, which sum to zero",
                  "total IS DISTINCT FROM 0 OR entries < 2", "id IS NOT NULL",
                  "COALESCE(entries, 0) || ' entries, sum ' || COALESCE(total, 0)"),
        Invariant("parking_fees", "revenue and VAT of a session are its fee, where the session is not archived",
                  "gross IS DISTINCT FROM fee", _PARKING + " AND session IS NOT NULL",
                  "COALESCE(gross, 0) || ' booked, fee ' || fee"),
        Invariant("vat", "VAT of a session is what its rate makes of its fee",
                  "vat IS DISTINCT FROM gross - vat_net(gross, basis_points)", _PARKING,
                  "concat(vat, ' of ', gross, ', ', basis_points, ' basis points')"),
        Invariant("sessions_charged", "a session with a fee that ended since the ledger began was charged",
                  "id IS NULL", "session IS NOT NULL AND fee > 0 AND must_be_charged",
                  "'session ' || session || ' owes ' || fee"),
    ),
    "wallets": (
        Invariant("wallet_balances", "a wallet's balance is what its entries sum to", "balance <> entries_balance",
                  shown="balance || ', entries ' || entries_balance"),
        Invariant("wallet_debts", "what a driver owes is what the receivable's entries sum to", "owed <> entries_owed",
                  shown="owed || ', entries ' || entries_owed"),
        Invariant("wallet_holds", "what is held in a wallet is the sum of its pending holds", "held <> pending",
                  shown="held || ', pending ' || pending"),
    ),
    "instants": (
        Invariant("never_overdrawn", "no wallet was ever below zero, in the order of booking", "after < 0",
                  shown="after::text"),
    ),
    "reversals": (
        Invariant("reversals", "a reversal is the exact opposite of what it reverses", "unlike > 0",
                  shown="unlike || ' accounts differ'"),
    ),
    "refunds": (
        Invariant("refunds", "what was given back of a charge is booked so, and is no more in all than the charge",
                  "taken IS DISTINCT FROM amount OR NOT is_dated OR given > charged",
                  shown="concat(amount, ', booked ', taken, ', in all ', given, ' of ', charged)"),
    ),
    "given_back": (
        Invariant("refunds_by_card", "a refund by card is on the card or in the wallet, or waits for its gateway",
                  "settled > by_page", "booked IS NULL",
                  "concat(settled, ' settled by the gateway''s page, which gave ', by_page)"),
        Invariant("refund_account", "the account refund is what waits for gateways, less what they gave at our loss",
                  "booked <> due", "booked IS NOT NULL", "concat(booked, ', due ', due)"),
    ),
    "receipts": (
        Invariant("receipts_issued", "revenue has its receipt, as far as the job that issues them has come",
                  "receipt IS NULL", "is_due", "net || ' VND of revenue'"),
        Invariant("receipt_amounts", "a receipt says what was booked: revenue, VAT, district",
                  "(amount - receipt_vat, receipt_vat, receipt_district) IS DISTINCT FROM (net, vat, district)",
                  "receipt IS NOT NULL", "concat(amount, ', booked ', net + vat, ' in ', district)"),
    ),
    "districts": (
        Invariant("receipt_revenue", "the receipts of a district come to its revenue, as far as that job has come",
                  "receipts <> booked", shown="receipts || ', booked ' || booked"),
    ),
    "papers": (
        Invariant("credit_notes", "a credit note corrects the receipt of its own session",
                  "corrects_its_own IS NOT TRUE", "kind = 'credit_note'"),
        Invariant("einvoices", "a receipt has its e-invoice, with the same number",
                  "invoice_number IS DISTINCT FROM number",
                  shown="concat(number, ', e-invoice ', invoice_number)"),
    ),
    "series": (
        Invariant("numbers", "the numbers of a series of receipts or e-invoices have no gap",
                  "issued <> highest OR issued <> last",
                  shown="issued || ' issued, the last number is ' || last"),
    ),
    "city_share": (
        Invariant("city_share", "the city has its share of what a district earned by each day, and no day is left out",
                  "revenue IS DISTINCT FROM earned OR share IS DISTINCT FROM due OR skipped <> 0 "
                  "OR cost IS DISTINCT FROM share OR debt IS DISTINCT FROM share",
                  shown="concat('booked ', cost, ', due ', due, ', of ', earned, ' earned and ', revenue, ' counted')"),
    ),
}  # fmt: skip


def check(
    connection: psycopg.Connection,
    sessions: str = NO_SESSIONS,
    say: Callable[[str], None] = lambda _: None,
) -> list[Proof]:
    """Prove every invariant, in one snapshot. `connection` is in no transaction.

    `sessions` is a query of the sessions that ended: id (the reference that the ledger has), fee in VND, and ended_at,
    the instant of its booking. `say` is told the name of each pass before it. Raises psycopg.Error.
    """
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        for setting in SETTINGS:
            connection.execute(setting)
        given = {"sessions": sql.SQL(sessions), **_accounts(connection)}
        return [proof for name in PASSES for proof in _prove(connection, name, given, say)]


def _accounts(connection: psycopg.Connection) -> dict[str, sql.Composable]:
    """The ids of the accounts of what is earned (`income`: revenue and VAT) and of `vat` alone, as arrays in SQL."""
    found = connection.execute(
        "SELECT array_agg(id), array_agg(id) FILTER (WHERE kind = 'vat') "
        "FROM ledger_account WHERE kind IN ('revenue', 'vat')"
    ).fetchone()
    assert found is not None
    return {
        name: sql.Literal(ids or []) + sql.SQL("::bigint[]") for name, ids in zip(("income", "vat"), found, strict=True)
    }


def _prove(
    connection: psycopg.Connection, name: str, given: Mapping[str, sql.Composable], say: Callable[[str], None]
) -> Iterator[Proof]:
    say(name)
    rows, invariants = sql.SQL(_source(name)).format(**given), PASSES[name]
    counts = sql.SQL(", ").join(
        sql.SQL("count(*) FILTER (WHERE {counts}), count(*) FILTER (WHERE ({counts}) AND ({wrong}))").format(
            counts=sql.SQL(one.counts), wrong=sql.SQL(one.wrong)
        )
        for one in invariants
    )
    found = connection.execute(sql.SQL("SELECT {} FROM ({}) rows").format(counts, rows)).fetchone()
    assert found is not None
    for number, one in enumerate(invariants):
        checked, wrong = found[2 * number : 2 * number + 2]
        yield Proof(one.name, one.says, checked, wrong, _first(connection, rows, one) if wrong else ())


def _first(connection: psycopg.Connection, rows: sql.Composed, broken: Invariant) -> tuple[str, ...]:
    """The first rows that break an invariant: a second pass, only where there are any."""
    query = sql.SQL("SELECT concat_ws(': ', what, {}) FROM ({}) rows WHERE ({}) AND ({}) ORDER BY 1 LIMIT {}").format(
        sql.SQL(broken.shown), rows, sql.SQL(broken.counts), sql.SQL(broken.wrong), sql.Literal(FIRST)
    )
    return tuple(row[0] for row in connection.execute(query))


@cache
def _source(name: str) -> str:
    file = resources.files(__package__ or "billing") / "sql" / "check" / f"{name}.sql"
    return file.read_text(encoding="utf-8")

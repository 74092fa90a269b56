"""A day's payments over every rail, in bulk, with faults among them: the books of the gateways, and what we know."""

import csv
import random
from collections import Counter
from datetime import date, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg

from billing import ledger, references
from billing.ledger import Posting
from billing.payments import new_id
from billing.reconcile.days import HANOI, span_of
from tests.fake_stripe import StripeServer

BATCH = 500
# What goes wrong on each rail; None: nothing. `kind` of the difference that it makes, and its state in the end.
FAULTS = {
    "card": {
        "lost_response": ("missing_at_us", "healed"),
        "lost_webhook": ("missing_at_us", "healed"),
        "doubled_charge": ("doubled", "healed"),
        "page_refund": ("refund_at_gateway", "healed"),
        "wrong_amount": ("wrong_amount", "open"),
        "unknown_to_stripe": ("missing_at_gateway", "open"),
    },
    "vietqr": {
        "lost_webhook": ("missing_at_us", "healed"),
        "wrong_amount": ("wrong_amount", "open"),
        "of_nobody": ("unmatched_credit", "open"),
        "booked_next_day": ("late", "explained"),
        "unknown_to_bank": ("missing_at_gateway", "open"),
    },
    "vnpay": {"lost_webhook": ("missing_at_us", "healed"), "wrong_amount": ("wrong_amount", "open")},
}
GATEWAYS = {"card": "stripe", "vietqr": "vietqr", "vnpay": "vnpay"}


class Town:
    """Payments of a day. `expected` counts the differences (gateway, kind, state) that the faults must make."""

    def __init__(self, db: psycopg.Connection, stripe: StripeServer, folder: Path, day: date, seed: int = 1) -> None:
        self.db, self.stripe, self.day, self.random = db, stripe, day, random.Random(seed)
        self.statement, self.vnpay = folder / f"bank-{day}.csv", folder / f"vnpay-{day}.csv"
        self.expected: Counter[tuple[str, str, str]] = Counter()
        self.asked: dict[str, int] = {}
        self._payments: list[tuple] = []
        self._credits: list[tuple] = []
        self._postings: list[Posting] = []
        self._bank: list[tuple[str, datetime, int, str]] = []
        self._settled: list[tuple[str, str, datetime, int]] = []

    def pay(self, method: str, fault: str | None = None, at: datetime | None = None) -> str:
        """One payment with at most one fault; our reference."""
        at = at or span_of(self.day).since + timedelta(seconds=self.random.randrange(60, 86_000))
        amount, reference = self.random.randrange(15, 400) * 1000, references.new()
        self.asked[reference] = amount
        if fault:
            self.expected[GATEWAYS[method], *FAULTS[method][fault]] += 1
        {"card": self._card, "vietqr": self._vietqr, "vnpay": self._vnpay}[method](reference, amount, at, fault)
        return reference

    # --- cards ----------------------------------------------------------------------------------------------------
    def _card(self, reference: str, amount: int, at: datetime, fault: str | None) -> None:
        unheard = fault in ("lost_response", "lost_webhook")
        state = {"lost_response": "unknown", "lost_webhook": "requires_action"}.get(fault or "", "paid")
        intent = f"pi_gone_{reference}" if fault == "unknown_to_stripe" else self._charge(reference, amount, at)
        known = None if fault == "lost_response" else intent
        client = self._row(reference, "card", amount, at, state, None if unheard else amount, known)
        if not unheard:
            entries = {"clearing/stripe": amount, f"receivable/{client}": -amount}
            self._postings.append(Posting("payment", reference, at, entries))
        if fault == "doubled_charge":
            self._charge(reference, amount, at + timedelta(seconds=30))
        elif fault == "page_refund":
            self.stripe.books.refund({"payment_intent": intent, "amount": str(amount // 2)})
        elif fault == "wrong_amount":
            line = self.stripe.books.of("balance_transaction")[-1]
            line |= {"amount": amount + 1_000, "net": line["net"] + 1_000}

    def _charge(self, reference: str, amount: int, at: datetime) -> str:
        books = self.stripe.books
        books.now = at.timestamp
        intent = books.create_intent({
            "amount": str(amount), "currency": "vnd", "payment_method": "pm_card_visa", "confirm": "true",
            "capture_method": "automatic", "metadata": {"payment": reference},
        })  # fmt: skip
        return intent["id"]

    # --- transfers ------------------------------------------------------------------------------------------------
    def _vietqr(self, reference: str, amount: int, at: datetime, fault: str | None) -> None:
        transaction = f"FT{len(self.asked):08d}"
        text = "cam on" if fault == "of_nobody" else f"ND {reference} chuyen tien"
        if fault != "unknown_to_bank":
            on_statement = amount + 1_000 if fault == "wrong_amount" else amount
            self._bank.append((transaction, at, on_statement, text))
        booked_at = at + timedelta(days=1) if fault == "booked_next_day" else at
        unheard = fault in ("lost_webhook", "of_nobody")
        self._transfer("vietqr", reference, amount, transaction, text, at, booked_at, unheard)

    def _vnpay(self, reference: str, amount: int, at: datetime, fault: str | None) -> None:
        transaction = f"{14_000_000 + len(self.asked)}"
        self._settled.append((transaction, reference, at, amount + (1_000 if fault == "wrong_amount" else 0)))
        self._transfer("vnpay", reference, amount, transaction, reference, at, at, fault == "lost_webhook")

    def _transfer(
        self, gateway: str, reference: str, amount: int, transaction: str, text: str, at: datetime,
        booked_at: datetime, unheard: bool,
    ) -> None:  # fmt: skip
        state, paid = ("created", None) if unheard else ("paid", amount)
        key = f"{gateway}/{transaction}"
        client = self._row(reference, gateway, amount, at, state, paid, None if unheard else key)
        if unheard:
            return
        payment = self._payments[-1][0]
        self._credits.append((gateway, transaction, amount, at, text, booked_at, payment, client))
        entries = {f"clearing/{gateway}": amount, f"receivable/{client}": -amount}
        self._postings.append(Posting("transfer", key, booked_at, entries))

    def _row(
        self, reference: str, method: str, amount: int, at: datetime, state: str, paid: int | None, known: str | None
    ) -> str:
        client = f"driver-{self.random.randrange(max(len(self.asked) // 5, 1))}"
        id_: UUID = new_id(at)
        self._payments.append(
            (id_, client, "arrears", None, method, amount, paid, state, reference, known, at, at if paid else None)
        )
        return client

    # --- written down ---------------------------------------------------------------------------------------------
    def write(self) -> None:
        """Put all into the database and the files. Every driver owed what was paid."""
        at = span_of(self.day).since - timedelta(days=2)
        owed = [Posting("parking", str(row[0]), at, {f"receivable/{row[1]}": row[5], "vat": -row[5]})
                for row in self._payments]  # fmt: skip
        with self.db.transaction():
            self._copy("payment (id, client, purpose, session_id, method, amount, paid, state, reference, "
                       "gateway_reference, created_at, settled_at)", self._payments)  # fmt: skip
            self._copy("credit (gateway, transaction_id, amount, at, description, received_at, payment_id, client)",
                       self._credits)  # fmt: skip
        postings = owed + self._postings
        for first in range(0, len(postings), BATCH):
            ledger.post(self.db, postings[first : first + BATCH])
        self._write_files()
        self.stripe.books.now = (span_of(self.day).until + timedelta(days=2)).timestamp

    def _copy(self, table: str, rows: list[tuple]) -> None:
        with self.db.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)

    def _write_files(self) -> None:
        with self.statement.open("w", newline="", encoding="utf-8") as file:
            written = csv.writer(file)
            written.writerow(["transaction_id", "at", "debit", "credit", "description"])
            for transaction, at, amount, text in self._bank:
                written.writerow([transaction, _local(at), "", f"{amount:,}", text])
        with self.vnpay.open("w", newline="", encoding="utf-8") as file:
            written = csv.writer(file)
            written.writerow(["transaction_id", "reference", "at", "amount", "fee", "status"])
            for transaction, reference, at, amount in self._settled:
                written.writerow([transaction, reference, _local(at), amount, amount // 100, "00"])


def _local(at: datetime) -> str:
    return at.astimezone(HANOI).strftime("%d/%m/%Y %H:%M:%S")

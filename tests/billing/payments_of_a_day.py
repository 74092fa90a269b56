"""A day's payments over every rail, in bulk, with faults among them: the books of the gateways, and what we know."""

import csv
import json
import random
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from billing import ledger, payments, references, shifts, transfers, webhooks
from billing.gateways.vnpay import Notice
from billing.ledger import Posting
from billing.payments import new_id
from billing.reconcile.days import HANOI, span_of
from billing.transfers import Credit
from billing.webhooks import Event, Times
from tests.fake_stripe import StripeServer

BATCH = 500
SHORT = 5_000
# What goes wrong on each rail: `kind` of the difference that it makes, and its state in the end. None: it makes none.
FAULTS: dict[str, dict[str, tuple[str, str] | None]] = {
    "card": {
        "doubled_webhook": None,
        "lost_response": ("missing_at_us", "healed"),
        "lost_webhook": ("missing_at_us", "healed"),
        "doubled_charge": ("doubled", "healed"),
        "page_refund": ("refund_at_gateway", "healed"),
        "wrong_amount": ("wrong_amount", "open"),
        "unknown_to_stripe": ("missing_at_gateway", "open"),
    },
    "vietqr": {
        "doubled_webhook": None,
        "lost_webhook": ("missing_at_us", "healed"),
        "wrong_amount": ("wrong_amount", "open"),
        "of_nobody": ("unmatched_credit", "open"),
        "booked_next_day": ("late", "explained"),
        "unknown_to_bank": ("missing_at_gateway", "open"),
    },
    "vnpay": {
        "doubled_webhook": None,
        "lost_webhook": ("missing_at_us", "healed"),
        "wrong_amount": ("wrong_amount", "open"),
    },
    "cash": {
        "not_booked": ("cash_not_booked", "open"),
        "not_moved": ("cash_not_moved", "open"),
        "wrong_amount": ("cash_wrong_amount", "open"),
        "counted_short": ("cash_difference", "explained"),
        "left_open": ("shift_open", "open"),
    },
}
GATEWAYS = {"card": "stripe", "vietqr": "vietqr", "vnpay": "vnpay", "cash": "cash"}
# Attendants who take cash all day; a shift that goes wrong has one of its own.
ATTENDANTS, FLOAT = 5, 10**12


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
        self._told: list[Callable[[], object]] = []
        self._shifts: dict[str, UUID] = {}
        self._left_open: set[str] = set()
        self._short: set[str] = set()
        self._moved: list[tuple[UUID, str, UUID, int, datetime]] = []
        self._holds: list[tuple] = []

    def pay(self, method: str, fault: str | None = None, at: datetime | None = None) -> str:
        """One payment with at most one fault; our reference."""
        at = at or span_of(self.day).since + timedelta(seconds=self.random.randrange(60, 86_000))
        amount, reference = self.random.randrange(15, 400) * 1000, references.new()
        self.asked[reference] = amount
        if fault and (difference := FAULTS[method][fault]):
            self.expected[GATEWAYS[method], *difference] += 1
        {"card": self._card, "vietqr": self._vietqr, "vnpay": self._vnpay, "cash": self._cash}[method](
            reference, amount, at, fault
        )
        return reference

    # --- cards ----------------------------------------------------------------------------------------------------
    def _card(self, reference: str, amount: int, at: datetime, fault: str | None) -> None:
        unheard = fault in ("lost_response", "lost_webhook", "doubled_webhook")
        state = {"lost_response": "unknown"}.get(fault or "", "requires_action" if unheard else "paid")
        intent = f"pi_gone_{reference}" if fault == "unknown_to_stripe" else self._charge(reference, amount, at)
        known = None if fault == "lost_response" else intent
        client = self._row(reference, "card", amount, at, state, None if unheard else amount, known)
        if not unheard:
            entries = {"clearing/stripe": amount, f"receivable/{client}": -amount}
            self._postings.append(Posting("payment", reference, at, entries))
        if fault == "doubled_webhook":
            self._told.append(partial(self._tell_of_charge, self.stripe.hooks.events[-1], at))
        elif fault == "doubled_charge":
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

    def _tell_of_charge(self, told: dict[str, Any], at: datetime) -> None:
        """Stripe sends an event twice, and later another one of the same charge; each that is stored is handled."""
        times, intent = Times(at, at), told["data"]["object"]
        kind = told["type"]

        def handle(event: Event) -> None:
            with self.db.transaction():
                payment = payments.find_at_gateway(self.db, json.loads(event.body)["id"])
                payments.pay(self.db, payments.lock(self.db, payment.id), intent["amount"], "stripe", at)

        for id_, is_new in ((told["id"], True), (told["id"], False), (f"{told['id']}-again", True)):
            event = Event("stripe", id_, kind, json.dumps({"id": intent["id"]}).encode())
            assert webhooks.store(self.db, event, times) == is_new
            assert webhooks.handle_next(self.db, {("stripe", kind): handle}, times) == is_new
        assert self.db.execute("SELECT FROM webhook_event WHERE state <> 'handled'").rowcount == 0

    # --- transfers ------------------------------------------------------------------------------------------------
    def _vietqr(self, reference: str, amount: int, at: datetime, fault: str | None) -> None:
        transaction = f"FT{len(self.asked):08d}"
        text = "cam on" if fault == "of_nobody" else f"ND {reference} chuyen tien"
        if fault != "unknown_to_bank":
            on_statement = amount + 1_000 if fault == "wrong_amount" else amount
            self._bank.append((transaction, at, on_statement, text))
        booked_at = at + timedelta(days=1) if fault == "booked_next_day" else at
        unheard = fault in ("lost_webhook", "of_nobody", "doubled_webhook")
        if fault == "doubled_webhook":
            credit = Credit("vietqr", transaction, amount, at, text)
            self._told += [partial(transfers.receive, self.db, credit, at)] * 2
        self._transfer("vietqr", reference, amount, transaction, text, at, booked_at, unheard)

    def _vnpay(self, reference: str, amount: int, at: datetime, fault: str | None) -> None:
        transaction = f"{14_000_000 + len(self.asked)}"
        self._settled.append((transaction, reference, at, amount + (1_000 if fault == "wrong_amount" else 0)))
        if fault == "doubled_webhook":
            notice = Notice(reference, amount, transaction, True, "00", at)
            self._told += [partial(transfers.answer_notice, self.db, notice, at)] * 2
        unheard = fault in ("lost_webhook", "doubled_webhook")
        self._transfer("vnpay", reference, amount, transaction, reference, at, at, unheard)

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

    # --- cash -----------------------------------------------------------------------------------------------------
    def _cash(self, reference: str, amount: int, at: datetime, fault: str | None) -> None:
        """Half of it is taken for what a session left owing, half for a start; of a start some is handed back."""
        own = fault in ("counted_short", "left_open")
        attendant = f"attendant-{len(self.asked) if own else self.random.randrange(ATTENDANTS)}"
        if attendant not in self._shifts:
            self._shifts[attendant] = new_id(span_of(self.day).since)
        if fault == "left_open":
            self._left_open.add(attendant)
        elif fault == "counted_short":
            self._short.add(attendant)
        cash = 0 if fault == "not_moved" else amount + (1_000 if fault == "wrong_amount" else 0)
        booked = 0 if fault == "not_booked" else amount
        (self._debt if self.random.random() < 1 / 2 else self._start)(attendant, cash, booked, at)

    def _debt(self, attendant: str, cash: int, booked: int, at: datetime) -> None:
        session = new_id(at)
        self._move(attendant, "payment", session, cash, at)
        if booked:
            id_, client = new_id(at), f"driver-{self.random.randrange(max(len(self.asked) // 5, 1))}"
            self._payments.append(
                (id_, client, "session", session, "cash", booked, booked, "paid", str(id_), None, at, at)
            )
            entries = {f"float/{attendant}": booked, f"receivable/{client}": -booked}
            self._postings.append(Posting("cash", str(id_), at, entries))

    def _start(self, attendant: str, cash: int, booked: int, at: datetime) -> None:
        session, back = new_id(at), booked // 3000 * 1000
        self._move(attendant, "start", session, cash, at)
        if not booked:
            return
        self._move(attendant, "hand_back", session, -back, at)
        self._holds.append((session, attendant, "float", booked, "captured", booked - back, at, at, at))
        entries = {f"float/{attendant}": booked - back, "vat": back - booked}
        self._postings.append(Posting("parking", str(session), at, entries))

    def _move(self, attendant: str, kind: str, session: UUID, amount: int, at: datetime) -> None:
        if amount:
            self._moved.append((self._shifts[attendant], kind, session, amount, at))

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
        postings += [Posting("float_topup", one, at, {"bank": FLOAT, f"float/{one}": -FLOAT}) for one in self._shifts]
        postings.sort(key=lambda one: one.at)
        for first in range(0, len(postings), BATCH):
            ledger.post(self.db, postings[first : first + BATCH])
        self._write_files()
        self._write_shifts()
        self.stripe.books.now = (span_of(self.day).until + timedelta(days=2)).timestamp
        for tell in self._told:
            tell()

    def _write_shifts(self) -> None:
        span = span_of(self.day)
        with self.db.transaction():
            self._copy("shift (id, attendant, opened_at, opening)",
                       [(id_, one, span.since, 500_000) for one, id_ in self._shifts.items()])  # fmt: skip
            self._copy("cash_movement (shift_id, kind, session_id, amount, at)", self._moved)
            self._copy("hold (id, owner, kind, amount, state, captured, created_at, expires_at, ended_at)", self._holds)
        for one, id_ in self._shifts.items():
            if one not in self._left_open:
                shift = shifts.find(self.db, id_, None)
                moved = shifts.movements(self.db, shift)
                in_hand = moved[-1].in_hand if moved else shift.opening
                counted = in_hand - (SHORT if one in self._short else 0)
                shifts.close_shift(self.db, id_, one, counted, span.until - timedelta(seconds=1))

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

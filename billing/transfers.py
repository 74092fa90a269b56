"""Payments that a driver makes at their bank (VietQR) or at VNPay: we show where to pay, and wait for the money.

A payment has a reference, and the money that comes with it is booked in one transaction, once for each transaction id
of the gateway: debit clearing/<gateway>, credit what the driver owes (a session's payment or arrears), as far as they
owe and as far as the payment went; all else, and every top-up, goes to their wallet. No money that came is refused:

    exactly what was asked      the payment is paid
    more                        the rest is the driver's, in their wallet; noted `more`
    less                        paid in part, the rest stays owed; noted `less`
    again, by another transfer  to the wallet (or to what the first one left open); noted `again`
    after the payment's time    as in time; noted `late`
    owed no more meanwhile      to the wallet; noted `not_owed`
    for nobody we know          kept as unmatched, and booked once an operator has said whose it is

A payment locks its row, then the driver's wallet, so that no two reduce the same debt. Who asks what there is to
pay locks the wallet too, before the payment is there.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from billing import ledger, references, wallets
from billing.errors import NothingOwed, UnknownCredit, UnknownPayment
from billing.gateways import vnpay
from billing.ledger import RECEIVABLE, WALLET, Posting
from billing.payments import COLUMNS, Payment

METHODS = ("vietqr", "vnpay")
PURPOSES = ("topup", "arrears", "session")
# How long a payment waits; what comes later is still booked. VNPay closes its page at the end of it.
LIFETIMES = {"vietqr": timedelta(minutes=30), "vnpay": timedelta(minutes=15)}
KIND = "transfer"  # of the ledger's transactions
OPEN = ("created", "requires_action")


class Wanted(NamedTuple):
    """What a driver asks to pay: the amount (VND) for a top-up, less than all for arrears; for a session its debt."""

    client: str
    purpose: str
    method: str
    amount: int | None = None
    session_id: UUID | None = None


def state_at(payment: Payment, now: datetime) -> str:
    """A payment's state; expired the instant its time is over, whenever a job notes it."""
    is_over = payment.state in OPEN and payment.expires_at is not None and payment.expires_at <= now
    return "expired" if is_over and payment.method in METHODS else payment.state


class Credit(NamedTuple):
    """Money that came: VND, when (as the gateway says), with which text, of which our references may be read."""

    gateway: str
    transaction: str
    amount: int
    at: datetime
    description: str


class Received(NamedTuple):
    """What became of a credit. `payment` and `client` are None while nobody knows whose it is; `note` says why, or how
    it differs from what was asked. `is_new`: told for the first time; `differs`: told otherwise the first time."""

    payment: UUID | None
    client: str | None
    note: str | None
    is_new: bool
    differs: bool = False


_CREATE = f"""
INSERT INTO payment (id, client, purpose, session_id, method, amount, state, reference, created_at, expires_at)
VALUES (uuid_of(%(now)s), %(client)s, %(purpose)s, %(session_id)s, %(method)s, %(amount)s, 'created', %(reference)s,
        %(now)s, %(expires_at)s)
ON CONFLICT (reference) DO NOTHING RETURNING {COLUMNS}"""


def create(connection: psycopg.Connection, wanted: Wanted, now: datetime) -> Payment:
    """A payment that waits for its money. Raises NothingOwed."""
    with connection.transaction():
        values = wanted._asdict() | {"amount": amount_of(connection, wanted), "now": now}
        values |= {"expires_at": now + LIFETIMES[wanted.method]}
        while True:  # two references are the same once in 10¹⁵
            made = connection.cursor(row_factory=class_row(Payment)).execute(
                _CREATE, values | {"reference": references.new()}
            )
            if payment := made.fetchone():
                return payment


def amount_of(connection: psycopg.Connection, wanted: Wanted) -> int:
    """What is to be paid, in VND. Raises NothingOwed.

    In the caller's transaction, which from here on holds the wallet: what it owes in all, and for the session, agree.
    """
    if wanted.purpose == "topup":
        if wanted.amount is None:
            raise ValueError("a top-up has an amount")
        return wanted.amount
    (has,) = wallets.lock(connection, WALLET + wanted.client)
    owed = has.owed
    if wanted.session_id is not None:
        owed = wallets.owed_for(connection, wanted.client, wanted.session_id, owed)
    if owed <= 0:
        raise NothingOwed("nothing is owed" + (" for this session" if wanted.session_id else ""))
    return min(owed, wanted.amount or owed)


def find(connection: psycopg.Connection, payment_id: UUID, client: str) -> Payment:
    """One of the client's payments. Raises UnknownPayment."""
    cursor = connection.cursor(row_factory=class_row(Payment))
    query = f"SELECT {COLUMNS} FROM payment WHERE id = %s AND client = %s"
    found = cursor.execute(query, (payment_id, client)).fetchone()
    if found is None:
        raise UnknownPayment(f"no payment {payment_id}")
    return found


_OF_CLIENT = f"""
SELECT {COLUMNS} FROM payment
 WHERE client = %(client)s AND (%(before)s::uuid IS NULL
       OR (created_at, id) < (SELECT b.created_at, b.id FROM payment b
                               WHERE b.id = %(before)s AND b.client = %(client)s))
 ORDER BY created_at DESC, id DESC LIMIT %(limit)s"""


def of_client(connection: psycopg.Connection, client: str, before: UUID | None, limit: int) -> list[Payment]:
    """A client's payments of every method, newest first; with `before` those behind it."""
    cursor = connection.cursor(row_factory=class_row(Payment))
    return cursor.execute(_OF_CLIENT, {"client": client, "before": before, "limit": limit}).fetchall()


_REMEMBER = """
INSERT INTO credit (gateway, transaction_id, amount, at, description, received_at, note)
VALUES (%s, %s, %s, %s, %s, %s, 'no_reference') ON CONFLICT DO NOTHING"""


def receive(connection: psycopg.Connection, credit: Credit, now: datetime) -> Received:
    """Book money that came. Told again, it changes nothing."""
    with connection.transaction():
        if connection.execute(_REMEMBER, (*credit, now)).rowcount == 0:
            return _received_before(connection, credit)
        payment, why = _named_by(connection, references.find(credit.description))
        if payment is None:
            _note(connection, credit, None, None, why)
            return Received(None, None, why, True)
        return _settle(connection, payment, credit, now)


def _received_before(connection: psycopg.Connection, credit: Credit) -> Received:
    """What became of it the first time. The text of a transfer may be cut in one place and not in the other."""
    query = "SELECT payment_id, client, note, amount FROM credit WHERE (gateway, transaction_id) = (%s, %s)"
    row = connection.execute(query, (credit.gateway, credit.transaction)).fetchone()
    assert row is not None
    payment, client, note, amount = row
    return Received(payment, client, note, False, amount != credit.amount)


def _named_by(connection: psycopg.Connection, named: Sequence[str]) -> tuple[Payment | None, str]:
    """The one payment that these references name, locked; else why there is none."""
    cursor = connection.cursor(row_factory=class_row(Payment))
    query = f"SELECT {COLUMNS} FROM payment WHERE reference = ANY(%s) AND method = ANY(%s) ORDER BY id FOR UPDATE"
    found = cursor.execute(query, (list(named), list(METHODS))).fetchall()
    if len(found) == 1:
        return found[0], ""
    return None, "several_references" if found else "unknown_reference" if named else "no_reference"


def _settle(connection: psycopg.Connection, payment: Payment, credit: Credit, now: datetime) -> Received:
    owed = _lock_owed(connection, payment.client)
    before = payment.paid or 0
    open_ = max(payment.amount - before, 0)
    settled = 0 if payment.purpose == "topup" else max(min(credit.amount, open_, owed), 0)
    _book(connection, credit, payment.client, settled, now)
    connection.execute(
        "UPDATE payment SET state = 'paid', paid = %s, failure = NULL, settled_at = COALESCE(%s, %s), "
        "gateway_reference = COALESCE(gateway_reference, %s) WHERE id = %s",
        (before + credit.amount, payment.settled_at if before else None, now, _key(credit), payment.id),
    )
    note = _differences(payment, credit, settled)
    _note(connection, credit, payment.id, payment.client, note)
    return Received(payment.id, payment.client, note, True)


def _differences(payment: Payment, credit: Credit, settled: int) -> str | None:
    """How a credit differs from what was asked for, in words with spaces between; None where it does not."""
    open_ = max(payment.amount - (payment.paid or 0), 0)
    is_late = payment.state in ("expired", "void") or (
        payment.expires_at is not None and credit.at >= payment.expires_at
    )
    facts = {
        "again": payment.paid is not None,
        "more": credit.amount > open_ and (open_ > 0 or payment.paid is None),
        "less": credit.amount < open_,
        "late": is_late,
        "not_owed": payment.purpose != "topup" and settled < min(credit.amount, open_),
    }
    return " ".join(name for name, holds in facts.items() if holds) or None


def _lock_owed(connection: psycopg.Connection, client: str) -> int:
    """What a client owes, and nobody else pays it meanwhile."""
    query = "SELECT owed FROM wallet WHERE owner = %s AND kind = 'wallet' FOR NO KEY UPDATE"
    row = connection.execute(query, (client,)).fetchone()
    return int(row[0]) if row else 0


def _book(connection: psycopg.Connection, credit: Credit, client: str, settled: int, now: datetime) -> None:
    """To the debt `settled`, to the wallet the rest, of which what is owed otherwise is paid at once."""
    entries = {
        f"clearing/{credit.gateway}": credit.amount,
        RECEIVABLE + client: -settled,
        WALLET + client: settled - credit.amount,
    }
    ledger.post(connection, [Posting(KIND, _key(credit), now, entries)])
    wallets.settle_owed(connection, client, now, credit.amount - settled)


def _key(credit: Credit) -> str:
    """Names a credit among all gateways."""
    return f"{credit.gateway}/{credit.transaction}"


def _note(
    connection: psycopg.Connection, credit: Credit, payment_id: UUID | None, client: str | None, note: str | None
) -> None:
    connection.execute(
        "UPDATE credit SET payment_id = %s, client = %s, note = %s WHERE (gateway, transaction_id) = (%s, %s)",
        (payment_id, client, note, credit.gateway, credit.transaction),
    )


def unmatched(connection: psycopg.Connection, limit: int) -> list[Credit]:
    """Money of which nobody knows whose it is, oldest first."""
    query = (
        "SELECT gateway, transaction_id, amount, at, description FROM credit WHERE client IS NULL ORDER BY at LIMIT %s"
    )
    return [Credit(*row) for row in connection.execute(query, (limit,))]


def assign(connection: psycopg.Connection, gateway: str, transaction: str, client: str, now: datetime) -> None:
    """Give unmatched money to the wallet of the client whose it is. Raises UnknownCredit where it is not unmatched."""
    with connection.transaction():
        row = connection.execute(
            "UPDATE credit SET client = %s, note = note || ' assigned' "
            "WHERE (gateway, transaction_id) = (%s, %s) AND client IS NULL "
            "RETURNING gateway, transaction_id, amount, at, description",
            (client, gateway, transaction),
        ).fetchone()
        if row is None:
            raise UnknownCredit(f"no unmatched credit {transaction} of {gateway}")
        _book(connection, Credit(*row), client, 0, now)


def answer_notice(connection: psycopg.Connection, notice: vnpay.Notice, now: datetime) -> tuple[str, str]:
    """Do what VNPay says of an order; what it is to be answered."""
    with connection.transaction():
        payment, _ = _named_by(connection, [notice.reference])
        if payment is None or payment.method != "vnpay":
            return vnpay.UNKNOWN_ORDER
        if notice.amount != payment.amount:
            return vnpay.WRONG_AMOUNT
        if not notice.is_paid:
            return _fail(connection, payment, notice.code, now)
        paid_at = notice.paid_at or now
        credit = Credit("vnpay", notice.transaction, notice.amount, paid_at, notice.reference)
        return vnpay.CONFIRMED if receive(connection, credit, now).is_new else vnpay.ALREADY_CONFIRMED


def _fail(connection: psycopg.Connection, payment: Payment, code: str, now: datetime) -> tuple[str, str]:
    if payment.state in ("paid", "failed"):
        return vnpay.ALREADY_CONFIRMED
    connection.execute(
        "UPDATE payment SET state = 'failed', failure = %s, settled_at = %s WHERE id = %s", (code, now, payment.id)
    )
    return vnpay.CONFIRMED


_EXPIRE = """
UPDATE payment SET state = 'expired', settled_at = expires_at
 WHERE id IN (SELECT id FROM payment
               WHERE method = ANY(%s) AND state IN ('created', 'requires_action') AND expires_at <= %s
               LIMIT %s FOR UPDATE SKIP LOCKED)"""


def expire(connection: psycopg.Connection, now: datetime, limit: int) -> int:
    """Note which payments nobody made in time; their number, at most `limit`. What still comes is booked."""
    return connection.execute(_EXPIRE, (list(METHODS), now, limit)).rowcount

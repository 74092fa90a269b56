"""Money that a gateway gave back: by our order, or by somebody on the gateway's own page; and what came back of it.

Every refund of a gateway is booked once, by the gateway's own id of it, whoever tells of it first: debit `refund`,
credit clearing. Where the money comes from is booked against the same account, so that `refund` ends at zero:

- By our order: billing.refunds took it back of the charge when the operator decided. The key that the gateway was asked
  with tells which refund it is.
- On the gateway's page, in this order: where the payment has not enough left for what operators ordered, so much of
  that is fulfilled by it; what the payment had put into its driver's wallet goes out of it, and what is not free there
  any more is owed; then, of a session's payment, the charge is given back as far as it is left, as an
  operator's refund would be; the rest is our loss, and stays in `refund`.

A refund may fail days later. Then the gateway has the money again, and what was meant for the driver is put into the
wallet: also what it had fulfilled of orders that are done, but for what another refund has given him meanwhile.

Locked are the payment, then the refund, then accounts that are opened, then the wallet.
"""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import psycopg

from billing import calls, ledger, payments, refunds, refunds_at_gateway, wallets
from billing.audit import Act
from billing.errors import NothingCharged
from billing.gateways import Refund
from billing.ledger import RECEIVABLE, WALLET, Posting, Wallet
from billing.payments import Payment
from billing.refunds import ON_THE_WAY, Charge


class _Told(NamedTuple):
    """A refund of a gateway as it was booked; VND."""

    refund_id: UUID | None
    of_charge: int
    of_wallet: int
    of_ours: int
    of_orders: int = 0
    state: str = "given"


def book(connection: psycopg.Connection, payment: Payment, made: Refund, gateway: str, at: datetime) -> None:
    """Book a refund of a payment as its gateway has it now. Told once more, it changes nothing."""
    with connection.transaction():
        payments.lock(connection, payment.id)
        told = _find(connection, gateway, made.gateway_reference)
        booked = ledger.find(connection, "refund", f"{gateway}/{made.gateway_reference}")
        if made.state == "failed":
            if told is None or told.state == "given":
                _come_back(connection, payment, made, gateway, at, told or _unknown(connection, payment, made), booked)
        elif told is None and booked is None:
            _give(connection, payment, made, gateway, at)


_FIND = """
SELECT refund_id, of_charge, of_wallet, of_ours, of_orders, state FROM gateway_refund
 WHERE gateway = %s AND reference = %s
"""


def _find(connection: psycopg.Connection, gateway: str, reference: str) -> _Told | None:
    row = connection.execute(_FIND, (gateway, reference)).fetchone()
    return _Told(*row) if row else None


def _unknown(connection: psycopg.Connection, payment: Payment, made: Refund) -> _Told:
    """One that failed before we heard of it, or was booked before these rows were kept."""
    ordered = calls.refund_of(connection, payment.id, made.reference)
    return _Told(ordered, made.amount, 0, 0) if ordered else _Told(None, 0, 0, made.amount)


def _give(connection: psycopg.Connection, payment: Payment, made: Refund, gateway: str, at: datetime) -> None:
    name = f"{gateway}/{made.gateway_reference}"
    ordered = calls.refund_of(connection, payment.id, made.reference)
    if ordered and ledger.find(connection, "refund_to_wallet", f"{payment.session_id}/{ordered}"):
        ordered = None  # we had given it up: the driver has that money already
    told = _Told(ordered, made.amount, 0, 0) if ordered else _on_page(connection, payment, made.amount, name, at)
    entries = {ON_THE_WAY: made.amount, f"clearing/{gateway}": -made.amount}
    ledger.post(connection, [Posting("refund", name, at, entries)])
    _note(connection, payment, made, gateway, at, told)


def _on_page(connection: psycopg.Connection, payment: Payment, amount: int, name: str, at: datetime) -> _Told:
    """Take an amount from where it came from, on the way to a card that has it already."""
    charge = _charge(connection, payment)
    ledger.open_accounts(connection, WALLET + payment.client, RECEIVABLE + payment.client, ON_THE_WAY)
    has, _ = wallets.lock(connection, WALLET + payment.client, WALLET + (charge.owner if charge else payment.client))
    stands = refunds_at_gateway.standing(connection, payment.id)
    of_orders = min(amount, max(stands.crowded_out(more=amount) - stands.spare, 0))
    rest = amount - of_orders
    of_wallet = min(rest, _put_in_wallet(connection, payment))
    if of_wallet:
        _out_of_wallet(connection, payment.client, has, of_wallet, name, at)
    of_charge = min(rest - of_wallet, refunds.left_of(connection, charge)) if charge else 0
    refund_id = None
    if charge and of_charge:
        act = Act(name.partition("/")[0], at, f"given back on the page of {name}")
        refund_id = refunds.given_at_gateway(connection, charge, of_charge, act)
    return _Told(refund_id, of_charge, of_wallet, amount - of_wallet - of_charge, of_orders)


def _charge(connection: psycopg.Connection, payment: Payment) -> Charge | None:
    """What the session of a payment was charged; None where it is for no session, or nothing was."""
    try:
        return refunds.charge_of(connection, payment.session_id) if payment.session_id else None
    except NothingCharged:
        return None


# Also what went there because the gateway did not give it back: refunds that it refused, were given up, or failed.
_PUT_IN_WALLET = """
WITH put(kind, reference) AS (
    SELECT 'payment', %(reference)s::text
    UNION ALL
    SELECT 'refund_to_wallet', concat(r.session_id, '/', r.id) FROM refund r
     WHERE r.id IN (SELECT (request ->> 'refund')::uuid FROM gateway_call
                     WHERE payment_id = %(payment)s AND verb = 'refund'
                    UNION SELECT refund_id FROM gateway_refund WHERE payment_id = %(payment)s))
SELECT COALESCE((SELECT -sum(e.amount) FROM put JOIN ledger_transaction t USING (kind, reference)
                   JOIN ledger_entry e ON e.transaction_id = t.id
                   JOIN ledger_account a ON a.id = e.account_id AND a.code = %(wallet)s), 0)
     - COALESCE((SELECT sum(CASE state WHEN 'given' THEN of_wallet ELSE -of_orders END) FROM gateway_refund
                  WHERE payment_id = %(payment)s), 0)::bigint
"""


def _put_in_wallet(connection: psycopg.Connection, payment: Payment) -> int:
    """VND that a payment put into its driver's wallet, less what was given back of that."""
    values = {"wallet": WALLET + payment.client, "reference": payment.reference, "payment": payment.id}
    row = connection.execute(_PUT_IN_WALLET, values).fetchone()
    assert row is not None
    return max(int(row[0]), 0)


def _out_of_wallet(
    connection: psycopg.Connection, client: str, has: Wallet, amount: int, name: str, at: datetime
) -> None:
    """What is not free any more, spent or put aside for a running session, is owed."""
    free = min(amount, max(has.available, 0))
    entries = {WALLET + client: free, RECEIVABLE + client: amount - free, ON_THE_WAY: -amount}
    ledger.post(connection, [Posting("given_back", name, at, entries)])


def _come_back(
    connection: psycopg.Connection, payment: Payment, made: Refund, gateway: str, at: datetime, told: _Told,
    booked: UUID | None,
) -> None:  # fmt: skip
    """The gateway has the money again: what the driver is short of by that goes to the wallet."""
    name = f"{gateway}/{made.gateway_reference}"
    if booked:
        ledger.reverse(connection, booked, name, at)
    if told.refund_id:
        refunds_at_gateway.settle(connection, told.refund_id)
    failed = told._replace(state="failed", of_orders=0)
    _note(connection, payment, made, gateway, at, failed)
    stands = refunds_at_gateway.standing(connection, payment.id)
    missing = stands.crowded_out() - stands.spare + told.of_wallet
    short = min(max(missing, 0), told.of_charge + told.of_wallet + told.of_orders)
    of_charge = min(short, told.of_charge)
    if told.refund_id:
        refunds_at_gateway.to_wallet(connection, told.refund_id, of_charge, at)
    if rest := short - of_charge:
        entries = {ON_THE_WAY: rest, WALLET + payment.client: -rest}
        ledger.post(connection, [Posting("refund_to_wallet", name, at, entries)])
        wallets.settle_owed(connection, payment.client, at, rest)
    _note(connection, payment, made, gateway, at, failed._replace(of_orders=rest - told.of_wallet))


def _note(
    connection: psycopg.Connection, payment: Payment, made: Refund, gateway: str, at: datetime, told: _Told
) -> None:
    connection.execute(
        "INSERT INTO gateway_refund AS r (gateway, reference, payment_id, refund_id, amount, of_charge, of_wallet, "
        "of_ours, of_orders, state, told_at, failed_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) "
        "ON CONFLICT (gateway, reference) DO UPDATE SET state = excluded.state, of_orders = excluded.of_orders, "
        "failed_at = excluded.failed_at",
        (gateway, made.gateway_reference, payment.id, told.refund_id, made.amount, told.of_charge, told.of_wallet,
         told.of_ours, told.of_orders, told.state, at, at if told.state == "failed" else None),
    )  # fmt: skip

"""Calls to a card gateway: written down with their key, made outside every transaction, repeated until answered.

A call that got no answer is made again with the same key and the same parameters, later each time. Where the key does
not help any more, because the gateway stored a failure of its own under it or will have forgotten it, the gateway is
asked what became of the payment; only if nothing did, the call is made again under another key.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from billing import wallets
from billing.errors import (
    AmountTooLarge,
    AmountTooSmall,
    GatewayNotAsked,
    GatewayUnavailable,
    HoldGone,
    PaymentDeclined,
    PaymentRefused,
    UnknownCall,
    UnknownPayment,
)
from billing.gateways import Card, CardGateway, Demand, Movement, Refund
from billing.ledger import WALLET

# Who takes a call has so long to make it, before another may: longer than its time-outs.
LEASE = timedelta(seconds=90)
LONGEST_PAUSE = timedelta(minutes=10)
# Stripe forgets a key after a day at the earliest.
KEY_MEMORY = timedelta(hours=20)
ALL_GIVEN_BACK = "charge_already_refunded"
# How far the gateway's clock may be off from ours.
CLOCKS = timedelta(minutes=10)


class Call(NamedTuple):
    """One thing asked of a gateway. Times are real."""

    key: str
    payment_id: UUID
    verb: str
    amount: int
    request: dict[str, Any]
    made_at: datetime
    tries: int


class Listed(NamedTuple):
    """A call with what became of it. `client` is whose payment it is about."""

    key: str
    verb: str
    amount: int
    client: str
    state: str
    made_at: datetime
    tries: int
    error: str | None


class Subject(NamedTuple):
    """What the gateway must know of the payment: our reference, and its own where it has one."""

    reference: str
    gateway_reference: str | None


class Outcome(NamedTuple):
    """What became of a call; `state`: waiting (no answer), left (not made: the job's), again (under another key), done,
    refused, parked."""

    state: str
    movement: Movement | None = None
    refunds: tuple[Refund, ...] = ()
    code: str | None = None  # the gateway's reason, where it declined or refused
    gateway_reference: str | None = None  # also of what was declined
    error: str | None = None


_COLUMNS = ", ".join(Call._fields)


def plan(
    connection: psycopg.Connection,
    payment_id: UUID,
    verb: str,
    amount: int,
    real: datetime,
    *,
    request: dict[str, Any] | None = None,
    lease: bool = False,
) -> Call:
    """Write a call down, in the caller's transaction. With `lease` the caller makes it, and the job only if he dies."""
    row = connection.execute(
        "INSERT INTO gateway_call (key, payment_id, verb, amount, request, state, made_at, retry_at) "
        "SELECT concat_ws(':', %(id)s::text, %(verb)s::text, count(*) + 1), %(id)s, %(verb)s, %(amount)s, %(request)s, "
        "'waiting', %(real)s, %(retry_at)s FROM gateway_call WHERE payment_id = %(id)s AND verb = %(verb)s "
        f"RETURNING {_COLUMNS}",
        {
            "id": payment_id,
            "verb": verb,
            "amount": amount,
            "request": Jsonb(request or {}),
            "real": real,
            "retry_at": real + LEASE if lease else real,
        },
    ).fetchone()
    assert row is not None
    return Call(*row)


_FOR_REFUND = """
SELECT state FROM gateway_call
 WHERE payment_id IN (SELECT p.id FROM refund r JOIN payment p ON p.session_id = r.session_id WHERE r.id = %(id)s)
   AND verb = 'refund' AND request ->> 'refund' = %(id)s::text
 ORDER BY made_at DESC, key DESC LIMIT 1"""


def for_refund(connection: psycopg.Connection, refund_id: UUID) -> str | None:
    """The state of the last call that was planned for a refund, of whichever payment; None where none was.

    It locks the refund, so that in the caller's transaction nobody else plans one.
    """
    connection.execute("SELECT FROM refund WHERE id = %s FOR UPDATE", (refund_id,))
    row = connection.execute(_FOR_REFUND, {"id": refund_id}).fetchone()
    return row[0] if row else None


def refund_of(connection: psycopg.Connection, payment_id: UUID, key: str | None) -> UUID | None:
    """The refund for which a gateway was asked under a key to give back of a payment; None: we did not ask."""
    row = connection.execute(
        "SELECT (request ->> 'refund')::uuid FROM gateway_call WHERE key = %s AND payment_id = %s AND verb = 'refund'",
        (key, payment_id),
    ).fetchone()
    return row[0] if row else None


def waiting(connection: psycopg.Connection, payment_id: UUID) -> Call | None:
    """The call for a payment that has no outcome yet."""
    query = f"SELECT {_COLUMNS} FROM gateway_call WHERE payment_id = %s AND state = 'waiting' ORDER BY made_at LIMIT 1"
    row = connection.execute(query, (payment_id,)).fetchone()
    return Call(*row) if row else None


_TAKE = f"""
UPDATE gateway_call SET tries = tries + 1, retry_at = %(until)s
 WHERE key = (SELECT key FROM gateway_call WHERE state = 'waiting' AND retry_at <= %(real)s
               ORDER BY retry_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING {_COLUMNS}"""


def take(connection: psycopg.Connection, real: datetime) -> Call | None:
    """The call that has waited longest, for the caller to make; None where there is none."""
    row = connection.execute(_TAKE, {"real": real, "until": real + LEASE}).fetchone()
    return Call(*row) if row else None


def settle(connection: psycopg.Connection, call: Call, outcome: Outcome, real: datetime) -> Call | None:
    """Note what became of a call, in the caller's transaction; the call that takes its place, if it is made again."""
    if outcome.state in ("waiting", "left"):
        connection.execute(
            "UPDATE gateway_call SET retry_at = %s, error = %s WHERE key = %s AND state = 'waiting'",
            (real + _pause(call, outcome), outcome.error, call.key),
        )
        return None
    state = "refused" if outcome.state == "again" else outcome.state
    settled = connection.execute(
        "UPDATE gateway_call SET state = %s, settled_at = %s, error = %s WHERE key = %s AND state = 'waiting'",
        (state, real, outcome.error, call.key),
    )
    if outcome.state == "again" and settled.rowcount:
        return plan(connection, call.payment_id, call.verb, call.amount, real, request=call.request)
    return None


def _pause(call: Call, outcome: Outcome) -> timedelta:
    """How long nobody makes the call again; one that was not made is another's at once."""
    return timedelta() if outcome.state == "left" else min(timedelta(seconds=2 ** max(call.tries, 1)), LONGEST_PAUSE)


def make(gateway: CardGateway, call: Call, subject: Subject, real: datetime) -> Outcome:
    """Make a call. Never raises what a gateway may answer; a mistake of ours is parked."""
    try:
        return _made(gateway, call, subject, real)
    except (PaymentRefused, UnknownPayment) as error:
        return Outcome("parked", code=getattr(error, "code", "unknown"), error=f"{type(error).__name__}: {error}")


def _made(gateway: CardGateway, call: Call, subject: Subject, real: datetime) -> Outcome:
    try:
        if real - call.made_at > KEY_MEMORY:
            return _look_up(gateway, call, subject, real)
        return _ask(gateway, call, subject)
    except GatewayNotAsked as error:
        return Outcome("left", error=str(error))
    except GatewayUnavailable as error:
        return _in_doubt(gateway, call, subject, real, error)
    except HoldGone as error:
        return _gone(gateway, subject, error)
    except PaymentDeclined as error:
        return Outcome("refused", code=error.code, gateway_reference=error.gateway_reference, error=str(error))
    except (AmountTooSmall, AmountTooLarge) as error:
        code = "amount_too_small" if isinstance(error, AmountTooSmall) else "amount_too_large"
        return Outcome("refused", code=code, error=str(error))
    except PaymentRefused as error:
        if call.verb == "refund" and error.code == ALL_GIVEN_BACK:
            return _given_already(gateway, subject, str(error))
        raise


def _ask(gateway: CardGateway, call: Call, subject: Subject) -> Outcome:
    demand = Demand(subject.reference, call.key, call.amount, call.request.get("description", ""))
    at_gateway = subject.gateway_reference or ""
    match call.verb:
        case "hold":
            moved = gateway.hold(demand, _card(call))
        case "charge":
            moved = gateway.charge(demand, _card(call), present=bool(call.request.get("present", True)))
        case "capture":
            moved = gateway.capture(at_gateway, call.amount, call.key)
        case "release":
            moved = gateway.release(at_gateway, call.key)
        case _:
            return _refunded(gateway.refund(at_gateway, call.amount, call.key))
    return Outcome("done", moved, gateway_reference=moved.gateway_reference)


def _refunded(made: Refund) -> Outcome:
    if made.state == "failed":
        return Outcome("refused", refunds=(made,), code="refund_failed", error="the refund failed")
    return Outcome("done", refunds=(made,))


def _card(call: Call) -> Card:
    return Card(call.request["customer"], call.request["payment_method"])


def _in_doubt(gateway: CardGateway, call: Call, subject: Subject, real: datetime, error: GatewayUnavailable) -> Outcome:
    if error.replayed:
        try:
            return _look_up(gateway, call, subject, real)
        except GatewayUnavailable as still:
            error = still
    return Outcome("waiting", error=str(error))


def _look_up(gateway: CardGateway, call: Call, subject: Subject, real: datetime) -> Outcome:
    """What became of a call whose key does not tell any more. Raises GatewayUnavailable, UnknownPayment."""
    if call.verb == "refund":
        given = gateway.refunds(subject.gateway_reference or "")
        made = next((one for one in given if one.reference == call.key), None)
        return _refunded(made) if made else Outcome("again", error="the refund was not made")
    if call.verb in ("hold", "charge"):
        found = gateway.find_ours(subject.reference, call.made_at - CLOCKS, real + CLOCKS)
        is_done = found is not None
    else:
        found = gateway.find(subject.gateway_reference or "")
        is_done = found.state != "authorized"
    if not is_done:
        return Outcome("again", error=f"the {call.verb} was not made")
    return Outcome("done", found, gateway_reference=found.gateway_reference if found else None)


def _given_already(gateway: CardGateway, subject: Subject, said: str) -> Outcome:
    """Somebody gave all of it back on the gateway's own page: what we ask for is done, unless some of that has failed
    since. The outcome has whatever was given back, of which we may not have been told yet."""
    at_gateway = subject.gateway_reference or ""
    try:
        given, paid = tuple(gateway.refunds(at_gateway)), gateway.find(at_gateway).paid
    except GatewayUnavailable as silent:
        return Outcome("waiting", error=str(silent))
    is_done = sum(one.amount for one in given if one.state != "failed") >= paid
    return Outcome("done" if is_done else "refused", refunds=given, code=ALL_GIVEN_BACK, error=said)


def _gone(gateway: CardGateway, subject: Subject, error: HoldGone) -> Outcome:
    """The hold is not there any more: the payment's state at the gateway says what became of the money."""
    try:
        found = gateway.find(subject.gateway_reference or "")
    except GatewayUnavailable as silent:
        return Outcome("waiting", error=str(silent))
    return Outcome("refused", found, (), error.code, found.gateway_reference, str(error))


# --- what somebody has to look at -------------------------------------------------------------------------------------
# A parked hold or charge was given up: its session stands, and what it owes is collected by a call of its own.
_AGAIN = ("capture", "release", "refund")


def listed(connection: psycopg.Connection, states: Sequence[str], limit: int) -> list[Listed]:
    """Calls in these states, newest first."""
    rows = connection.execute(
        "SELECT c.key, c.verb, c.amount, p.client, c.state, c.made_at, c.tries, c.error "
        "FROM gateway_call c JOIN payment p ON p.id = c.payment_id "
        "WHERE c.state = ANY(%s) ORDER BY c.made_at DESC, c.key DESC LIMIT %s",
        (list(states), limit),
    )
    return [Listed(*row) for row in rows]


_CLIENT = "SELECT client FROM payment WHERE id = (SELECT payment_id FROM gateway_call WHERE key = %s)"
# A refund is asked for with its key. A capture or release is over: the job plans another one, by what is owed by then.
_RETRY = """
UPDATE gateway_call
   SET state = CASE verb WHEN 'refund' THEN 'waiting' ELSE 'refused' END,
       settled_at = CASE verb WHEN 'refund' THEN NULL ELSE settled_at END, tries = 0, retry_at = %s
 WHERE key = %s AND state = 'parked' AND verb = ANY(%s)"""


def retry(connection: psycopg.Connection, key: str, real: datetime) -> None:
    """Let a parked refund be asked for once more, with its key; or a hold be captured or released by another call, as
    far as its fee is still owed by then. Raises UnknownCall, also for a hold or a charge.

    A charge of what its client owes is written under the wallet's lock, and takes what a parked call does not: one that
    is being written is waited for, so that the job sees it.
    """
    with connection.transaction():
        whose = connection.execute(_CLIENT, (key,)).fetchone()
        if whose is not None:
            wallets.lock(connection, WALLET + whose[0])
        if connection.execute(_RETRY, (real, key, list(_AGAIN))).rowcount == 0:
            raise UnknownCall(f"no {', '.join(_AGAIN)} of the key {key} is parked")


def give_up(connection: psycopg.Connection, key: str) -> None:
    """Make a parked refund one that its gateway refused for good: the money goes to the wallet. Raises UnknownCall."""
    changed = connection.execute(
        "UPDATE gateway_call SET state = 'refused' WHERE key = %s AND state = 'parked' AND verb = 'refund'", (key,)
    )
    if changed.rowcount == 0:
        raise UnknownCall(f"no refund of the key {key} is parked")

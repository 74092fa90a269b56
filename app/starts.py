"""Starts that arrive together: `zones` admits, `billing` puts money aside, in one statement and one transaction."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import psycopg

from app import cards
from app.resources import Resources
from billing.errors import BillingError, InsufficientFloat, InsufficientFunds, NoOpenShift, OwesTooMuch
from zones import sessions
from zones.errors import ZoneError
from zones.sessions import Start, Started

# Once for all, and again where some cannot pay; once more where money moved meanwhile.
ATTEMPTS = 3
# A hold outlives its session, however late that is closed.
HOLD_MARGIN = timedelta(days=1)

_START_AND_HOLD = f"""
WITH started AS MATERIALIZED (SELECT {sessions.STARTED} FROM start_sessions(%s)),
    held AS MATERIALIZED (
        SELECT place_holds(array_agg(id), array_agg(client), array_agg(amount), array_agg(expires_at), %s, %s, %s)
          FROM json_to_recordset(%s) h(member bigint, id uuid, client text, amount bigint, expires_at timestamptz)
         WHERE member IN (SELECT unnest(members) FROM started WHERE outcome = 'started'))
SELECT started.* FROM started CROSS JOIN (SELECT count(*) FROM held) AS placed"""


def on_behalf(
    resources: Resources, connection: psycopg.Connection, calls: Sequence[Start]
) -> Sequence[Started | ZoneError | BillingError | None]:
    """As together, for attendants who have taken the price in cash: it is put aside in their floats."""
    return together(resources, connection, calls, "float")


def together(
    resources: Resources, connection: psycopg.Connection, calls: Sequence[Start], purse: str = "wallet"
) -> Sequence[Started | ZoneError | BillingError | None]:
    """Start all who may and can pay: one statement, and another one without those who cannot, as if they had not come.

    An answer or refusal for each; the caller pushes its count, once it is committed. None for who is to be tried alone:
    one of two of a client whose money may be enough for one, or whoever lost a race. Raises psycopg.Error, and nothing
    was done.
    """
    answers: dict[UUID, Started | ZoneError | BillingError | None] = {}
    for _ in range(ATTEMPTS):
        left = [call for call in calls if call.id not in answers]
        if not left:
            break
        try:
            answers |= zip((call.id for call in left), _start(resources, connection, left, purse), strict=True)
        except psycopg.errors.CheckViolation as error:
            answers |= _left_out(error, left)
    return [answers.get(call.id) for call in calls]


def _start(
    resources: Resources, connection: psycopg.Connection, calls: Sequence[Start], purse: str
) -> Sequence[Started | ZoneError]:
    with cards.together(resources, connection, calls):
        answers = _start_and_hold(resources, connection, calls, purse)
        cards.open_payments(resources, connection, calls, answers)
    return answers


_UNPAID: dict[str, tuple[type[BillingError], str]] = {
    "wallet_covers_hold": (InsufficientFunds, "the wallet does not cover this stay: top it up, or pay in another way"),
    "float_covers_hold": (InsufficientFloat, "the float does not cover this stay: have it topped up"),
    "shift_is_open": (NoOpenShift, "cash moves only in an open shift of the attendant who takes it"),
    "owed_within_limit": (OwesTooMuch, "too much is owed from earlier sessions: pay that first"),
}


def unpaid(constraint: str | None) -> BillingError | None:
    """The refusal that a broken constraint stands for: each who is refused gets his own."""
    kind, text = _UNPAID.get(constraint or "", (None, ""))
    return kind(text) if kind else None


def _left_out(error: psycopg.errors.CheckViolation, calls: Sequence[Start]) -> dict[UUID, BillingError | None]:
    """Who is to be left out, by session: refused, or (None) tried alone. Raises the error where it does not say."""
    refusal = unpaid(error.diag.constraint_name)
    if refusal is not None and len(calls) == 1:
        return {calls[0].id: refusal}
    if refusal is None or error.diag.message_detail is None:
        raise error
    named: dict[str, str | None] = orjson.loads(error.diag.message_detail)
    return {UUID(session): unpaid(constraint) for session, constraint in named.items()}


def _start_and_hold(
    resources: Resources,
    connection: psycopg.Connection,
    calls: Sequence[Start],
    purse: str,
) -> list[Started | ZoneError]:
    paying = [(n, call) for n, call in enumerate(calls, 1) if call.payment_method != "free"]
    if not paying:
        return sessions.start(connection, calls)
    rows = connection.execute(
        _START_AND_HOLD,
        (
            sessions.start_arguments(calls),
            max(call.started_at for call in calls),
            resources.settings.owed_limit,
            purse,
            orjson.dumps([_hold(resources, n, call, purse) for n, call in paying]).decode(),
        ),
    )
    return sessions.read_started(calls, rows)


def _hold(resources: Resources, member: int, call: Start, purse: str) -> dict[str, Any]:
    """What is put aside for a start. As JSON: five lists would take psycopg 40 µs a start, this takes 4."""
    expires_at = call.max_over_at + HOLD_MARGIN
    amount = _to_hold(resources, call, purse)
    return {"member": member, "id": call.id, "client": call.client, "amount": amount, "expires_at": expires_at}


def _to_hold(resources: Resources, call: Start, purse: str) -> int:
    """VND to put aside in the purse: the price of the time that is asked for, or of a first while where it is open."""
    if call.payment_method != "wallet" and purse == "wallet":
        return 0
    first = first_while(resources, call.max_over_at - call.started_at)
    return call.price.owed(call.ends_at - call.started_at if call.ends_at else first)


def first_while(resources: Resources, longest: timedelta) -> timedelta:
    """The time whose price is put aside for a stay without an end."""
    return min(timedelta(minutes=resources.settings.open_hold_minutes), longest)

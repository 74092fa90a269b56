"""Settling what is due: every payment but cash is asked of its gateway, with no transaction open meanwhile.

The payment's id is the reference of the charge, and a gateway gives the same answer to the same reference. So a process
that dies between the answer and its record loses nothing, and two that settle at once agree.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import Connection

from app.resources import Resources
from billing import payments
from billing.errors import GatewayUnavailable, PaymentAlreadySettled, PaymentDeclined
from billing.payments import Due

log = logging.getLogger(__name__)
BATCH = 200
# Real seconds. The other jobs wait for this one (a wrong copy in Redis is to be healed within five), and so does the
# processor. A round every 5 s settles some 60 payments a second, ten times the city's peak.
LONGEST_ROUND = 0.3
# A gateway that gave no answer this often, one call after the other, is left alone until the next round.
PATIENCE = 3


class Answer(NamedTuple):
    """What a gateway said; no reference of its own means that it declined."""

    payment: Due
    gateway_reference: str | None


def settle(resources: Resources) -> int:
    """Settle what is due by wallet, card or VietQR, oldest first, for LONGEST_ROUND; the number settled.

    A payment whose gateway gives no answer stays due, and is asked for again with the same reference.
    """
    return sum(_settle_method(resources, method) for method in resources.gateways)


def _settle_method(resources: Resources, method: str) -> int:
    """Each method has its share of the round, so that a backlog of one starves no other."""
    until = time.monotonic() + LONGEST_ROUND / len(resources.gateways)
    settled, last, silent = 0, None, Counter[str]()
    while silent[method] < PATIENCE and time.monotonic() < until and (batch := _due(resources, method, last)):
        settled += _note(resources, list(_charge(resources, batch, silent, until)))
        last = batch[-1]
    return settled


def _due(resources: Resources, method: str, last: Due | None) -> list[Due]:
    with resources.engine.begin() as connection:
        return payments.due(connection, method, BATCH, last)


def _charge(resources: Resources, batch: list[Due], silent: Counter[str], until: float) -> Iterator[Answer]:
    """Ask for each payment; `silent` counts the calls without an answer, one after the other."""
    for payment in batch:
        if silent[payment.method] >= PATIENCE or time.monotonic() >= until:
            return
        try:
            gateway = resources.gateways[payment.method]
            yield Answer(payment, gateway.charge(str(payment.id), payment.method, payment.amount))
            silent[payment.method] = 0
        except PaymentDeclined:
            yield Answer(payment, None)
            silent[payment.method] = 0
        except GatewayUnavailable as error:
            silent[payment.method] += 1
            log.warning("payment %s stays due: %s", payment.id, error)


def _note(resources: Resources, answers: list[Answer]) -> int:
    """Record the answers of a batch in one transaction; the number recorded."""
    if not answers:
        return 0
    with resources.engine.begin() as connection:
        return sum(_mark(resources, connection, answer) for answer in answers)


def _mark(resources: Resources, connection: Connection, answer: Answer) -> bool:
    now = resources.clock.now()
    try:
        if answer.gateway_reference is None:
            payments.mark_failed(connection, answer.payment.id, now)
        else:
            payments.mark_paid(connection, answer.payment.id, answer.gateway_reference, now)
    except PaymentAlreadySettled as error:
        log.error("the gateway contradicts itself: %s", error)
        return False
    return True

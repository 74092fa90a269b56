"""What VNPay and the bank tell us of money that came: verified, stored as it came, then booked, once. No Flask here."""

import hashlib
import logging
from datetime import UTC, datetime
from functools import partial

import psycopg

from app.resources import Resources
from billing import transfers, webhooks
from billing.errors import BadSignature, BillingError, UnreadableEvent
from billing.gateways.vnpay import BAD_SIGNATURE, OTHER_ERROR
from billing.webhooks import Event, Handlers, Times

log = logging.getLogger(__name__)
IPN, CREDIT = ("vnpay", "ipn"), ("bank", "credit")


def take_ipn(resources: Resources, query: str) -> tuple[str, str]:
    """Store what VNPay tells of an order and do it at once; code and message to answer with."""
    body = query.encode()
    event = Event(IPN[0], hashlib.sha256(body).hexdigest(), IPN[1], body)
    try:
        resources.settings.rails.verify_notice(query)
        webhooks.store(resources.connections.get(), event, _times(resources))
        return _do_ipn(resources, event)
    except BadSignature:
        return BAD_SIGNATURE
    except (BillingError, psycopg.Error):  # VNPay asks again, and a job tries what was stored
        log.exception("VNPay is answered 99 of %s", event.id)
        return OTHER_ERROR


def _do_ipn(resources: Resources, event: Event) -> tuple[str, str]:
    notice = resources.settings.rails.read_notice(event.body.decode())
    return transfers.answer_notice(resources.connections.get(), notice, resources.clock.now())


def take_push(resources: Resources, timestamp: str, signature: str, body: bytes) -> bool:
    """Store the credit that the bank pushes; False where it was stored before. Raises BadSignature, UnreadableEvent."""
    now = _times(resources)
    transaction = resources.settings.rails.verify_push(timestamp, signature, body, now.real)
    return webhooks.store(resources.connections.get(), Event(CREDIT[0], transaction, CREDIT[1], body), now)


def _times(resources: Resources) -> Times:
    return Times(resources.clock.now(), datetime.now(UTC))


def _handle_ipn(resources: Resources, event: Event) -> None:
    _do_ipn(resources, event)


def _handle_push(resources: Resources, event: Event) -> None:
    credit = resources.settings.rails.read_push(event.body)
    received = transfers.receive(resources.connections.get(), credit, resources.clock.now())
    if received.differs:
        raise UnreadableEvent(f"{credit.transaction} was told before, with another amount")
    if received.client is None:
        log.warning("credit %s of %d VND is nobody's: %s", credit.transaction, credit.amount, received.note)


def handlers(resources: Resources) -> Handlers:
    """What the job does about each kind of event; what was done when it came changes nothing the second time."""
    return {IPN: partial(_handle_ipn, resources), CREDIT: partial(_handle_push, resources)}

"""Webhooks: received and stored by the API, handled by a job. What an event does to a payment, its rail says."""

import time
from datetime import UTC, datetime

from app import card_jobs, notices
from app.resources import Resources
from billing import webhooks
from billing.gateways import stripe_events
from billing.webhooks import Handlers, Times

# Real seconds that a round lasts before the job looks whether all is well.
LONGEST_ROUND = 5.0


def times(resources: Resources) -> Times:
    """Business time, and the real time by which a gateway signs and a job tries again."""
    return Times(resources.clock.now(), datetime.now(UTC))


def receive_stripe(resources: Resources, body: bytes, header: str | None) -> bool:
    """Store what Stripe sent; False where it was stored before. Raises BadSignature, UnreadableEvent."""
    now = times(resources)
    event = stripe_events.read(body, header, resources.settings.stripe_webhook_secrets, now.real)
    return webhooks.store(resources.connections.get(), event, now)


def handlers(resources: Resources) -> Handlers:
    """What is done about each kind of event; a rail adds its own here."""
    return {**card_jobs.handlers(resources), **notices.handlers(resources)}


def handle(resources: Resources) -> int:
    """Handle what was received, oldest first, for LONGEST_ROUND; the number of events."""
    known, until, done = handlers(resources), time.monotonic() + LONGEST_ROUND, 0
    while time.monotonic() < until and webhooks.handle_next(resources.connections.get(), known, times(resources)):
        done += 1
    return done


def forget(resources: Resources) -> int:
    """Delete what was handled long ago; the number of events."""
    return webhooks.forget(resources.connections.get(), resources.clock.now())

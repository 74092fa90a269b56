"""Stripe's webhooks: who sent one, and what it is. Needs no stripe-python, so that who receives them stays small."""

import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from billing.errors import BadSignature, UnreadableEvent
from billing.webhooks import Event

GATEWAY = "stripe"
_NAME = re.compile(r"[\w.:-]{1,255}", re.ASCII)
# As Stripe's own libraries have it: who overhears a webhook may not send it again later.
TOLERANCE = timedelta(minutes=5)


def read(body: bytes, header: str | None, secrets: Sequence[str], now: datetime) -> Event:
    """The event in a body that Stripe signed with one of our secrets (two while one replaces the other).

    `now` is real time: Stripe signs with its own clock. Raises BadSignature, UnreadableEvent.
    """
    verify(body, header, secrets, now)
    try:
        event: Any = json.loads(body)
        id_, kind = event["id"], event["type"]
    except (ValueError, KeyError, TypeError):
        raise UnreadableEvent("the body is no event of Stripe's") from None
    if not (isinstance(id_, str) and isinstance(kind, str) and _NAME.fullmatch(id_) and _NAME.fullmatch(kind)):
        raise UnreadableEvent("the event has no id or no type")
    return Event(GATEWAY, id_, kind, body)


def verify(body: bytes, header: str | None, secrets: Sequence[str], now: datetime) -> None:
    """The header is `t=<seconds>,v1=<hex>[,v1=…]`: HMAC-SHA256 of `<seconds>.<body>`, one for each secret in force.

    Raises BadSignature.
    """
    parts = [part.strip().partition("=")[::2] for part in (header or "").split(",")]
    times = [value for name, value in parts if name == "t"]
    given = [value.encode() for name, value in parts if name == "v1"]
    if len(times) != 1 or not (times[0].isascii() and times[0].isdecimal() and len(times[0]) <= 12):
        raise BadSignature("no Stripe-Signature header with a time")
    expected = [_signature(secret, times[0], body) for secret in secrets]
    if not any(hmac.compare_digest(one, other) for one in expected for other in given):
        raise BadSignature("signed with none of our secrets")
    if abs(now.timestamp() - int(times[0])) > TOLERANCE.total_seconds():
        raise BadSignature("signed too long ago")


def _signature(secret: str, at: str, body: bytes) -> bytes:
    return hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest().encode()


def about(event: Event) -> dict[str, Any]:
    """The object that the event is about, as it was when the event happened."""
    found: dict[str, Any] = json.loads(event.body)["data"]["object"]
    return found

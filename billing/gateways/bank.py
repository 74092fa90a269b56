"""What a bank (or whoever watches our account for us) pushes: a credit, the moment it came.

The body is a JSON object, signed with HMAC-SHA256 over the time of the request (seconds since 1970), a dot and the body
as it is sent. `transaction_id` must be what the bank's statement prints, so that both tell of one credit.

    X-Timestamp: 1795660215
    X-Signature: sha256=<hex>
    {"transaction_id": "FT26330001", "account": "0123456789", "amount": 25000, "at": "2026-11-26T09:30:15+07:00",
     "description": "PARK7K2M9QXW4HT chuyen tien"}
"""

import hmac
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from billing.errors import BadSignature, UnreadableEvent

# Clocks drift, and a push may wait in a queue; what is older may be a recording of somebody else's.
TOLERANCE = timedelta(minutes=5)
MOST = 10**13
BIN, ACCOUNT = re.compile(r"\d{6}", re.A), re.compile(r"[0-9A-Za-z]{1,19}")
# PostgreSQL keeps neither NUL nor half of a surrogate pair.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
LONGEST = {"transaction_id": 100, "account": 40, "description": 1000}


class Account(NamedTuple):
    """An account: its bank by NAPAS's number (BIN), and its own number."""

    bin: str
    number: str


class Push(NamedTuple):
    """A credit as it was pushed; `amount` in VND."""

    transaction: str
    account: str
    amount: int
    at: datetime
    description: str


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """The value of X-Signature."""
    return "sha256=" + hmac.digest(secret.encode(), timestamp.encode() + b"." + body, "sha256").hex()


def verify(secret: str, timestamp: str, signature: str, body: bytes, real_now: datetime) -> None:
    """Check who sent a push, and that it is a new one. Raises BadSignature."""
    expected = sign(secret, timestamp, body)
    if not hmac.compare_digest(signature.encode("utf-8", "surrogatepass"), expected.encode()):
        raise BadSignature("X-Signature is not the signature of X-Timestamp and the body")
    if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 10:
        raise BadSignature("X-Timestamp: seconds since 1970")
    if abs(real_now - datetime.fromtimestamp(int(timestamp), UTC)) > TOLERANCE:
        raise BadSignature(f"X-Timestamp is more than {TOLERANCE} off")


def read(body: bytes) -> Push:
    """The credit that a verified body tells of. Raises UnreadableEvent, which names the field."""
    try:
        held = json.loads(body)
    except ValueError as error:
        raise UnreadableEvent(f"the body is no JSON: {error}") from None
    if not isinstance(held, dict):
        raise UnreadableEvent("the body is no JSON object")
    texts = {name: _text(held, name, longest) for name, longest in LONGEST.items()}
    return Push(texts["transaction_id"], texts["account"], _amount(held), _at(held), texts["description"])


def _text(held: dict[str, Any], name: str, longest: int) -> str:
    text = held.get(name)
    if not isinstance(text, str) or len(text) > longest or _UNSTORABLE.search(text):
        raise UnreadableEvent(f"{name}: a text of at most {longest} characters")
    if not text and name != "description":
        raise UnreadableEvent(f"{name}: must not be empty")
    return text


def _amount(held: dict[str, Any]) -> int:
    amount = held.get("amount")
    if type(amount) is not int or not 0 < amount <= MOST:
        raise UnreadableEvent(f"amount: whole VND from 1 to {MOST}")
    return amount


def _at(held: dict[str, Any]) -> datetime:
    try:
        at = datetime.fromisoformat(held["at"])
    except (KeyError, TypeError, ValueError):
        raise UnreadableEvent("at: an RFC 3339 instant with an offset") from None
    if at.tzinfo is None or not 2000 <= at.year < 2100:
        raise UnreadableEvent("at: an RFC 3339 instant with an offset, from 2000 to 2099")
    return at

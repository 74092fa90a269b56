"""Stripe's objects, as its answers and its webhooks carry them, in our own words. Knows nothing of the network.

Only what real Stripe, stripe-mock and localstripe have in common is counted on: `latest_charge` may be an id or an
object, and an intent without `amount_received` (localstripe) tells what was taken by its charge.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from billing.gateways import Action, Entry, Movement, Refund

# What an intent's status means to us. A card's payment is over within seconds, `processing` among the rare exceptions.
_STATES = {
    "requires_payment_method": "failed",
    "requires_confirmation": "pending",
    "requires_action": "requires_action",
    "processing": "pending",
    "requires_capture": "authorized",
    "succeeded": "paid",
    "canceled": "void",
}
_KINDS = {
    "charge": "charge",
    "payment": "charge",
    "refund": "refund",
    "payment_refund": "refund",
    "refund_failure": "refund",
    "payment_failure_refund": "refund",
    "stripe_fee": "fee",
    "payout": "payout",
    "payout_failure": "payout",
    "payout_cancel": "payout",
}
_REFUND_STATES = {"succeeded": "paid", "failed": "failed", "canceled": "failed"}
# Why Stripe gave up a hold by itself: its time was over.
_EXPIRED = "automatic"
_HOLD_EXPIRED = "expired_uncaptured_charge"  # the same, as a refund's reason
_DISPUTES = ("dispute", "dispute_reversal", "adjustment")


def movement(intent: Mapping[str, Any]) -> Movement:
    """What a PaymentIntent says."""
    state = "expired" if intent.get("cancellation_reason") == _EXPIRED else _STATES[intent["status"]]
    charge = intent.get("latest_charge")
    charge = charge if isinstance(charge, Mapping) else None
    error = intent.get("last_payment_error") or {}
    return Movement(
        gateway_reference=intent["id"],
        state=state,
        amount=intent["amount"],
        held=intent.get("amount_capturable", intent["amount"]) if state == "authorized" else 0,
        paid=_paid(intent, charge) if state == "paid" else 0,
        reference=(intent.get("metadata") or {}).get("payment"),
        action=Action("client_secret", intent["client_secret"]) if state == "requires_action" else None,
        decline=(error.get("decline_code") or error.get("code") or "declined") if state == "failed" else None,
    )


def _paid(intent: Mapping[str, Any], charge: Mapping[str, Any] | None) -> int:
    """localstripe books what a capture leaves as a refund, and says no `amount_received`."""
    if "amount_received" in intent:
        return int(intent["amount_received"])
    return int(charge["amount"] - charge["amount_refunded"]) if charge else int(intent["amount"])


def refund(made: Mapping[str, Any]) -> Refund:
    """What a Refund says."""
    state = _REFUND_STATES.get(made["status"], "pending")
    return Refund(made["id"], made["amount"], state, (made.get("metadata") or {}).get("key"))


def gave_back(made: Mapping[str, Any]) -> bool:
    """Whether a Refund is of money that was taken. Stripe makes one of a hold that it lets go, too, and books none."""
    released = made["status"] == "succeeded" and made.get("balance_transaction", "") is None
    return not released and made.get("reason") != _HOLD_EXPIRED


def entry(line: Mapping[str, Any]) -> Entry:
    """What a balance transaction says; the more, the more of its source is there."""
    source = line.get("source")
    source = source if isinstance(source, Mapping) else {"id": source}
    kind = _KINDS.get(line["type"], "dispute" if line["type"] in _DISPUTES else "other")
    return Entry(
        id=line["id"],
        kind=kind,
        amount=line["amount"],
        fee=line["fee"],
        at=datetime.fromtimestamp(line["created"], UTC),
        source=source["id"],
        payment=_id(source.get("payment_intent")),
        reference=(source.get("metadata") or {}).get("payment"),
    )


def _id(field: Any) -> str | None:
    """A field that holds an id or the object itself."""
    return field["id"] if isinstance(field, Mapping) else field

"""The kinds of differences, and what somebody has to do about those that are not healed."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

# What is to be done next, while a difference is open.
KINDS = {
    "missing_at_us": "find out whose money it is: the gateway's page of the payment names the card or account",
    "missing_at_gateway": "ask the gateway for the payment; if it does not know it either, reverse the booking",
    "wrong_amount": "compare with the gateway's page of the payment; reverse the booking and book what came",
    "doubled": "give the second charge back on the gateway's page; the next run books both",
    "refund_at_gateway": "compare with the gateway's page of the refund, and run this day again",
    "refund_failed": "compare with the gateway's page of the refund: if the card did not take it, run this day again",
    "dispute": "answer the dispute on the gateway's page within its time, with the receipt and the session",
    "unmatched_credit": "ask the bank who sent it, and assign it to its client",
    "bank_debit": "find out what was paid: no withdrawal has its reference, or its amount and account",
    "withdrawal_not_noted": "note the withdrawal as paid, with the bank's reference: it is not to be sent again",
    "withdrawal_rejected": "it was sent, and is back in the wallet too: ask the driver for the money",
    "withdrawal_not_sent": "ask the bank for the transfer; if it does not know it either, have it sent again",
    "withdrawal_wrong_amount": "compare with the bank's receipt: send the rest, or ask the driver for what is too much",
    "withdrawal_row": "a mistake of ours: compare the withdrawal with its ledger transactions",
    "cash_not_booked": "ask the attendant for the session's slip: the cash moved, and his float did not",
    "cash_not_moved": "ask the attendant for the session's slip: his float moved, and no cash did",
    "cash_wrong_amount": "ask the attendant for the session's slip: cash and float moved by two amounts",
    "cash_difference": "nothing: it is booked as cash over and short",
    "shift_open": "have the attendant count and close the shift",
    "shift_row": "a mistake of ours: compare the shift with its movements",
    "late": "nothing yet: the gateway's next list will have it; run this day again then",
    "payment_row": "a mistake of ours: compare the payment with its ledger transaction",
    "other": "a line that we do not know: read it on the gateway's page and tell the developers",
}
# Differences that explain nothing by themselves.
UNEXPLAINED = ("payment_row", "withdrawal_row", "shift_row", "other")
# What the comparison tries to put right by itself.
HEALABLE = ("missing_at_us", "doubled", "refund_at_gateway", "refund_failed")


class Difference(NamedTuple):
    """A difference as it stands; VND. `booking` and `reference` name the ledger's transaction, as it is or should
    be."""

    gateway: str
    booking: str
    reference: str
    kind: str
    theirs: int | None  # by the gateway's list; none: it is not there
    ours: int | None
    amount: int  # by which theirs is above ours on the day
    at: datetime
    payment_id: UUID | None
    source: str | None  # the gateway's id of the payment
    description: str | None
    state: str  # open, healed, explained
    error: str | None

    @property
    def next_step(self) -> str | None:
        """What somebody has to do; None where nobody has to."""
        return KINDS[self.kind] if self.state == "open" else None

"""Where money comes from: one small class a rail, a real one or the fake one, as `app` chooses.

There are two kinds of rails. A card is asked for money, and its answer says what happened (CardGateway). VietQR and
VNPay are paid by the driver himself: the rail gives something to show him, and a webhook or a statement says later that
the money came (billing/rails.py, billing/transfers.py).

A gateway is called outside every transaction, with a key or a reference that was stored before the call. A call that is
repeated with the same one moves no money twice: whoever is in doubt asks again. The errors of all: PaymentDeclined and
PaymentRefused, which are for good; GatewayUnavailable, which leaves open whether the money moved.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

# wallet: prepaid. card: Stripe. vietqr: a bank transfer by QR code. vnpay: its own page. cash: an attendant takes it.
# free: nothing is owed (free minutes, a rate of zero, a right of the vehicle).
METHODS = ("wallet", "card", "vietqr", "vnpay", "cash", "free")
# What a gateway may say of a movement; a payment has some of its own besides (created, unknown).
STATES = ("requires_action", "pending", "authorized", "paid", "failed", "expired", "void")


@dataclass(frozen=True, slots=True)
class Action:
    """What the driver must still do, and what his phone needs for it.

    `kind` says what `content` is: "client_secret" (for Stripe's library), "redirect" (an address to open), "qr" (the
    text of a QR code). After `expires_at` it is no use any more; None where the rail sets no time.
    """

    kind: str
    content: str
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Movement:
    """One payment as its gateway sees it. Amounts in VND."""

    gateway_reference: str  # the gateway's own id
    state: str  # one of STATES
    amount: int  # asked for
    held: int = 0  # put aside, may still be taken
    paid: int = 0  # taken from the driver
    reference: str | None = None  # our own id of the payment
    action: Action | None = None  # where state is requires_action or, with a pull rail, pending
    decline: str | None = None  # the gateway's code, where state is failed


class Refund(NamedTuple):
    """Money given back: the gateway's own id, VND, whether it is "paid", "pending" or "failed", and the key that it was
    asked for with (None: somebody gave it back on the gateway's own page)."""

    gateway_reference: str
    amount: int
    state: str
    reference: str | None = None


class Entry(NamedTuple):
    """A line of a gateway's own list, for the reconciliation.

    `amount` is signed VND as seen by us, before the fee: a charge above 0, a refund or payout below. `fee` is what the
    gateway kept of it. `source` is the gateway's id of the charge or refund; `payment` the gateway_reference of the
    payment that it belongs to and `reference` our own id of it, as far as the list says so.
    """

    id: str
    kind: str  # charge, refund, fee, payout, dispute, other
    amount: int
    fee: int
    at: datetime
    source: str | None = None
    payment: str | None = None
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """A driver's card, kept by the gateway: its names there."""

    customer: str
    payment_method: str


@dataclass(frozen=True, slots=True)
class Demand:
    """Money that we want: VND, our id of the payment (and the gateway's idempotency key, stored before the call), and
    what the driver's own statement says of it."""

    reference: str
    key: str
    amount: int
    description: str = ""


class CardGateway(Protocol):
    """A rail that answers at once. Every call may raise GatewayUnavailable, PaymentRefused, KeyMisused."""

    def keep_card(self, client: str, token: str, key: str) -> Card:
        """Keep the card that the driver's phone exchanged for a token. Raises PaymentDeclined."""
        ...

    def hold(self, demand: Demand, card: Card) -> Movement:
        """Put money aside: authorized or requires_action. Raises PaymentDeclined, AmountTooSmall, AmountTooLarge."""
        ...

    def charge(self, demand: Demand, card: Card, *, present: bool = True) -> Movement:
        """Take money at once: paid or requires_action; `present` says whether the driver can answer questions now.

        Raises PaymentDeclined, AmountTooSmall, AmountTooLarge.
        """
        ...

    def capture(self, gateway_reference: str, amount: int, key: str) -> Movement:
        """Take so much of a hold, at most all of it; the rest is released. Raises HoldGone, AmountTooSmall."""
        ...

    def release(self, gateway_reference: str, key: str) -> Movement:
        """Give up a hold, or a payment that waits for its driver. Raises HoldGone where it was taken before."""
        ...

    def refund(self, gateway_reference: str, amount: int, key: str) -> Refund:
        """Give back so much of what was taken. Raises PaymentRefused where that is more than is left of it."""
        ...

    def refunds(self, gateway_reference: str) -> list[Refund]:
        """All that was given back of what a payment had taken, by us or on the gateway's own page, oldest first."""
        ...

    def find(self, gateway_reference: str) -> Movement:
        """The payment as it is now. Raises UnknownPayment."""
        ...

    def find_ours(self, reference: str, since: datetime, until: datetime) -> Movement | None:
        """The payment with our reference that was made between two instants; None where there is none."""
        ...

    def entries(self, since: datetime, until: datetime) -> Iterator[Entry]:
        """The gateway's own list, of what moved from `since` to before `until`."""
        ...

"""Refusals by the facts of what is owed. None of them knows the web."""


class BillingError(Exception):
    """The base of all refusals here; its text can be shown to the person who asked."""


class NoRate(BillingError):
    """No rate is in force there and then, or none has this version."""


class PaymentDeclined(BillingError):
    """The gateway refused the payment for good; asking again gives the same answer. `code` is the gateway's reason."""

    def __init__(self, text: str, code: str = "declined", gateway_reference: str | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.gateway_reference = gateway_reference


class GatewayUnavailable(BillingError):
    """The gateway gave no answer: the money may or may not have moved. Ask again with the same reference.

    `replayed`: the gateway has stored its own failure under the key and will only repeat it: look the payment up.
    """

    def __init__(self, text: str, replayed: bool = False) -> None:
        super().__init__(text)
        self.replayed = replayed


class GatewayNotAsked(GatewayUnavailable):
    """Nothing was sent, so that the gateway keeps nobody waiting: no money moved. Somebody else may ask at once."""


class PaymentRefused(BillingError):
    """The gateway does not do what was asked, whoever asks and however often: no money moved. `code` says why."""

    def __init__(self, text: str, code: str = "refused") -> None:
        super().__init__(text)
        self.code = code


class HoldGone(PaymentRefused):
    """The money is not held any more: the hold expired, or it was captured or released before."""


class KeyMisused(PaymentRefused):
    """An idempotency key was used with two different requests: a mistake of ours, for somebody to look at."""


class AmountTooSmall(BillingError):
    """Less than the gateway takes at a time."""


class AmountTooLarge(BillingError):
    """More than the gateway takes at a time."""


class PaymentUnderWay(BillingError):
    """A payment by card of what is owed has no outcome yet: another one would be made twice."""


class InsufficientFunds(BillingError):
    """The wallet does not cover what the start would put aside."""


class OwesTooMuch(BillingError):
    """More is owed from before than the set limit allows."""


class NotFree(BillingError):
    """The stay may cost something, so that it cannot be had for nothing."""


class LedgerConflict(BillingError):
    """Something else was booked under this kind and reference before."""


class UnknownTransaction(BillingError):
    """The ledger has no transaction of this id."""


class UnknownPayment(BillingError):
    """No payment has this id."""


class BadSignature(BillingError):
    """A webhook that its gateway did not sign, or not lately."""


class UnreadableEvent(BillingError):
    """A webhook that is signed, but is no event."""


class UnknownEvent(BillingError):
    """No event has this id, or it needs no other try."""


class UnknownCall(BillingError):
    """No call to a gateway has this key, or it is not one that may be made again."""


class NoCard(BillingError):
    """No card is kept for this driver."""


class MethodUnavailable(BillingError):
    """The payment method is not set up here."""


class NothingOwed(BillingError):
    """There is nothing to be paid."""


class PaymentOver(BillingError):
    """Nobody is to pay it any more: it is paid, or its time is over."""


class UnknownCredit(BillingError):
    """No unmatched credit has this id."""


class UnknownReceipt(BillingError):
    """Nobody, or not this client, has such a receipt."""


class FontMissing(BillingError):
    """A receipt cannot be drawn: the font with Vietnamese letters is not on this machine."""


class ProviderUnavailable(BillingError):
    """The e-invoice provider gave no answer: the invoice may or may not have arrived. Hand in the same one again."""


class UnknownWithdrawal(BillingError):
    """No withdrawal has this id."""


class AlreadyDecided(BillingError):
    """Somebody has decided otherwise before."""


class UnknownRefund(BillingError):
    """No refund has this id."""


class AlreadyRequested(BillingError):
    """A refund for the session waits for a decision."""


class NothingCharged(BillingError):
    """The session was charged nothing, or nothing yet."""


class RefundExceedsCharge(BillingError):
    """More would be given back than was charged."""


class InsufficientFloat(BillingError):
    """The attendant's float does not cover the cash that would be taken."""


class NoOpenShift(BillingError):
    """Cash moves only in an open shift, and the attendant has none."""


class ShiftOpen(BillingError):
    """The attendant has an open shift already."""


class UnknownShift(BillingError):
    """The attendant has no shift of this id."""


class ShiftClosed(BillingError):
    """The shift was closed before."""


class UnknownAttendant(BillingError):
    """Nobody takes cash under this name."""

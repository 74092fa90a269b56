"""Refusals by the facts of what is owed. None of them knows the web."""


class BillingError(Exception):
    """The base of all refusals here; its text can be shown to the person who asked."""


class NoRate(BillingError):
    """No rate is in force there and then, or none has this version."""


class PaymentDeclined(BillingError):
    """The gateway refused the payment for good; asking again gives the same answer."""


class GatewayUnavailable(BillingError):
    """The gateway gave no answer: the money may or may not have moved. Ask again with the same reference."""


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


class UnknownReceipt(BillingError):
    """Nobody, or not this client, has such a receipt."""


class FontMissing(BillingError):
    """A receipt cannot be drawn: the font with Vietnamese letters is not on this machine."""


class ProviderUnavailable(BillingError):
    """The e-invoice provider gave no answer: the invoice may or may not have arrived. Hand in the same one again."""

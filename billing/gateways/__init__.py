"""Where money comes from: one small class a payment service, a real one or the fake one, as `app` chooses.

A gateway is called outside every transaction. Each call carries our own reference, and a call that is repeated with the
same reference moves no money twice: whoever is in doubt asks again.
"""

from typing import Protocol

METHODS = ("wallet", "card", "vietqr", "cash")


class Gateway(Protocol):
    """What a payment service can do for us."""

    def charge(self, reference: str, method: str, amount: int) -> str:
        """Take `amount` VND and give the gateway's own reference of it.

        The same `reference` gives the same answer. Raises PaymentDeclined, which is for good, or GatewayUnavailable,
        which leaves open whether the money moved.
        """
        ...

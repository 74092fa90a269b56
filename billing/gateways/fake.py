"""A gateway without a service behind it, for tests and simulations: it grants everything, unless told otherwise."""

from collections import Counter

from billing.errors import GatewayUnavailable, PaymentDeclined


class FakeGateway:
    """Answers from the call alone, so that every process and every repetition gives the same answer."""

    def __init__(self) -> None:
        self._declined: set[str] = set()
        self._time_outs: Counter[str] = Counter()

    def decline(self, reference: str) -> None:
        """From now on refuse this charge."""
        self._declined.add(reference)

    def time_out(self, reference: str, times: int = 1) -> None:
        """Give no answer to the next calls for this charge."""
        self._time_outs[reference] = times

    def charge(self, reference: str, method: str, amount: int) -> str:
        """See Gateway."""
        if self._time_outs[reference] > 0:
            self._time_outs[reference] -= 1
            raise GatewayUnavailable(f"no answer to {reference}")
        if reference in self._declined:
            raise PaymentDeclined(f"{reference} was declined")
        return f"fake-{method}-{reference}-{amount}"

"""Stripe's test cards, by the names that its documentation gives them, and what each of them answers."""

from typing import Any


class ApiError(Exception):
    """An error answer of the interface."""

    def __init__(self, status: int, type: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"type": type, "message": message} | {name: value for name, value in more.items() if value}


# Declined as they are attached: code, decline code.
DECLINED = {
    "pm_card_chargeDeclined": ("card_declined", "generic_decline"),
    "pm_card_chargeDeclinedInsufficientFunds": ("card_declined", "insufficient_funds"),
    "pm_card_chargeDeclinedLostCard": ("card_declined", "lost_card"),
    "pm_card_chargeDeclinedExpiredCard": ("expired_card", None),
    "pm_card_chargeDeclinedProcessingError": ("processing_error", None),
}
# Declined as they are charged.
DECLINED_LATER = {"pm_card_chargeCustomerFail": ("card_declined", "generic_decline")}
GOOD = ("pm_card_visa", "pm_card_mastercard")
AUTHENTICATED = ("pm_card_authenticationRequired",)


class Cards:
    """How each payment method behaves; attached ones as the token they were made from, until a test says otherwise."""

    def __init__(self) -> None:
        self._refusals: dict[str, tuple[str, str | None] | None] = {
            **DECLINED, **DECLINED_LATER, **dict.fromkeys(GOOD + AUTHENTICATED)
        }  # fmt: skip
        self._authenticated = set(AUTHENTICATED)

    def check_known(self, method: str) -> None:
        if method not in self._refusals:
            raise ApiError(404, "invalid_request_error", f"No such PaymentMethod: '{method}'", code="resource_missing")

    def check_attach(self, token: str) -> None:
        self.check_known(token)
        if token in DECLINED:
            code, decline_code = DECLINED[token]
            raise ApiError(402, "card_error", "Your card was declined.", code=code, decline_code=decline_code)

    def copy(self, token: str, method: str) -> None:
        """The new payment method behaves as its token."""
        self._refusals[method] = self._refusals[token]
        if token in self._authenticated:
            self._authenticated.add(method)

    def refusal(self, method: str) -> tuple[str, str | None] | None:
        return self._refusals[method]

    def decline_from_now_on(self, method: str, decline_code: str = "insufficient_funds") -> None:
        """The bank refuses this card from now on."""
        self._refusals[method] = ("card_declined", decline_code)

    def wants_authentication(self, method: str) -> bool:
        return method in self._authenticated

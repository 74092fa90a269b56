"""Which payment methods can pay a stay, and what becomes of the money: said before it begins."""

from app.config import Settings

# Stripe takes eight digits at most.
CARD_MAXIMUM = 99_999_999
REASONS = (
    "put_aside", "held_on_card", "small_fee_from_wallet", "charged_together", "above_card_maximum", "owed_until_paid",
    "not_set_up", "not_free", "by_right", "nothing_to_pay",
)  # fmt: skip


def payment_methods(settings: Settings, total: int, by_right: bool = False) -> dict[str, tuple[bool, str]]:
    """By method: whether it can pay a stay of `total` VND, and how, or why not (one of REASONS).

    `by_right`: the vehicle may stand there without paying.
    """
    if total == 0:
        return dict.fromkeys(("wallet", "card", "vietqr", "vnpay", "cash", "free"), (True, "nothing_to_pay"))
    return {
        "wallet": (True, "put_aside"),
        "card": _card(settings, total),
        "vietqr": _later(settings.rails.account is not None),
        "vnpay": _later(settings.rails.merchant is not None),
        "cash": _later(True),
        "free": (True, "by_right") if by_right else (False, "not_free"),
    }


def _card(settings: Settings, total: int) -> tuple[bool, str]:
    if total > CARD_MAXIMUM:
        return False, "above_card_maximum"
    if settings.stripe_key is None:  # no card is charged: what is owed is paid in another way
        return True, "owed_until_paid"
    if total >= settings.stripe_minimum:
        return True, "held_on_card"
    return True, "small_fee_from_wallet" if settings.small_fees == "wallet" else "charged_together"


def _later(is_set_up: bool) -> tuple[bool, str]:
    return (True, "owed_until_paid") if is_set_up else (False, "not_set_up")

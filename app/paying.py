"""Which payment methods can pay a stay, and what becomes of the money: said before it begins, and while it is paid."""

from typing import NamedTuple

from app import cards
from app.cards import Shown
from app.config import Settings
from app.resources import Resources
from billing import session_money, transfers
from billing.errors import MethodUnavailable, UnknownPayment
from zones.sessions import Session

# Stripe takes eight digits at most.
CARD_MAXIMUM = 99_999_999
REASONS = (
    "put_aside", "held_on_card", "small_fee_from_wallet", "charged_together", "above_card_maximum", "owed_until_paid",
    "not_set_up", "not_free", "by_right", "nothing_to_pay",
)  # fmt: skip

STATUSES = ("open", "held", "owed", "paid", "refunded", "free")


class Standing(NamedTuple):
    """How a session is paid, in VND: what is put aside for it, was taken, is left to pay, went back. `card` is its
    payment by card, where there is one."""

    status: str  # one of STATUSES
    held: int
    captured: int
    owed: int
    refunded: int
    card: Shown | None


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


def check_set_up(settings: Settings, method: str) -> None:
    """Raises MethodUnavailable where a method has no rail here by which it could be paid."""
    if method == "card" and settings.stripe_key is None:
        raise MethodUnavailable("card is not set up here")
    if method in transfers.METHODS:
        settings.rails.check(method)


def _card(settings: Settings, total: int) -> tuple[bool, str]:
    if settings.stripe_key is None:
        return False, "not_set_up"
    if total > CARD_MAXIMUM:
        return False, "above_card_maximum"
    if total >= settings.stripe_minimum:
        return True, "held_on_card"
    return True, "small_fee_from_wallet" if settings.small_fees == "wallet" else "charged_together"


def _later(is_set_up: bool) -> tuple[bool, str]:
    return (True, "owed_until_paid") if is_set_up else (False, "not_set_up")


# --- while it is paid -------------------------------------------------------------------------------------------------
def standing(resources: Resources, session: Session) -> Standing:
    """How a session stands with its money."""
    money, card = session_money.of(resources.connections.get(), session.id), card_of(resources, session)
    on_card = card.payment.amount if card and card.payment.state == "authorized" else 0
    held = money.held + on_card
    return Standing(_status(session, money, held), held, money.captured, money.owed, money.refunded, card)


def card_of(resources: Resources, session: Session) -> Shown | None:
    """A session's payment by card; None where there is none."""
    try:
        return cards.shown(resources, session.id) if session.payment_method == "card" else None
    except UnknownPayment:  # nothing was to be held
        return None


def _status(session: Session, money: session_money.SessionMoney, held: int) -> str:
    if money.charged and money.refunded == money.charged:
        return "refunded"
    if money.charged and not money.owed:
        return "paid"
    if held:
        return "held"
    if money.owed:
        return "owed"
    return "free" if session.ended_at is not None and not session.fee else "open"

"""What one Stripe account holds, and how its payments move from state to state. No network here."""

import copy
import itertools
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.fake_stripe.cards import ApiError, Cards

MINIMUM, MAXIMUM = 13_000, 99_999_999
HOLD_SECONDS = 7 * 86_400
PAGE = 10
Object = dict[str, Any]
Params = Mapping[str, Any]


def invalid(message: str, code: str | None = None, status: int = 400, **more: Any) -> ApiError:
    return ApiError(status, "invalid_request_error", message, code=code, **more)


def flag(params: Params, name: str) -> bool:
    return params.get(name) == "true"


class Books:
    """Objects by id, oldest first. `emit` is told of every event; `now` gives seconds since 1970."""

    def __init__(self, now: Callable[[], float], emit: Callable[[str, Object], None]) -> None:
        self.now, self.emit = now, emit
        self.objects: dict[str, Object] = {}
        self.cards = Cards()
        self.refunds_stay = "succeeded"  # or pending, or failed: how the refunds to come are answered
        self.releases_are_refunds = False  # whether what a capture leaves, or a cancellation, is listed as a refund too
        self._numbers = itertools.count(1)

    def of(self, kind: str) -> list[Object]:
        """All objects of a kind, oldest first."""
        return [one for one in self.objects.values() if one["object"] == kind]

    def make(self, prefix: str, kind: str, **fields: Any) -> Object:
        made = {"id": f"{prefix}_{next(self._numbers):08d}", "object": kind, "created": int(self.now())}
        self.objects[made["id"]] = made | {"livemode": False} | fields
        return self.objects[made["id"]]

    def get(self, id_: str, kind: str) -> Object:
        found = self.objects.get(id_)
        if found is None or found["object"] != kind:
            raise invalid(f"No such {kind}: '{id_}'", "resource_missing", 404, param="id")
        return found

    def page(self, kind: str, params: Params, by: str = "") -> Object:
        """Newest first; of those whose field `by` is as asked for."""
        refused = set(params) - {"limit", "starting_after", "expand", by}
        if refused:
            raise invalid(f"not played here: {', '.join(refused)}")
        found = [one for one in self.of(kind)[::-1] if by not in params or one[by] == params[by]]
        if "starting_after" in params:
            found = list(itertools.dropwhile(lambda one: one["id"] != params["starting_after"], found))[1:]
        limit = int(params.get("limit", PAGE))
        more = len(found) > limit
        return {"object": "list", "data": found[:limit], "has_more": more, "url": f"/v1/{kind}s"}

    # --- customers and their cards --------------------------------------------------------------------------------
    def create_customer(self, params: Params) -> Object:
        return self.make("cus", "customer", metadata=dict(params.get("metadata", {})))

    def attach(self, token: str, params: Params) -> Object:
        """A test token becomes a card of its own."""
        self.get(params["customer"], "customer")
        self.cards.check_attach(token)
        kept = self.make("pm", "payment_method", type="card", customer=params["customer"], card={"brand": "visa"})
        self.cards.copy(token, kept["id"])
        return kept

    # --- payment intents ------------------------------------------------------------------------------------------
    def create_intent(self, params: Params) -> Object:
        amount = int(params["amount"])
        self._check_amount(amount, params["currency"])
        method = params.get("payment_method")
        if method is not None:
            self.cards.check_known(method)
        intent = self.make(
            "pi", "payment_intent", amount=amount, currency=params["currency"], amount_capturable=0,
            amount_received=0, capture_method=params.get("capture_method", "automatic_async"), next_action=None,
            customer=params.get("customer"), payment_method=method, latest_charge=None, last_payment_error=None,
            metadata=dict(params.get("metadata", {})), status="requires_payment_method", cancellation_reason=None,
            canceled_at=None,
        )  # fmt: skip
        intent["client_secret"] = f"{intent['id']}_secret_{secrets.token_hex(8)}"
        intent["status"] = "requires_confirmation" if method else "requires_payment_method"
        self.emit("payment_intent.created", intent)
        return self._confirm(intent, params) if flag(params, "confirm") else intent

    def confirm_intent(self, id_: str, params: Params) -> Object:
        intent = self.get(id_, "payment_intent")
        intent["payment_method"] = params.get("payment_method", intent["payment_method"])
        self._expect(intent, "requires_confirmation", "requires_payment_method")
        return self._confirm(intent, params)

    def _check_amount(self, amount: int, currency: str) -> None:
        if currency != "vnd":
            raise invalid("this account takes VND", "currency_not_supported", param="currency")
        if amount < MINIMUM:
            raise invalid(f"Amount must be at least ₫{MINIMUM} vnd", "amount_too_small", param="amount")
        if amount > MAXIMUM:
            raise invalid(f"Amount must be no more than ₫{MAXIMUM} vnd", "amount_too_large", param="amount")

    def _expect(self, intent: Object, *states: str) -> None:
        if intent["status"] not in states:
            text = f"This PaymentIntent has a status of {intent['status']}; expected one of {', '.join(states)}."
            raise invalid(text, "payment_intent_unexpected_state", payment_intent=intent)

    def _confirm(self, intent: Object, params: Params) -> Object:
        method = intent["payment_method"]
        if method is None:
            raise invalid("You cannot confirm without a payment method", "payment_intent_unexpected_state")
        if self.cards.wants_authentication(method) and not intent.get("authenticated"):
            if flag(params, "off_session"):
                return self._decline(intent, "authentication_required", "authentication_required")
            intent |= {"status": "requires_action", "next_action": {"type": "use_stripe_sdk", "use_stripe_sdk": {}}}
            self.emit("payment_intent.requires_action", intent)
            return intent
        refusal = self.cards.refusal(method)
        return self._decline(intent, *refusal) if refusal else self._authorize(intent)

    def authenticate(self, id_: str, succeeds: bool = True) -> Object:
        """What the driver does with the client secret, on his phone."""
        intent = self.get(id_, "payment_intent")
        self._expect(intent, "requires_action")
        intent |= {"next_action": None, "authenticated": succeeds, "status": "requires_confirmation"}
        try:
            if succeeds:
                return self._confirm(intent, {})
            return self._decline(intent, "payment_intent_authentication_failure", None)
        except ApiError:
            return intent

    def _decline(self, intent: Object, code: str, decline_code: str | None) -> Object:
        charge = self._charge(intent, status="failed", captured=False, paid=False)
        error = {"type": "card_error", "code": code, "message": "Your card was declined."}
        error |= {"charge": charge["id"]} | ({"decline_code": decline_code} if decline_code else {})
        intent |= {"status": "requires_payment_method", "payment_method": None, "last_payment_error": error}
        intent["latest_charge"] = charge["id"]
        self.emit("payment_intent.payment_failed", intent)
        raise ApiError(402, **error, payment_intent=copy.deepcopy(intent))  # type: ignore[arg-type]

    def _charge(self, intent: Object, **fields: Any) -> Object:
        return self.make(
            "ch", "charge", amount=intent["amount"], amount_captured=0, amount_refunded=0, currency="vnd",
            refunded=False, balance_transaction=None, customer=intent["customer"], payment_intent=intent["id"],
            payment_method=intent["payment_method"], metadata=dict(intent["metadata"]), **fields,
        )  # fmt: skip

    def _authorize(self, intent: Object) -> Object:
        charge = self._charge(intent, status="succeeded", captured=False, paid=True)
        intent["latest_charge"] = charge["id"]
        if intent["capture_method"] == "manual":
            intent |= {"status": "requires_capture", "amount_capturable": intent["amount"]}
            self.emit("payment_intent.amount_capturable_updated", intent)
            return intent
        return self._take(intent, charge, intent["amount"])

    def _take(self, intent: Object, charge: Object, amount: int) -> Object:
        line = self._book("charge", amount, charge["id"], fee=amount * 34 // 1000)
        charge |= {"captured": True, "amount_captured": amount, "balance_transaction": line["id"]}
        intent |= {"status": "succeeded", "amount_capturable": 0, "amount_received": amount}
        self.emit("charge.captured" if intent["capture_method"] == "manual" else "charge.succeeded", charge)
        self.emit("payment_intent.succeeded", intent)
        if self.releases_are_refunds and amount < intent["amount"]:
            self._release(charge, intent["amount"] - amount, None)
        return intent

    def capture(self, id_: str, params: Params) -> Object:
        intent = self.get(id_, "payment_intent")
        self._expect(intent, "requires_capture")
        amount = int(params.get("amount_to_capture", intent["amount_capturable"]))
        if amount > intent["amount_capturable"]:
            text = "The amount to capture exceeds the amount that is capturable."
            raise invalid(text, "amount_too_large", param="amount_to_capture")
        self._check_amount(amount, intent["currency"])
        return self._take(intent, self.objects[intent["latest_charge"]], amount)

    def cancel(self, id_: str, params: Params) -> Object:
        intent = self.get(id_, "payment_intent")
        self._expect(intent, "requires_payment_method", "requires_capture", "requires_confirmation", "requires_action")
        return self._cancel(intent, params.get("cancellation_reason"))

    def _cancel(self, intent: Object, reason: str | None) -> Object:
        held = intent["amount_capturable"]
        intent |= {"status": "canceled", "amount_capturable": 0, "next_action": None, "cancellation_reason": reason}
        intent["canceled_at"] = int(self.now())
        self.emit("payment_intent.canceled", intent)
        if held and (reason == "automatic" or self.releases_are_refunds):
            why = "expired_uncaptured_charge" if reason == "automatic" else None
            self._release(self.objects[intent["latest_charge"]], held, why)
        return intent

    def _release(self, charge: Object, amount: int, reason: str | None) -> None:
        """Stripe lists money that it never took as a refund, which moves nothing on the account."""
        self.make(
            "re", "refund", amount=amount, currency="vnd", charge=charge["id"], metadata={}, status="succeeded",
            payment_intent=charge["payment_intent"], reason=reason, balance_transaction=None,
        )  # fmt: skip
        self.emit("charge.refunded", charge)

    def expire_holds(self) -> None:
        """Banks keep a hold for a week."""
        for intent in self.of("payment_intent"):
            if intent["status"] == "requires_capture" and intent["created"] + HOLD_SECONDS <= self.now():
                self._cancel(intent, "automatic")

    # --- refunds and the account's own list -----------------------------------------------------------------------
    def refund(self, params: Params) -> Object:
        intent = self.get(params["payment_intent"], "payment_intent")
        charge = self.objects.get(intent["latest_charge"] or "")
        if intent["status"] != "succeeded" or charge is None:
            raise invalid("This PaymentIntent does not have a successful charge to refund.", "charge_not_refundable")
        left = charge["amount_captured"] - charge["amount_refunded"]
        amount = int(params.get("amount", left))
        if left == 0:
            raise invalid("Charge has already been refunded.", "charge_already_refunded")
        if not 0 < amount <= left:
            raise invalid(f"Refund amount (₫{amount}) is greater than unrefunded amount on charge (₫{left})")
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount_captured"]
        made = self.make(
            "re", "refund", amount=amount, currency="vnd", charge=charge["id"], payment_intent=intent["id"],
            status="pending" if self.refunds_stay == "pending" else "succeeded", reason=None,
            metadata=dict(params.get("metadata", {})),
        )  # fmt: skip
        made["balance_transaction"] = self._book("refund", -amount, made["id"])["id"]
        self.emit("charge.refunded", charge)
        return self.fail_refund(made["id"]) if self.refunds_stay == "failed" else made

    def fail_refund(self, id_: str, then: str = "refund.failed") -> Object:
        """The card's bank does not take a refund: Stripe has the money again, some days later."""
        made = self.get(id_, "refund")
        charge = self.objects[made["charge"]]
        charge["amount_refunded"] -= made["amount"]
        charge["refunded"] = False
        line = self._book("refund_failure", made["amount"], id_)
        made |= {"status": "failed", "failure_reason": "expired_or_canceled_card"}
        made["failure_balance_transaction"] = line["id"]
        self.emit(then, made)
        return made

    def _book(self, kind: str, amount: int, source: str, fee: int = 0) -> Object:
        return self.make(
            "txn", "balance_transaction", type=kind, amount=amount, fee=fee, net=amount - fee, currency="vnd",
            source=source, status="available",
        )  # fmt: skip

    # --- what an answer shows -------------------------------------------------------------------------------------
    def expanded(self, answer: Object, paths: list[str]) -> Object:
        """A copy of an answer with the objects behind its ids where they were asked for."""
        answer = copy.deepcopy(answer)
        for path in paths:
            for holder in self._holders(answer, path.split(".")[:-1]):
                name = path.split(".")[-1]
                holder[name] = copy.deepcopy(self.objects.get(holder[name], holder[name]))
        return answer

    def _holders(self, answer: Object, names: list[str]) -> Iterator[Object]:
        for name in names:
            inner = answer[name]
            yield from inner if isinstance(inner, list) else [inner]
        if not names:
            yield answer

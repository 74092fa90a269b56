"""VNPay 2.1.0: the address at which a driver pays, and what VNPay tells us of it.

Both ways carry `vnp_` parameters in a query string, sorted by name, each value encoded as a form is (UTF-8, a space as
+), and the HMAC-SHA512 of that very string. Amounts are VND × 100, times are Hanoi's, yyyyMMddHHmmss. VNPay's server
tells the outcome by a GET of its own (the IPN) and asks for an answer; the driver's browser brings the same parameters
back. Asking for an outcome (querydr) and giving money back (refund) are JSON, signed over chosen fields.

No request is sent from here.
"""

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from urllib.parse import quote_plus, unquote_plus
from zoneinfo import ZoneInfo

from billing.errors import BadSignature, BillingError, UnreadableEvent

VERSION = "2.1.0"
HANOI = ZoneInfo("Asia/Ho_Chi_Minh")
TIME = "%Y%m%d%H%M%S"
LOCALES = ("vn", "en")
SIGNATURE = "vnp_SecureHash"
UNSIGNED = (SIGNATURE, "vnp_SecureHashType")
SUCCESS = "00"
# vnp_Amount has twelve digits, the last two of which are hundredths.
MOST = 10**10 - 1

# What we answer to an IPN: VNPay repeats it until it gets one of 00, 02, or a refusal that it can show its operators.
CONFIRMED = ("00", "Confirm Success")
UNKNOWN_ORDER = ("01", "Order not found")
ALREADY_CONFIRMED = ("02", "Order already confirmed")
WRONG_AMOUNT = ("04", "Invalid amount")
BAD_SIGNATURE = ("97", "Invalid signature")
OTHER_ERROR = ("99", "Unknown error")

QUERY_SIGNED = (
    "vnp_RequestId", "vnp_Version", "vnp_Command", "vnp_TmnCode", "vnp_TxnRef", "vnp_TransactionDate",
    "vnp_CreateDate", "vnp_IpAddr", "vnp_OrderInfo",
)  # fmt: skip
REFUND_SIGNED = (
    "vnp_RequestId", "vnp_Version", "vnp_Command", "vnp_TmnCode", "vnp_TransactionType", "vnp_TxnRef", "vnp_Amount",
    "vnp_TransactionNo", "vnp_TransactionDate", "vnp_CreateBy", "vnp_CreateDate", "vnp_IpAddr", "vnp_OrderInfo",
)  # fmt: skip
ANSWER_SIGNED = (
    "vnp_ResponseId", "vnp_Command", "vnp_ResponseCode", "vnp_Message", "vnp_TmnCode", "vnp_TxnRef", "vnp_Amount",
    "vnp_BankCode", "vnp_PayDate", "vnp_TransactionNo", "vnp_TransactionType", "vnp_TransactionStatus",
    "vnp_OrderInfo",
)  # fmt: skip
QUERY_ANSWER_SIGNED = (*ANSWER_SIGNED, "vnp_PromotionCode", "vnp_PromotionAmount")
FULL_REFUND, PARTIAL_REFUND = "02", "03"


class BadOrder(BillingError):
    """VNPay would not take an order like this; the text names the part."""


@dataclass(frozen=True, slots=True)
class Merchant:
    """Who we are to VNPay: our terminal, the secret that both sides sign with, and where drivers go and come back."""

    tmn_code: str
    hash_secret: str = field(repr=False)
    url: str
    return_url: str


class Order(NamedTuple):
    """What is to be paid: our reference (never used twice), VND, who pays from which address, and until when."""

    reference: str
    amount: int
    info: str
    ip: str
    created_at: datetime
    expires_at: datetime
    locale: str = "vn"


class Notice(NamedTuple):
    """What VNPay says of an order: `transaction` is its own number, `amount` is in VND, `code` why it was not paid."""

    reference: str
    amount: int
    transaction: str
    is_paid: bool
    code: str
    paid_at: datetime | None


def payment_url(merchant: Merchant, order: Order) -> str:
    """Where the driver pays. Raises BadOrder."""
    _check(order)
    query = encode({
        "vnp_Version": VERSION,
        "vnp_Command": "pay",
        "vnp_TmnCode": merchant.tmn_code,
        "vnp_Amount": str(order.amount * 100),
        "vnp_CurrCode": "VND",
        "vnp_TxnRef": order.reference,
        "vnp_OrderInfo": order.info,
        "vnp_OrderType": "other",
        "vnp_Locale": order.locale,
        "vnp_ReturnUrl": merchant.return_url,
        "vnp_IpAddr": order.ip,
        "vnp_CreateDate": local(order.created_at),
        "vnp_ExpireDate": local(order.expires_at),
    })  # fmt: skip
    return f"{merchant.url}?{query}&{SIGNATURE}={sign(merchant.hash_secret, query)}"


def _check(order: Order) -> None:
    if not 0 < order.amount <= MOST:
        raise BadOrder(f"amount: {order.amount} is not within 1 and {MOST}")
    if not re.fullmatch(r"[0-9A-Za-z]{1,100}", order.reference):
        raise BadOrder("reference: 1 to 100 letters and digits")
    if not 1 <= len(order.info) <= 255 or not order.info.isprintable():
        raise BadOrder("info: 1 to 255 printable characters")
    if not 7 <= len(order.ip) <= 45:
        raise BadOrder("ip: 7 to 45 characters")
    if order.locale not in LOCALES:
        raise BadOrder(f"locale: {order.locale!r} is none of {', '.join(LOCALES)}")
    if order.expires_at <= order.created_at:
        raise BadOrder("expires_at: not after created_at")


def encode(parameters: Mapping[str, str]) -> str:
    """The parameters as a query string that can be signed: sorted, without empty ones, encoded as a form is.

    The tilde is encoded too: Python leaves it, the libraries of VNPay's samples (Java, PHP, .NET) do not.
    """
    pairs = sorted((name, value) for name, value in parameters.items() if value)
    return "&".join(f"{_quote(name)}={_quote(value)}" for name, value in pairs)


def _quote(text: str) -> str:
    return quote_plus(text).replace("~", "%7E")


def sign(secret: str, text: str) -> str:
    """HMAC-SHA512 of a text in UTF-8, hexadecimal."""
    return hmac.digest(secret.encode(), text.encode(), "sha512").hex()


def verify(secret: str, query: str) -> dict[str, str]:
    """The `vnp_` parameters of a query string as it came, its signature checked. Raises BadSignature.

    What was signed is what was sent, so the values are not decoded and encoded again before they are compared: two
    libraries do not agree on every character. A parameter that stands there twice could be read in two ways.
    """
    pairs = [pair.partition("=") for pair in query.split("&") if pair.startswith("vnp_")]
    raw = {name: value for name, _, value in pairs}
    signed = "&".join(f"{name}={raw[name]}" for name in sorted(raw) if name not in UNSIGNED and raw[name])
    given = raw.get(SIGNATURE, "").lower()
    if len(raw) < len(pairs) or not _is_same(given, sign(secret, signed)):
        raise BadSignature("vnp_SecureHash is not the signature of these parameters")
    return {name: unquote_plus(value) for name, value in raw.items() if name not in UNSIGNED}


def _is_same(given: str, expected: str) -> bool:
    """In constant time, whatever characters were given."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def read_notice(parameters: Mapping[str, str]) -> Notice:
    """What verified parameters of an IPN or a return say. Raises UnreadableEvent."""
    hundredths = _digits(parameters, "vnp_Amount")
    if hundredths % 100:
        raise UnreadableEvent(f"vnp_Amount: {hundredths} is no whole number of dong")
    code = _needed(parameters, "vnp_ResponseCode")
    status = parameters.get("vnp_TransactionStatus", code)
    return Notice(
        reference=_needed(parameters, "vnp_TxnRef"),
        amount=hundredths // 100,
        transaction=_needed(parameters, "vnp_TransactionNo"),
        is_paid=code == SUCCESS == status,
        code=status if code == SUCCESS else code,
        paid_at=_time(parameters, "vnp_PayDate"),
    )


def _needed(parameters: Mapping[str, str], name: str) -> str:
    if not parameters.get(name):
        raise UnreadableEvent(f"{name}: missing")
    return parameters[name]


def _digits(parameters: Mapping[str, str], name: str) -> int:
    text = _needed(parameters, name)
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise UnreadableEvent(f"{name}: {text[:40]!r} is no whole number")
    return int(text)


def _time(parameters: Mapping[str, str], name: str) -> datetime | None:
    text = parameters.get(name)
    if not text or text == "0":
        return None
    try:
        return datetime.strptime(text, TIME).replace(tzinfo=HANOI)
    except ValueError:
        raise UnreadableEvent(f"{name}: {text[:40]!r} is no time as 20261126093000") from None


def local(instant: datetime) -> str:
    """An aware instant as VNPay writes it: GMT+7, to the second."""
    return instant.astimezone(HANOI).strftime(TIME)


def query_request(merchant: Merchant, request_id: str, order: Order, at: datetime) -> dict[str, str]:
    """The JSON body that asks VNPay how an order went; `request_id` is new each time, at most 32 characters."""
    body = _request(merchant, "querydr", request_id, order, at)
    return body | {SIGNATURE: _sign_fields(merchant.hash_secret, body, QUERY_SIGNED)}


def refund_request(
    merchant: Merchant, request_id: str, order: Order, at: datetime, *, transaction: str, amount: int, by: str
) -> dict[str, str]:
    """The JSON body that gives `amount` VND of a paid order back; `by` is who ordered it. Raises BadOrder."""
    if not 0 < amount <= order.amount:
        raise BadOrder(f"amount: {amount} is not within 1 and {order.amount}, which was paid")
    body = _request(merchant, "refund", request_id, order, at) | {
        "vnp_TransactionType": FULL_REFUND if amount == order.amount else PARTIAL_REFUND,
        "vnp_Amount": str(amount * 100),
        "vnp_TransactionNo": transaction,
        "vnp_CreateBy": by,
    }
    return body | {SIGNATURE: _sign_fields(merchant.hash_secret, body, REFUND_SIGNED)}


def _request(merchant: Merchant, command: str, request_id: str, order: Order, at: datetime) -> dict[str, str]:
    return {
        "vnp_RequestId": request_id,
        "vnp_Version": VERSION,
        "vnp_Command": command,
        "vnp_TmnCode": merchant.tmn_code,
        "vnp_TxnRef": order.reference,
        "vnp_OrderInfo": order.info,
        "vnp_TransactionDate": local(order.created_at),
        "vnp_CreateDate": local(at),
        "vnp_IpAddr": order.ip,
    }


def verify_answer(secret: str, answer: Mapping[str, str]) -> None:
    """Check the signature of what VNPay answered to a query or a refund. Raises BadSignature."""
    names = QUERY_ANSWER_SIGNED if answer.get("vnp_Command") == "querydr" else ANSWER_SIGNED
    if not _is_same(str(answer.get(SIGNATURE, "")).lower(), _sign_fields(secret, answer, names)):
        raise BadSignature("vnp_SecureHash is not the signature of this answer")


def _sign_fields(secret: str, fields: Mapping[str, str], names: Sequence[str]) -> str:
    """The signature over chosen fields in a fixed order, with bars between; one that is not there is empty."""
    return sign(secret, "|".join(str(fields.get(name, "")) for name in names))

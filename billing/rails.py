"""The rails on which a driver pays by themselves: VietQR to our bank account, and VNPay. The one door to both.

What is set up is a setting; what is not refuses its method.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from billing import transfers
from billing.errors import BadSignature, MethodUnavailable, PaymentOver, UnreadableEvent
from billing.gateways import bank, vietqr, vnpay
from billing.gateways.bank import Account
from billing.gateways.vnpay import Merchant, Notice
from billing.payments import Payment
from billing.transfers import Credit

# VNPay wants an address of 7 characters at least; "::1" is one of this machine itself.
SHORTEST_ADDRESS, LOCAL_ADDRESS = 7, "127.0.0.1"


class Payer(NamedTuple):
    """Who is to pay at VNPay's page: from which address, in which language (vn, en)."""

    ip: str | None
    locale: str = "vn"


@dataclass(frozen=True, slots=True)
class Rails:
    """What is set up: the account that receives transfers, the secret its bank signs with, us as VNPay knows us."""

    account: Account | None = None
    merchant: Merchant | None = None
    bank_secret: str | None = field(default=None, repr=False)

    def check(self, method: str) -> None:
        """Raises MethodUnavailable where a method is not set up."""
        if (self.account if method == "vietqr" else self.merchant) is None:
            raise MethodUnavailable(f"{method} is not set up here")

    def qr(self, payment: Payment, now: datetime) -> str | None:
        """What the QR image of a payment says; None where it has none (any more)."""
        if self.account is None or not _waits(payment, "vietqr", now):
            return None
        return vietqr.build(vietqr.Transfer(*self.account, payment.amount, payment.reference))

    def image(self, payment: Payment, kind: str, now: datetime) -> bytes:
        """The QR image, as "svg" or "png". Raises PaymentOver."""
        payload = self.qr(payment, now)
        if payload is None:
            raise PaymentOver(f"a payment by {payment.method} that is {transfers.state_at(payment, now)} has no QR")
        return {"svg": vietqr.svg, "png": vietqr.png}[kind](payload)

    def redirect_url(self, payment: Payment, payer: Payer, now: datetime) -> str | None:
        """Where a payment is made at VNPay; None where it is not (any more)."""
        if self.merchant is None or not _waits(payment, "vnpay", now):
            return None
        return vnpay.payment_url(self.merchant, _order(payment, payer))

    def verify_notice(self, query: str) -> dict[str, str]:
        """The parameters of VNPay's call, by its query string, checked who signed them. Raises BadSignature."""
        if self.merchant is None:
            raise BadSignature("VNPay is not set up here")
        return vnpay.verify(self.merchant.hash_secret, query)

    def read_notice(self, query: str) -> Notice:
        """What VNPay says of an order. Raises BadSignature, UnreadableEvent."""
        return vnpay.read_notice(self.verify_notice(query))

    def verify_push(self, timestamp: str, signature: str, body: bytes, real_now: datetime) -> str:
        """Check who pushed a credit; the bank's transaction id. Raises BadSignature, UnreadableEvent."""
        if self.bank_secret is None:
            raise BadSignature("no bank pushes here")
        bank.verify(self.bank_secret, timestamp, signature, body, real_now)
        return bank.read(body).transaction

    def read_push(self, body: bytes) -> Credit:
        """The credit of a push that was verified before. Raises UnreadableEvent where it is to another account."""
        push = bank.read(body)
        if self.account is None or push.account != self.account.number:
            raise UnreadableEvent(f"account {push.account} is not the one that receives")
        return Credit("vietqr", push.transaction, push.amount, push.at, push.description)


def _waits(payment: Payment, method: str, now: datetime) -> bool:
    return payment.method == method and transfers.state_at(payment, now) in transfers.OPEN


def _order(payment: Payment, payer: Payer) -> vnpay.Order:
    assert payment.expires_at is not None, "a payment at VNPay has its time"
    ip = payer.ip if payer.ip and len(payer.ip) >= SHORTEST_ADDRESS else LOCAL_ADDRESS
    info = f"iParking {payment.reference}"
    return vnpay.Order(
        payment.reference, payment.amount, info, ip, payment.created_at, payment.expires_at, payer.locale
    )

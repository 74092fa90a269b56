"""A service on whose rails a test pays, and a bank and a VNPay that the test plays."""

from dataclasses import replace
from datetime import datetime

from app.resources import Resources
from billing import transfers
from billing.gateways import vnpay
from billing.gateways.bank import Account
from billing.gateways.vnpay import Merchant
from billing.rails import Rails
from billing.transfers import Credit, Received

SECRET = "A-SECRET-OF-A-TEST"
ACCOUNT = Account("970436", "0123456789")
MERCHANT = Merchant("IPARK001", SECRET, "https://pay.example/vpcpay.html", "https://iparking.example/return")
RAILS = Rails(ACCOUNT, MERCHANT, SECRET)


def on_rails(resources: Resources, rails: Rails = RAILS) -> Resources:
    """The same service with these rails."""
    return replace(resources, settings=replace(resources.settings, rails=rails))


def transfer(resources: Resources, reference: str, amount: int, transaction: str = "FT1") -> Received:
    """The driver's bank sends money with a reference; it is told now."""
    now = resources.clock.now()
    credit = Credit("vietqr", transaction, amount, now, f"ND {reference}")
    return transfers.receive(resources.connections.get(), credit, now)


def ipn(payment: dict, at: datetime, **change: str) -> str:
    """What VNPay tells of a payment that went well, signed."""
    query = vnpay.encode({
        "vnp_TmnCode": MERCHANT.tmn_code,
        "vnp_TxnRef": payment["reference"],
        "vnp_Amount": str(payment["amount"]["amount"] * 100),
        "vnp_OrderInfo": f"iParking {payment['reference']}",
        "vnp_BankCode": "NCB",
        "vnp_PayDate": vnpay.local(at),
        "vnp_TransactionNo": "14226112",
        "vnp_ResponseCode": "00",
        "vnp_TransactionStatus": "00",
    } | change)  # fmt: skip
    return f"{query}&vnp_SecureHash={vnpay.sign(SECRET, query)}"

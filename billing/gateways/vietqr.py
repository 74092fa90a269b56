"""VietQR: what a driver's banking app reads from a QR image, a transfer to our account already filled in.

A payload (NAPAS's profile of EMVCo's merchant-presented QR) is a chain of fields, each a tag and a length of two digits
and its value; a value may be such a chain itself. The last field is a CRC over all before it, its own tag and length
included.
"""

import io
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from billing.errors import BillingError
from billing.gateways.bank import ACCOUNT, BIN

NAPAS = "A000000727"
TO_ACCOUNT = "QRIBFTTA"  # a transfer to an account; QRIBFTTC is one to a card
SERVICE = re.compile("QRIBFTT[AC]")
VND, VIETNAM = "704", "VN"
STATIC, DYNAMIC = "11", "12"
LONGEST_PURPOSE = 25
AMOUNT = re.compile(r"[1-9]\d{0,12}", re.A)
# What every banking app leaves as it is.
PURPOSE = re.compile(rf"[0-9A-Za-z .,:/-]{{1,{LONGEST_PURPOSE}}}")
ERRORS = "m"  # readable where 15 % of it is lost: on a screen that is cracked or dirty
QUIET_ZONE = 4  # modules, by the standard


class BadPayload(BillingError):
    """This is no VietQR payload, or one that is damaged; the text names the field."""


class Transfer(NamedTuple):
    """To whom, how much (VND) and with which text; without an amount the payer enters it (a static QR)."""

    bin: str
    account: str
    amount: int | None = None
    purpose: str | None = None
    service: str = TO_ACCOUNT


def build(transfer: Transfer) -> str:
    """The payload of a transfer. Raises BadPayload where a part of it breaks its rule."""
    _check("bank BIN", BIN, transfer.bin)
    _check("account", ACCOUNT, transfer.account)
    beneficiary = _join([("00", transfer.bin), ("01", transfer.account)])
    account = _join([("00", NAPAS), ("01", beneficiary), ("02", _check("service", SERVICE, transfer.service))])
    fields = [("00", "01"), ("01", STATIC if transfer.amount is None else DYNAMIC), ("38", account), ("53", VND)]
    if transfer.amount is not None:
        fields.append(("54", _check("amount", AMOUNT, str(transfer.amount))))
    fields.append(("58", VIETNAM))
    if transfer.purpose is not None:
        fields.append(("62", _join([("08", _check("purpose", PURPOSE, transfer.purpose))])))
    body = _join(fields) + "6304"
    return body + crc(body)


def parse(payload: str) -> Transfer:
    """The transfer that a payload asks for; fields that it does not need are read over. Raises BadPayload."""
    body, given = payload[:-4], payload[-4:]
    if not body.endswith("6304") or crc(body) != given:
        raise BadPayload("field 63: the CRC is not that of the payload")
    fields = _split(body[:-4], "")
    for tag, known in (("00", ("01",)), ("01", (STATIC, DYNAMIC)), ("53", (VND,)), ("58", (VIETNAM,))):
        if fields.get(tag) not in known:
            raise BadPayload(f"field {tag}: {fields.get(tag, 'nothing')} instead of {' or '.join(known)}")
    account = _split(fields.get("38", ""), "38/")
    if account.get("00") != NAPAS:
        raise BadPayload(f"field 38/00: not NAPAS's {NAPAS}")
    beneficiary, texts = _split(account.get("01", ""), "38/01/"), _split(fields.get("62", ""), "62/")
    _check("field 38/01/00", BIN, beneficiary.get("00", ""))
    _check("field 38/01/01", ACCOUNT, beneficiary.get("01", ""))
    amount = int(_check("field 54", AMOUNT, fields["54"])) if "54" in fields else None
    service = _check("field 38/02", SERVICE, account.get("02", ""))
    return Transfer(beneficiary["00"], beneficiary["01"], amount, texts.get("08"), service)


def crc(text: str) -> str:
    """CRC-16/CCITT-FALSE (polynomial 0x1021, start 0xFFFF) of the text in UTF-8, as four hexadecimal digits."""
    value = 0xFFFF
    for byte in text.encode():
        value ^= byte << 8
        for _ in range(8):
            value = (value << 1 ^ 0x1021 if value & 0x8000 else value << 1) & 0xFFFF
    return f"{value:04X}"


def svg(payload: str) -> bytes:
    """The QR image as SVG that scales to where it is shown."""
    return _image(payload, kind="svg", omitsize=True, light="#fff", svgversion=2.0)


def png(payload: str, scale: int = 8) -> bytes:
    """The QR image as PNG, `scale` pixels a module."""
    return _image(payload, kind="png", scale=scale)


def _image(payload: str, **form: Any) -> bytes:
    import segno  # only who shows an image needs it

    image = io.BytesIO()
    segno.make_qr(payload, error=ERRORS, boost_error=False).save(image, border=QUIET_ZONE, **form)
    return image.getvalue()


def _join(fields: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{tag}{len(value):02}{value}" for tag, value in fields)


def _split(chain: str, place: str) -> dict[str, str]:
    """The fields of a chain by tag; `place` is where it stands, for the error."""
    fields: dict[str, str] = {}
    while chain:
        tag, length, chain = chain[:2], chain[2:4], chain[4:]
        if not re.fullmatch(r"[0-9]{4}", tag + length) or not 0 < int(length) <= len(chain):
            raise BadPayload(f"field {place}{tag}: no tag, length and value of that length")
        if tag in fields:
            raise BadPayload(f"field {place}{tag}: twice")
        fields[tag], chain = chain[: int(length)], chain[int(length) :]
    return fields


def _check(name: str, rule: re.Pattern[str], value: str) -> str:
    if not rule.fullmatch(value):
        raise BadPayload(f"{name}: {value[:40]!r} does not match {rule.pattern}")
    return value

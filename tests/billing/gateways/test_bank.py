"""A bank's push: believed where it is signed, new and whole; refused with what is wrong otherwise."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from billing.errors import BadSignature, UnreadableEvent
from billing.gateways import bank
from tests.billing.rate_examples import hanoi

SECRET = "A-SECRET-OF-A-TEST"
NOW = datetime(2026, 11, 26, 2, 30, 15, tzinfo=UTC)
STAMP = str(int(NOW.timestamp()))
PUSH = {
    "transaction_id": "FT26330001",
    "account": "0123456789",
    "amount": 25_000,
    "at": "2026-11-26T09:30:15+07:00",
    "description": "PARK7K2M9QXW4HT chuyển tiền",
}
BODY = json.dumps(PUSH).encode()


def test_signature_is_that_of_time_and_body():
    # printf '1795660215.{}' | openssl dgst -sha256 -hmac A-SECRET-OF-A-TEST
    assert (
        bank.sign(SECRET, "1795660215", b"{}")
        == "sha256=bce606d77bf6d389f8665209c4706b21e9631e7ddce28328c6c69b3530732f61"
    )


@pytest.mark.parametrize("off", [timedelta(0), bank.TOLERANCE, -bank.TOLERANCE])
def test_signed_and_new_is_taken(off: timedelta):
    bank.verify(SECRET, STAMP, bank.sign(SECRET, STAMP, BODY), BODY, NOW + off)
    assert bank.read(BODY) == ("FT26330001", "0123456789", 25_000, hanoi("2026-11-26T09:30:15"), PUSH["description"])


@pytest.mark.parametrize(
    ("stamp", "signature", "body"),
    [
        (STAMP, "", BODY),
        (STAMP, "sha256=đ", BODY),
        (STAMP, bank.sign("another", STAMP, BODY), BODY),
        (STAMP, bank.sign(SECRET, STAMP, BODY).removeprefix("sha256="), BODY),
        (STAMP, bank.sign(SECRET, STAMP, BODY), BODY.replace(b"25000", b"95000")),
        (str(int(STAMP) + 1), bank.sign(SECRET, STAMP, BODY), BODY),
        *((stamp, bank.sign(SECRET, stamp, BODY), BODY) for stamp in ("", "soon", "-5", "١٧٩٥", "9" * 11, "0")),
    ],
)
def test_not_signed_or_not_a_time_is_refused(stamp: str, signature: str, body: bytes):
    with pytest.raises(BadSignature):
        bank.verify(SECRET, stamp, signature, body, NOW)


@pytest.mark.parametrize("off", [bank.TOLERANCE, -bank.TOLERANCE])
def test_recording_of_an_older_push_is_refused(off: timedelta):
    with pytest.raises(BadSignature, match="X-Timestamp"):
        bank.verify(SECRET, STAMP, bank.sign(SECRET, STAMP, BODY), BODY, NOW + off * 1.01)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("transaction_id", [None, "", 1, "F" * 101, "a\x00", "\ud800"]),
        ("account", [None, "", 123]),
        ("amount", [None, 0, -1, 1.0, "25000", True, 10**14]),
        ("at", [None, 1, "soon", "2026-11-26T09:30:15", "1999-12-31T00:00:00Z"]),
        ("description", [None, 1, "d" * 1001]),
    ],
)
def test_field_that_is_missing_or_wrong_is_named(field: str, values: list):
    for value in values:
        with pytest.raises(UnreadableEvent, match=field):
            bank.read(json.dumps(PUSH | {field: value}).encode())


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"{", b"null", b"NaN"])
def test_what_is_no_object_is_refused(body: bytes):
    with pytest.raises(UnreadableEvent, match="the body is no JSON"):
        bank.read(body)


def test_text_may_be_empty():
    assert bank.read(json.dumps(PUSH | {"description": ""}).encode()).description == ""

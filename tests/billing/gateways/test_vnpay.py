"""VNPay: signed as its samples sign, read as it came, and nothing believed that is not signed."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.errors import BadSignature, UnreadableEvent
from billing.gateways import vnpay
from billing.gateways.vnpay import BadOrder, Merchant, Order
from tests.billing.rate_examples import hanoi

SECRET = "A-SECRET-OF-A-TEST"
MERCHANT = Merchant("IPARK001", SECRET, "https://pay.example/vpcpay.html", "https://iparking.example/return")
NOW = hanoi("2026-11-26T23:30")
ORDER = Order("PARK7K2M9QXW4HT", 85_000, "Thanh toan do xe", "203.0.113.7", NOW, NOW + timedelta(minutes=45))
PAID = {
    "vnp_TmnCode": "IPARK001",
    "vnp_TxnRef": ORDER.reference,
    "vnp_Amount": "8500000",
    "vnp_OrderInfo": "Thanh toan do xe",
    "vnp_BankCode": "NCB",
    "vnp_PayDate": "20261126233512",
    "vnp_TransactionNo": "14226112",
    "vnp_ResponseCode": "00",
    "vnp_TransactionStatus": "00",
}


def signed(parameters: dict[str, str], secret: str = SECRET) -> str:
    query = vnpay.encode(parameters)
    return f"{query}&vnp_SecureHash={vnpay.sign(secret, query)}"


def test_payment_url_is_written_out_as_the_protocol_says():
    url = urlsplit(vnpay.payment_url(MERCHANT, ORDER))
    query, _, signature = url.query.rpartition("&vnp_SecureHash=")
    assert f"{url.scheme}://{url.netloc}{url.path}" == MERCHANT.url
    assert query == (
        "vnp_Amount=8500000&vnp_Command=pay&vnp_CreateDate=20261126233000&vnp_CurrCode=VND"
        "&vnp_ExpireDate=20261127001500&vnp_IpAddr=203.0.113.7&vnp_Locale=vn&vnp_OrderInfo=Thanh+toan+do+xe"
        "&vnp_OrderType=other&vnp_ReturnUrl=https%3A%2F%2Fiparking.example%2Freturn&vnp_TmnCode=IPARK001"
        "&vnp_TxnRef=PARK7K2M9QXW4HT&vnp_Version=2.1.0"
    )
    # printf %s "$query" | openssl dgst -sha512 -hmac A-SECRET-OF-A-TEST
    assert (
        signature == "a4a8fe0e0bb21f1022893837eca2292e82980d996c34a2805cd945d70b575e7f"
        "1a52f0a0f4c4e2d813fb48fb9e9d1572e5de3e77aeb488931cbdfc2e5abf4dd4"
    )


def test_unicode_is_sent_and_signed_as_utf8():
    info = "Đỗ xe Phố Trần Hưng Đạo & 85.000 đ (100%) ~ a+b=c*"
    query = urlsplit(vnpay.payment_url(MERCHANT, ORDER._replace(info=info))).query
    assert (
        "vnp_OrderInfo=%C4%90%E1%BB%97+xe+Ph%E1%BB%91+Tr%E1%BA%A7n+H%C6%B0ng+%C4%90%E1%BA%A1o+%26+85.000+%C4%91"
        in query
    )
    assert "+%28100%25%29+%7E+a%2Bb%3Dc%2A&" in query
    assert vnpay.verify(SECRET, query)["vnp_OrderInfo"] == info


texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=60)
# Letters of all alphabets, and every sign that some library encodes and another does not.
infos = st.text(st.characters(categories=("L", "N")) | st.sampled_from(" ~*!()'-._+&=%#/?đĐ"), min_size=1, max_size=60)


@given(infos, st.integers(1, vnpay.MOST), st.sampled_from(vnpay.LOCALES))
def test_every_order_comes_back_as_it_was_sent(info: str, amount: int, locale: str):
    order = ORDER._replace(info=info, amount=amount, locale=locale)
    query = urlsplit(vnpay.payment_url(MERCHANT, order)).query
    read = vnpay.verify(SECRET, query)
    assert read == {name: value for name, value in parse_qsl(query) if name != "vnp_SecureHash"}
    assert (read["vnp_OrderInfo"], read["vnp_Amount"], read["vnp_Locale"]) == (info, str(amount * 100), locale)


def test_times_are_hanois_whatever_zone_they_come_in():
    assert vnpay.local(datetime(2026, 11, 26, 17, 0, 1, 999_999, UTC)) == "20261127000001"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"amount": 0}, "amount"),
        ({"amount": vnpay.MOST + 1}, "amount"),
        ({"reference": "PARK 1"}, "reference"),
        ({"reference": ""}, "reference"),
        ({"info": ""}, "info"),
        ({"info": "a\nb"}, "info"),
        ({"info": "a" * 256}, "info"),
        ({"ip": ""}, "ip"),
        ({"locale": "vi"}, "locale"),
        ({"expires_at": NOW}, "expires_at"),
    ],
)
def test_order_that_vnpay_would_refuse_is_not_sent(change: dict, named: str):
    with pytest.raises(BadOrder, match=named):
        vnpay.payment_url(MERCHANT, ORDER._replace(**change))


@given(st.dictionaries(st.sampled_from([*sorted(PAID), "vnp_A", "vnp_B", "vnp_a"]), texts, min_size=1))
def test_notice_is_verified_whatever_it_says(parameters: dict[str, str]):
    assert vnpay.verify(SECRET, signed(parameters)) == parameters


def test_order_of_parameters_and_case_of_the_signature_do_not_count():
    query, _, signature = signed(PAID).rpartition("&vnp_SecureHash=")
    shuffled = "&".join([f"vnp_SecureHash={signature.upper()}", *reversed(query.split("&"))])
    assert vnpay.verify(SECRET, f"utm=1&{shuffled}&vnp_SecureHashType=SHA512&") == PAID


def test_other_ways_to_encode_are_verified_as_they_were_sent():
    """What one library encodes and another does not: the signature is over what was sent."""
    query = "&".join(f"{name}={quote(PAID[name], safe='*')}" for name in sorted(PAID))
    assert "%20" in query
    assert vnpay.verify(SECRET, f"{query}&vnp_SecureHash={vnpay.sign(SECRET, query)}") == PAID


@pytest.mark.parametrize("name", sorted(PAID))
def test_changed_missing_or_added_parameter_breaks_the_signature(name: str):
    good = signed(PAID)
    encoded = vnpay.encode({name: PAID[name]})
    for changed in (good.replace(encoded, f"{encoded}0"), good.replace(f"{encoded}&", ""), f"{good}&vnp_New=1"):
        with pytest.raises(BadSignature):
            vnpay.verify(SECRET, changed)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "vnp_SecureHash=",
        vnpay.encode(PAID),
        signed(PAID, "another secret"),
        signed(PAID)[:-1],
        f"{vnpay.encode(PAID)}&vnp_SecureHash=đ",
        f"{signed(PAID)}&vnp_Amount=100",  # twice: one could be signed and the other one used
        f"vnp_Amount=100&{signed(PAID)}",
        f"{signed(PAID)}&vnp_SecureHash=0",
    ],
)
def test_what_is_not_signed_is_refused(query: str):
    with pytest.raises(BadSignature):
        vnpay.verify(SECRET, query)


def test_empty_secret_does_not_verify_what_was_signed_with_another():
    with pytest.raises(BadSignature):
        vnpay.verify("", signed(PAID))


def test_notice_says_what_was_paid():
    notice = vnpay.read_notice(vnpay.verify(SECRET, signed(PAID)))
    assert notice == (ORDER.reference, 85_000, "14226112", True, "00", hanoi("2026-11-26T23:35:12"))


@pytest.mark.parametrize(
    ("change", "is_paid", "code"),
    [
        ({}, True, "00"),
        ({"vnp_ResponseCode": "24", "vnp_TransactionStatus": "02"}, False, "24"),
        ({"vnp_TransactionStatus": "01"}, False, "01"),
        ({"vnp_ResponseCode": "07"}, False, "07"),
    ],
)
def test_order_is_paid_only_where_both_codes_say_so(change: dict, is_paid: bool, code: str):
    notice = vnpay.read_notice(PAID | change)
    assert (notice.is_paid, notice.code) == (is_paid, code)


def test_failed_order_has_no_time_of_payment():
    assert vnpay.read_notice(PAID | {"vnp_PayDate": "", "vnp_ResponseCode": "24"}).paid_at is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"vnp_Amount": "8500050"}, "vnp_Amount"),
        ({"vnp_Amount": "85.000"}, "vnp_Amount"),
        ({"vnp_Amount": "-100"}, "vnp_Amount"),
        ({"vnp_Amount": "٨٥٠٠"}, "vnp_Amount"),
        ({"vnp_Amount": ""}, "vnp_Amount"),
        ({"vnp_TxnRef": ""}, "vnp_TxnRef"),
        ({"vnp_TransactionNo": ""}, "vnp_TransactionNo"),
        ({"vnp_ResponseCode": ""}, "vnp_ResponseCode"),
        ({"vnp_PayDate": "26/11/2026"}, "vnp_PayDate"),
    ],
)
def test_notice_that_lacks_something_is_refused_with_its_name(change: dict, named: str):
    with pytest.raises(UnreadableEvent, match=named):
        vnpay.read_notice(PAID | change)


def test_query_and_refund_are_signed_over_their_own_fields():
    asked = vnpay.query_request(MERCHANT, "q1", ORDER, NOW)
    assert asked.pop("vnp_SecureHash") == vnpay.sign(
        SECRET,
        "q1|2.1.0|querydr|IPARK001|PARK7K2M9QXW4HT|20261126233000|20261126233000|203.0.113.7|Thanh toan do xe",
    )
    assert "vnp_Amount" not in asked
    part = vnpay.refund_request(MERCHANT, "r1", ORDER, NOW, transaction="14226112", amount=5_000, by="operator")
    assert part.pop("vnp_SecureHash") == vnpay.sign(
        SECRET,
        "r1|2.1.0|refund|IPARK001|03|PARK7K2M9QXW4HT|500000|14226112|20261126233000|operator|20261126233000"
        "|203.0.113.7|Thanh toan do xe",
    )
    whole = vnpay.refund_request(MERCHANT, "r2", ORDER, NOW, transaction="14226112", amount=85_000, by="operator")
    assert (part["vnp_TransactionType"], whole["vnp_TransactionType"]) == ("03", "02")
    for amount in (0, 85_001):
        with pytest.raises(BadOrder, match="amount"):
            vnpay.refund_request(MERCHANT, "r3", ORDER, NOW, transaction="1", amount=amount, by="operator")


@pytest.mark.parametrize("command", ["querydr", "refund"])
def test_answers_are_verified(command: str):
    names = vnpay.QUERY_ANSWER_SIGNED if command == "querydr" else vnpay.ANSWER_SIGNED
    answer = {name: f"{name} value" for name in names if name != "vnp_PromotionCode"} | {"vnp_Command": command}
    answer["vnp_SecureHash"] = vnpay.sign(SECRET, "|".join(answer.get(name, "") for name in names))
    vnpay.verify_answer(SECRET, answer)
    for changed in (answer | {"vnp_Amount": "1"}, answer | {"vnp_SecureHash": ""}, {}):
        with pytest.raises(BadSignature):
            vnpay.verify_answer(SECRET, changed)


def test_secret_is_never_shown():
    assert SECRET not in repr(MERCHANT)

"""VietQR payloads: the published vector, whatever can be built, and whatever is damaged."""

import importlib.util
import json
import os
import string
import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest
import segno
from hypothesis import given
from hypothesis import strategies as st

from billing.gateways import vietqr
from billing.gateways.vietqr import BadPayload, Transfer

PARKING = Transfer("970436", "0123456789", 15_000, "PARK S42")
digits = st.text(string.digits, min_size=6, max_size=6)
accounts = st.text(string.digits + string.ascii_letters, min_size=1, max_size=19)
purposes = st.text(string.ascii_letters + string.digits + " .,:/-", min_size=1, max_size=25)
amounts = st.none() | st.integers(1, 10**13 - 1)
services = st.sampled_from(["QRIBFTTA", "QRIBFTTC"])
transfers = st.builds(Transfer, digits, accounts, amounts, st.none() | purposes, services)


def checked(body: str) -> str:
    """A payload of the fields, with a CRC that is right."""
    return f"{body}6304{vietqr.crc(f'{body}6304')}"


def test_crc_has_its_published_check_value(shared: Path):
    check = vectors(shared)["crc16_ccitt_false_check"]
    assert vietqr.crc(check["in"]) == check["out"]


def vectors(shared: Path) -> dict:
    return json.loads((shared / "standards" / "vietqr" / "vectors.json").read_text())


def test_payloads_are_those_of_the_vectors(shared: Path):
    for vector in vectors(shared)["vectors"]:
        transfer = Transfer(*(vector[name] for name in ("bin", "account", "amount", "purpose", "service")))
        assert vietqr.build(transfer) == vector["payload"]
        assert vietqr.parse(vector["payload"]) == transfer


@given(transfers)
def test_what_was_built_is_read_back(transfer: Transfer):
    assert vietqr.parse(vietqr.build(transfer)) == transfer


@given(transfers)
def test_amount_makes_a_payload_dynamic(transfer: Transfer):
    payload = vietqr.build(transfer)
    assert payload[6:12] == ("010211" if transfer.amount is None else "010212")
    assert ("5303704" + ("58" if transfer.amount is None else "54")) in payload


@pytest.fixture(scope="module")
def decoder():
    """Somebody else's reader of the same standard, of the test extra; in CI it must be there."""
    if importlib.util.find_spec("vietqr_emvco") is None:
        reason = "vietqr-emvco (of the test extra) is not installed"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    import vietqr_emvco

    return vietqr_emvco


@given(transfers)
def test_independent_decoder_reads_the_same(decoder, transfer: Transfer):
    payload = vietqr.build(transfer)
    read = decoder.VietQRParser.parse(payload)
    assert decoder.VietQRParser.verify_checksum(payload)
    assert (read["bank_bin"], read["account_number"]) == (transfer.bin, transfer.account)
    assert read["amount"] == transfer.amount and read["memo"] == (transfer.purpose or "")
    assert (read["service_code"], read["currency"], read["country_code"]) == (transfer.service, "704", "VN")


@given(digits, accounts.map(str.upper), amounts, st.none() | purposes.map(str.strip).filter(bool))
def test_payload_of_an_independent_encoder_is_read(decoder, bank, account, amount, purpose):
    payload = decoder.VietQRGenerator(bank, account).generate(amount, purpose, "IPARKING HA NOI")
    assert vietqr.parse(payload) == Transfer(bank, account, amount, purpose)


@given(transfers, st.data())
def test_one_changed_character_is_refused(transfer: Transfer, data: st.DataObject):
    payload = vietqr.build(transfer)
    place = data.draw(st.integers(0, len(payload) - 1))
    changed = data.draw(st.sampled_from(string.digits + string.ascii_uppercase).filter(lambda c: c != payload[place]))
    with pytest.raises(BadPayload):
        vietqr.parse(payload[:place] + changed + payload[place + 1 :])


@given(st.text(max_size=120))
def test_any_text_is_read_or_refused(text: str):
    for payload in (text, checked(text), checked(f"000201{text}")):
        with pytest.raises(BadPayload):
            vietqr.parse(payload)


ACCOUNT = "38540010A00000072701240006970436011001234567890208QRIBFTTA"


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        ("", "field 63"),
        ("6304", "field 63"),
        (vietqr.build(PARKING)[:-4] + "0000", "field 63"),
        (vietqr.build(PARKING).lower(), "field 63"),
        (checked(f"000202010212{ACCOUNT}53037045802VN"), "field 00"),
        (checked(f"000201010213{ACCOUNT}53037045802VN"), "field 01: 13"),
        (checked("00020101021153037045802VN"), "field 38/00"),
        (checked("0002010102113810A00000072753037045802VN"), "field 38/A0"),
        (checked(f"000201010211{ACCOUNT}53038405802VN"), "field 53: 840"),
        (checked(f"000201010211{ACCOUNT}53037045802TH"), "field 58: TH"),
        (checked(f"000201010211{ACCOUNT}5303704"), "field 58: nothing"),
        (checked(f"000201010212{ACCOUNT}530370454041.505802VN"), "field 54"),
        (checked(f"000201010212{ACCOUNT}53037045401" + "05802VN"), "field 54"),
        (checked(f"000201010211{ACCOUNT}53037045802VN5802VN"), "field 58: twice"),
        (checked(f"000201010211{ACCOUNT}53037045802VN6299"), "field 62"),
        (checked(f"000201010211{ACCOUNT}53037045802VN62"), "field 62"),
        (checked(f"000201010211{ACCOUNT}53037045802VN6200"), "field 62"),
        (checked(ACCOUNT.replace("970436", "97043X").join(("000201010211", "53037045802VN"))), "field 38/01/00"),
    ],
)
def test_malformed_payload_is_refused_with_the_field_named(payload: str, named: str):
    with pytest.raises(BadPayload, match=named):
        vietqr.parse(payload)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"bin": "97043"}, "BIN"),
        ({"bin": "97043٦"}, "BIN"),
        ({"account": ""}, "account"),
        ({"account": "1" * 20}, "account"),
        ({"amount": 0}, "amount"),
        ({"amount": -1}, "amount"),
        ({"amount": 10**13}, "amount"),
        ({"purpose": ""}, "purpose"),
        ({"purpose": "P" * 26}, "purpose"),
        ({"purpose": "đỗ xe"}, "purpose"),
        ({"service": ""}, "service"),
    ],
)
def test_transfer_that_no_bank_takes_is_not_built(change: dict, named: str):
    with pytest.raises(BadPayload, match=named):
        vietqr.build(PARKING._replace(**change))


def test_images_show_the_payload():
    payload = vietqr.build(PARKING)
    modules = segno.make_qr(payload, error="m", boost_error=False).symbol_size(border=4)[0]
    image = ElementTree.fromstring(vietqr.svg(payload))
    assert image.tag == "{http://www.w3.org/2000/svg}svg" and image.get("viewBox") == f"0 0 {modules} {modules}"
    raster = vietqr.png(payload, scale=3)
    assert raster.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", raster[16:24]) == (modules * 3, modules * 3)
    assert vietqr.png(payload, scale=3) != vietqr.png(vietqr.build(PARKING._replace(amount=15_001)), scale=3)

"""What a receipt says adds up, whatever the stay and the rate."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from billing import rates
from billing.receipts import content
from billing.seller import FAKE
from tests.billing.rate_examples import CORE, MOTORBIKE
from tests.billing.receipts.examples import END, START, charge, refund, stay


def test_a_receipt_says_where_when_and_for_what():
    said = content.of_charge(charge(), stay(), CORE, 800, FAKE)
    assert said["zone"] == {"code": "HK-001", "name": "Trần Hưng Đạo 1", "street": "Phố Trần Hưng Đạo"}
    assert said["district"] == {"code": "002", "name": "Hoàn Kiếm"}
    assert (said["from"], said["to"]) == ("2026-10-14T13:05:00.000+07:00", "2026-10-14T15:25:00.000+07:00")
    assert [(line["units"], line["unit"], line["price"], line["amount"]) for line in said["lines"]] == [
        (2, "hour", 25_000, 50_000),
        (1, "hour", 35_000, 35_000),
    ]
    assert said["total"] == {"amount": 85_000, "currency": "VND"}
    assert said["net"]["amount"] == 78_704
    assert [(tax["rate"], tax["amount"]["amount"]) for tax in said["vat"]] == [("8%", 6_296)]
    assert said["seller"]["tax_code"] == FAKE.tax_code and "register" not in said["seller"]


@given(st.sampled_from([CORE, MOTORBIKE]), st.integers(0, 4 * 24 * 60), st.sampled_from([800, 1000]))
def test_lines_and_taxes_add_up_to_what_was_charged(rate: rates.Rate, minutes: int, basis_points: int):
    end = START + timedelta(minutes=minutes)
    gross = rates.price(rate, START, end).total
    said = content.of_charge(
        charge(gross, basis_points), stay(ended_at=end, charged_until=end), rate, basis_points, FAKE
    )
    assert sum(line["amount"] for line in said["lines"]) == said["total"]["amount"] == gross
    assert all(line["amount"] == line["units"] * line["price"] for line in said["lines"])
    assert said["net"]["amount"] + sum(tax["amount"]["amount"] for tax in said["vat"]) == gross


def test_unused_minutes_that_are_kept_stand_in_the_lines():
    keeps = replace(CORE, version="keeps", refund="none")
    said = content.of_charge(
        charge(50_000), stay(ended_at=START, charged_until=START + timedelta(hours=2)), keeps, 800, None
    )
    assert [line["amount"] for line in said["lines"]] == [50_000]
    assert said["seller"] is None


def test_another_price_than_the_rate_gives_is_said_as_it_was_agreed():
    (line,) = content.lines_of(40_000, stay(), CORE)
    assert (line.start, line.end, line.unit, line.units, line.amount) == (START, END, "stay", 1, 40_000)


def test_a_credit_note_takes_back_what_was_booked_at_the_rate_of_the_receipt():
    said = content.of_charge(charge(basis_points=1000), stay(), CORE, 1000, FAKE)
    note = content.of_refund(refund(), said)
    assert (note["total"]["amount"], note["net"]["amount"], note["lines"]) == (-25_000, -23_148, [])
    assert note["vat"][0]["rate"] == "10%" and note["vat"][0]["amount"]["amount"] == -1_852
    assert {name: note[name] for name in ("zone", "plate", "from")} == {
        name: said[name] for name in ("zone", "plate", "from")
    }

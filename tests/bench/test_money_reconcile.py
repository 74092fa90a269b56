"""The month of payments that a reconciliation is measured on: every payment on exactly one day of its rail."""

from collections import Counter
from datetime import timedelta

import pytest

from bench.money_reconcile import DAYS, FIRST, RAILS, THOUSAND, UNKNOWN, Listed, Month, amount
from billing.reconcile.days import span_of

SPANS = [span_of(FIRST + timedelta(days=n)) for n in range(DAYS)]


@pytest.mark.parametrize("payments", [1_000, 20_001])
def test_every_payment_is_of_one_day_and_one_rail(payments):
    month = Month(payments)
    found = [n for span in SPANS for rail in dict.fromkeys(RAILS) for n in month.between(*span, rail)]
    assert sorted(found) == list(range(payments))


def test_payments_lie_within_the_spans_that_name_them():
    month = Month(5_000)
    for span in SPANS[:2]:
        assert all(span.since <= month.at(n) < span.until for n in month.between(*span, "vietqr"))


def test_one_charge_in_a_thousand_is_not_on_the_list_and_every_other_is_found():
    month = Month(10_000)
    listed = [one for span in SPANS for one in Listed(month).entries(*span)]
    assert len(listed) == 4_000 - 10 and Counter(one.kind for one in listed) == {"charge": len(listed)}
    for one in listed[:50]:
        n = int(one.id.removeprefix("txn-"))
        assert n % THOUSAND != UNKNOWN and Listed(month).find(one.payment or "").paid == amount(n) == one.amount

"""Which rate is in force where and when."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from billing.errors import NoRate
from billing.rates import RateTable, Step, price
from tests.billing.rate_examples import CORE, MONTH, MOTORBIKE, US, hanoi

CHANGE = hanoi("2027-01-01T00:00")
OLD = replace(CORE, valid_to=CHANGE)
NEW = replace(CORE, version="core-car-2027", valid_from=CHANGE, day=(Step(1, 30_000, "assumed"),))
TABLE = RateTable([NEW, OLD, MOTORBIKE, MONTH])


def test_a_rate_is_in_force_from_its_begin_to_just_before_its_end():
    assert TABLE.at("core", "car", CORE.valid_from) is OLD
    assert TABLE.at("core", "car", CHANGE - US) is OLD
    assert TABLE.at("core", "car", CHANGE) is NEW
    assert TABLE.at("core", "car", datetime(2999, 1, 1, tzinfo=UTC)) is NEW


def test_a_session_keeps_the_version_it_started_under():
    start = CHANGE - timedelta(minutes=30)
    rate = TABLE.version(TABLE.at("core", "car", start).version)
    assert price(rate, start, CHANGE + timedelta(minutes=90)).total == 50_000  # two hours of the night, by the old rate


@pytest.mark.parametrize(
    ("area", "vehicle_class", "at"),
    [
        ("core", "car", hanoi("2018-01-01T00:00") - US),
        ("core", "car", datetime(1, 1, 1, tzinfo=UTC)),
        ("core", "car", datetime.max.replace(tzinfo=UTC)),  # no sum of instants may overflow behind it
        ("core", "large", CHANGE),
        ("nowhere", "car", CHANGE),
    ],
)
def test_where_and_when_there_is_no_rate_none_is_made_up(area: str, vehicle_class: str, at: datetime):
    with pytest.raises(NoRate):
        TABLE.at(area, vehicle_class, at)


def test_a_rate_without_a_successor_ends_all_the_same():
    with pytest.raises(NoRate):
        RateTable([OLD]).at("core", "car", CHANGE)


def test_a_rate_withdrawn_before_it_began_is_never_in_force():
    withdrawn = replace(NEW, version="slip", valid_to=CHANGE)
    for rates in ([OLD, withdrawn, NEW], [NEW, withdrawn, OLD]):
        assert RateTable(rates).at("core", "car", CHANGE) is NEW
    assert RateTable([withdrawn]).version("slip") is withdrawn


def test_a_month_is_not_the_price_of_a_stay():
    with pytest.raises(NoRate):
        RateTable([MONTH]).at("core", "car", CHANGE)
    assert RateTable([MONTH]).areas == frozenset()
    assert TABLE.areas == {"core"}


def test_an_unknown_version_is_refused():
    with pytest.raises(NoRate):
        TABLE.version("core-car-1999")


def test_an_instant_without_a_time_zone_is_refused():
    with pytest.raises(ValueError, match="time zone"):
        TABLE.at("core", "car", datetime(2026, 11, 23))  # noqa: DTZ001

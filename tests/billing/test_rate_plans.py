"""What the database itself refuses, whoever writes to it."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import Connection, Engine, create_engine, insert, inspect, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from billing import plans
from billing.imports import Record, apply
from billing.models import Base, RateLine, RatePlan
from tests.billing.rate_examples import CORE, MOTORBIKE, hanoi, rates

NOW = hanoi("2026-11-23T12:00")


@pytest.fixture
def core(engine: Engine) -> Engine:
    """A database with the price of cars in the core."""
    with engine.begin() as connection:
        apply(connection, [Record("line 2", CORE)], NOW)
    return engine


def plan(**changes: Any) -> dict[str, Any]:
    names = [column.name for column in RatePlan.__table__.columns]
    return {name: getattr(CORE, name) for name in names} | {"version": "other", "rate_area": "elsewhere"} | changes


def add(connection: Connection, price_of: str = "day", **changes: Any) -> None:
    connection.execute(insert(RatePlan), [plan(**changes)])
    line = {"version": "other", "part": price_of, "from_unit": 1, "price": 1, "source": "assumed"}
    connection.execute(insert(RateLine), [line])
    connection.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        ({"rate_area": "core"}, "rate_plan_one_at_a_time"),
        ({"rate_area": "core", "unit": "turn", "night_cap": None}, "rate_plan_one_at_a_time"),
        ({"valid_to": hanoi("2017-01-01")}, "rate_plan_check"),
        ({"vehicle_class": "bicycle"}, "rate_plan_vehicle_class_check"),
        ({"unit": "minute", "night_cap": None}, "rate_plan_unit_check"),
        ({"night_start": None, "night_cap": None}, "rate_plan_windows"),
        ({"night_start": CORE.day_start}, "rate_plan_check"),
        ({"night_cap": -1}, "rate_plan_night_cap_check"),
        ({"unit": "month"}, "rate_plan_night_cap_use"),
        ({"unit": "turn", "night_cap": None, "daily_cap": 1}, "rate_plan_daily_cap_use"),
        ({"free_minutes": -1}, "rate_plan_free_minutes_check"),
        ({"max_stay_minutes": 0}, "rate_plan_max_stay_minutes_check"),
        ({"refund": "all"}, "rate_plan_refund_check"),
        ({"unit": "turn", "night_cap": None}, "rate_plan_has_prices"),  # no price of a night
        ({"price_of": "night"}, "rate_plan_has_prices"),
    ],
)
def test_a_plan_that_breaks_a_rule_is_refused(core: Engine, changes: dict[str, Any], constraint: str):
    with pytest.raises(IntegrityError) as refused, core.begin() as connection:
        add(connection, **changes)
    assert refused.value.orig.diag.constraint_name.startswith(constraint)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "line",
    [
        {"part": "dusk"},
        {"from_unit": 0},
        {"part": "night", "from_unit": 2},
        {"price": -1},
        {"source": "rumour"},
        {"version": "nobody's"},
    ],
)
def test_a_line_that_breaks_a_rule_is_refused(core: Engine, line: dict[str, Any]):
    good = {"version": CORE.version, "part": "day", "from_unit": 7, "price": 1, "source": "assumed"}
    with pytest.raises(IntegrityError), core.begin() as connection:
        connection.execute(insert(RateLine), [good | line])


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rate_plan SET night_cap = 1",
        "UPDATE rate_plan SET version = 'x'",
        "DELETE FROM rate_plan",
        "UPDATE rate_line SET price = 1",
        "DELETE FROM rate_line",
    ],
)
def test_a_published_price_cannot_be_changed(core: Engine, statement: str):
    with pytest.raises(DBAPIError, match="append-only"), core.begin() as connection:
        connection.execute(text(statement))


def test_a_price_may_end_and_another_begin_at_one_instant(core: Engine):
    change = hanoi("2027-01-01")
    with core.begin() as connection:
        connection.execute(text("UPDATE rate_plan SET valid_to = :change"), {"change": change})
        add(connection, rate_area="core", valid_from=change)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rates)
def test_any_rate_comes_back_as_it_was_written(engine: Engine, rate):
    with engine.connect() as connection:  # rolled back at the end
        apply(connection, [Record("line 2", rate)], NOW)
        assert plans.stored(connection) == [rate]


def test_models_are_the_tables_that_the_migration_makes(engine: Engine):
    found = inspect(engine)
    for name, table in Base.metadata.tables.items():
        columns = {column["name"]: column for column in found.get_columns(name)}
        assert set(columns) == {column.name for column in table.columns}
        for column in table.columns:
            real = columns[column.name]
            made = real["type"].compile(engine.dialect), real["nullable"]
            assert made == (column.type.compile(engine.dialect), column.nullable), column


def test_two_imports_at_once_run_one_after_the_other(core: Engine):
    other = create_engine(core.url)
    with core.begin() as first:
        apply(first, [Record("line 2", MOTORBIKE)], NOW)
        with other.begin() as second:
            second.execute(text("SET lock_timeout = '50ms'"))
            with pytest.raises(DBAPIError, match="lock timeout"):
                apply(second, [Record("line 2", replace(MOTORBIKE, version="twin"))], NOW)
        with other.connect() as reader:  # who reads rates is not held up
            assert plans.load(reader).version(CORE.version) == CORE
    other.dispose()

"""Rates from files: all or nothing, every fault named, nothing that was priced ever changed."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, func, select, text

from billing import imports, plans
from billing.imports import ImportRefused, Record, Report
from billing.models import RateLine, RatePlan
from billing.rates import Rate, Step, price
from tests.billing.rate_examples import CORE, MONTH, hanoi

SHIPPED = Path(imports.__file__).parent.parent / "data" / "rates.csv"
NOW = hanoi("2026-11-23T12:00")
NEXT_YEAR = hanoi("2027-01-01T00:00")
HEADER = (
    "version,rate_area,vehicle_class,unit,valid_from,timezone,day_start,night_start,night_cap,daily_cap,free_minutes,"
    "max_stay_minutes,refund,part,from_unit,price,source"
)
ROW = {
    "version": "v1", "rate_area": "core", "vehicle_class": "car", "unit": "hour",
    "valid_from": "2018-01-01T00:00+07:00", "timezone": "Asia/Ho_Chi_Minh", "day_start": "06:00",
    "night_start": "18:00", "night_cap": "", "daily_cap": "", "free_minutes": "", "max_stay_minutes": "", "refund": "",
    "part": "day", "from_unit": "", "price": "25000", "source": "decree",
}  # fmt: skip


def write(tmp_path: Path, *changes: dict[str, str]) -> Path:
    """A file with one row for each change of ROW."""
    rows = [",".join((ROW | change)[name] for name in HEADER.split(",")) for change in changes]
    path = tmp_path / "rates.csv"
    path.write_text("\n".join([HEADER, *rows]), encoding="utf-8")
    return path


def faults(path: Path) -> set[tuple[str, str | None, str | None, str]]:
    with pytest.raises(ImportRefused) as refused:
        imports.read(path)
    return {(record.where, record.id, record.field, record.rule) for record in refused.value.records}


def do(engine: Engine, *rates: Rate, now: datetime = NOW) -> Report:
    with engine.begin() as connection:
        return imports.apply(connection, [Record("line 2", rate) for rate in rates], now)


def table(engine: Engine) -> dict[str, Rate]:
    with engine.connect() as connection:
        return {rate.version: rate for rate in plans.stored(connection)}


def refusal(engine: Engine, *rates: Rate, now: datetime = NOW) -> list[tuple[str | None, str | None, str]]:
    with pytest.raises(ImportRefused) as refused:
        do(engine, *rates, now=now)
    return [(record.id, record.field, record.rule) for record in refused.value.records]


@pytest.mark.parametrize(
    ("area", "steps", "night_cap"),
    [
        ("restricted", (30_000, 42_000, 54_000), 180_000),
        ("core", (25_000, 35_000, 45_000), 150_000),
        ("inside_ring_3", (20_000, 28_000, 36_000), 120_000),
        ("beyond_ring_3", (15_000, 21_000, 27_000), 90_000),
    ],
)
def test_the_shipped_rates_cost_what_the_table_says(area: str, steps: tuple[int, ...], night_cap: int):
    shipped = {(r.rate.rate_area, r.rate.vehicle_class, r.rate.unit): r.rate for r in imports.read(SHIPPED)}
    car = shipped[area, "car", "hour"]
    assert [(step.from_unit, step.price) for step in car.day] == list(zip((1, 3, 5), steps, strict=True))
    assert price(car, hanoi("2026-11-23T18:00"), hanoi("2026-11-24T06:00")).total == night_cap
    motorbike = shipped[area, "motorbike", "turn"]
    assert price(motorbike, hanoi("2026-11-23T08:00"), hanoi("2026-11-23T09:00")).total == 5_000
    assert price(motorbike, hanoi("2026-11-23T20:00"), hanoi("2026-11-23T21:00")).total == 8_000
    assert price(motorbike, hanoi("2026-11-23T08:00"), hanoi("2026-11-24T08:00")).total == 12_000
    for rate in (car, motorbike):
        assert rate.valid_from == hanoi("2018-01-01T00:00")
        assert (rate.free_minutes, rate.daily_cap, rate.refund) == (0, None, "unused")


def test_each_shipped_price_says_who_set_it():
    shipped = {record.rate.version: record.rate for record in imports.read(SHIPPED)}
    assert [step.source for step in shipped["restricted-car-2018-01-01"].day] == ["decree", "assumed", "assumed"]
    assert {step.source for step in shipped["core-car-2018-01-01"].day} == {"decree"}
    assert {step.source for step in shipped["beyond_ring_3-car-2018-01-01"].day} == {"assumed"}


def test_importing_the_shipped_rates_again_changes_nothing(engine: Engine):
    records = imports.read(SHIPPED)
    with engine.begin() as connection:
        first = imports.apply(connection, records, NOW)
    with engine.begin() as connection:
        again = imports.apply(connection, records, NOW)
        assert imports.known_areas(connection) == {"restricted", "core", "inside_ring_3", "beyond_ring_3"}
    assert (first.created, first.closed, first.unchanged) == (len(records), 0, 0)
    assert (again.created, again.closed, again.unchanged, again.written) == (0, 0, len(records), ())
    assert table(engine) == {record.rate.version: record.rate for record in records}


def test_a_dry_run_reports_the_same_and_writes_nothing(engine: Engine):
    with engine.begin() as connection:
        dry = imports.apply(connection, imports.read(SHIPPED), NOW, dry_run=True)
    assert table(engine) == {}
    assert dry.dry_run and dry.created == len(dry.written) > 0
    with engine.begin() as connection:
        assert replace(dry, dry_run=False) == imports.apply(connection, imports.read(SHIPPED), NOW)


def test_a_new_price_ends_the_old_one_when_it_begins(engine: Engine):
    new = replace(CORE, version="core-2027", valid_from=NEXT_YEAR, day=(Step(1, 30_000, "assumed"),))
    do(engine, CORE)
    report = do(engine, new)
    assert (report.created, report.closed, report.written) == (1, 1, ("core-2027",))
    assert table(engine) == {CORE.version: replace(CORE, valid_to=NEXT_YEAR), new.version: new}
    assert do(engine, CORE, new).unchanged == 2


def test_a_price_of_the_past_cannot_be_changed(engine: Engine):
    do(engine, CORE)
    late = replace(CORE, version="late", valid_from=hanoi("2026-11-23T11:59"))
    assert refusal(engine, late) == [("late", "valid_from", "changes_the_past")]
    assert refusal(engine, replace(CORE, night_cap=1)) == [(CORE.version, "version", "version_in_use")]
    assert table(engine) == {CORE.version: CORE}
    assert do(engine, replace(late, valid_from=NOW)).closed == 1


def test_a_price_that_has_not_begun_can_be_replaced(engine: Engine):
    slip = replace(CORE, version="slip", valid_from=NEXT_YEAR)
    right = replace(slip, version="right", night_cap=200_000)
    do(engine, CORE, slip)
    assert do(engine, right).closed == 1
    found = table(engine)
    assert found["slip"].withdrawn and found["right"].valid_to is None
    with engine.connect() as connection:
        assert plans.load(connection).at("core", "car", NEXT_YEAR).version == "right"
    assert do(engine, CORE, slip, right).unchanged == 3


def test_a_price_between_two_others_ends_when_the_later_begins(engine: Engine):
    later = replace(CORE, version="later", valid_from=hanoi("2028-01-01T00:00"))
    between = replace(CORE, version="between", valid_from=NEXT_YEAR)
    do(engine, CORE, later)
    do(engine, between)
    found = table(engine)
    assert [found[version].valid_to for version in (CORE.version, "between", "later")] == [
        NEXT_YEAR,
        later.valid_from,
        None,
    ]


def test_history_can_be_put_in_front_where_nothing_could_be_priced(engine: Engine):
    do(engine, CORE)
    pilot = replace(CORE, version="pilot", valid_from=hanoi("2017-05-01T00:00"))
    assert do(engine, pilot).closed == 0
    assert table(engine)["pilot"].valid_to == CORE.valid_from


def test_a_file_may_hold_a_whole_history(engine: Engine):
    old = replace(CORE, version="old", valid_from=hanoi("2017-05-01T00:00"))
    assert do(engine, CORE, old).created == 2
    assert table(engine)["old"].valid_to == CORE.valid_from


def test_months_and_stays_have_prices_side_by_side(engine: Engine):
    assert do(engine, CORE, MONTH).created == 2
    turn = replace(CORE, version="turn", unit="turn", valid_from=NEXT_YEAR, day=CORE.day[:1], night_cap=None)
    assert do(engine, turn).closed == 1
    found = table(engine)
    assert (found[CORE.version].valid_to, found[MONTH.version].valid_to) == (NEXT_YEAR, None)


def test_nothing_is_written_where_one_record_is_refused(engine: Engine):
    do(engine, CORE)
    fine = replace(CORE, version="fine", rate_area="elsewhere")
    late = replace(CORE, version="late", valid_from=hanoi("2020-01-01T00:00"))
    assert refusal(engine, fine, late) == [("late", "valid_from", "changes_the_past")]
    assert set(table(engine)) == {CORE.version}


def test_an_import_raises_the_revision_that_processes_watch(engine: Engine):
    def revision(connection: Connection) -> int:
        return connection.execute(text("SELECT value FROM revision WHERE name = 'rates'")).scalar_one()

    with engine.begin() as connection:
        before = revision(connection)
    do(engine, CORE)
    with engine.begin() as connection:
        created = revision(connection)
    do(engine, CORE)
    with engine.begin() as connection:
        assert before < created == revision(connection)


def test_every_bad_cell_is_named_at_once(tmp_path: Path):
    path = write(
        tmp_path,
        {"version": "a", "price": "-1", "source": "guess"},
        {"version": "b", "vehicle_class": "tank", "unit": "day", "valid_from": "2018-01-01"},
        {"version": "c", "timezone": "Hanoi", "day_start": "6:00", "night_cap": "1.5"},
        {"version": "d", "rate_area": "", "free_minutes": "-5", "max_stay_minutes": "0", "refund": "half"},
        {"version": "e", "part": "dusk", "from_unit": "0", "price": "１２"},
        {"version": "f/g", "valid_from": "0001-01-01T00:00+00:00"},
        {"version": "h", "valid_from": "yesterday", "price": "1000000001"},
    )
    assert faults(path) == {
        ("line 2", "a", "price", "negative"),
        ("line 2", "a", "source", "unknown_source"),
        ("line 3", "b", "vehicle_class", "unknown_class"),
        ("line 3", "b", "unit", "unknown_unit"),
        ("line 3", "b", "valid_from", "missing_offset"),
        ("line 4", "c", "timezone", "unknown_timezone"),
        ("line 4", "c", "day_start", "not_a_time"),
        ("line 4", "c", "night_cap", "not_a_price"),
        ("line 5", "d", "rate_area", "missing_field"),
        ("line 5", "d", "free_minutes", "negative"),
        ("line 5", "d", "max_stay_minutes", "out_of_range"),
        ("line 5", "d", "refund", "unknown_refund"),
        ("line 6", "e", "part", "unknown_part"),
        ("line 6", "e", "from_unit", "out_of_range"),
        ("line 6", "e", "price", "not_a_price"),
        ("line 7", "f/g", "version", "invalid_code"),
        ("line 7", "f/g", "valid_from", "out_of_range"),
        ("line 8", "h", "valid_from", "not_an_instant"),
        ("line 8", "h", "price", "not_a_price"),
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([{"from_unit": "2"}], ("part", "missing_price")),
        ([{"unit": "turn"}], ("part", "missing_price")),
        ([{"unit": "month"}], ("part", "missing_price")),
        ([{}, {"part": "full_day"}], ("part", "price_without_use")),
        ([{"day_start": "", "night_start": ""}, {"day_start": "", "night_start": "", "part": "night"}],
         ("part", "price_without_use")),
        ([{}, {"part": "night", "from_unit": "3"}], ("from_unit", "steps_without_use")),
        ([{"day_start": ""}], ("night_start", "bad_windows")),
        ([{"day_start": "18:00"}], ("night_start", "bad_windows")),
        ([{"day_start": "", "night_start": "", "night_cap": "1"}], ("night_cap", "cap_without_use")),
        ([{"unit": "turn", "daily_cap": "1"}, {"unit": "turn", "daily_cap": "1", "part": "night"}],
         ("daily_cap", "cap_without_use")),
    ],
)  # fmt: skip
def test_a_rate_that_could_not_price_a_stay_is_refused(tmp_path: Path, changes: list, expected: tuple[str, str]):
    assert ("line 2", "v1", *expected) in faults(write(tmp_path, *changes))


def test_rows_of_a_version_must_agree(tmp_path: Path):
    path = write(tmp_path, {}, {"from_unit": "3", "night_cap": "5"}, {"price": "7"})
    assert faults(path) == {
        ("line 3", "v1", "night_cap", "settings_differ"),
        ("line 4", "v1", "from_unit", "duplicate_price"),
    }


def test_two_versions_of_one_price_cannot_begin_together(tmp_path: Path):
    path = write(tmp_path, {}, {"version": "v2", "valid_from": "2017-12-31T17:00Z"})
    assert faults(path) == {("line 3", "v2", "valid_from", "duplicate_beginning")}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"", ("file", "empty_file")),
        ("a.csv", HEADER.encode(), ("file", "empty_file")),
        ("a.csv", HEADER.encode() + b"\n\xff,core\n", ("line 2", "bad_utf8")),
        ("a.csv", HEADER.encode() + b"\nv1,core\n", ("line 2", "wrong_number_of_columns")),
        ("a.csv", HEADER.encode() + b',prise\n"x"y', ("line 2", "malformed_csv")),
        ("a.csv", (HEADER + ",dayly_cap\n").encode() + b",".join([b"x"] * 18), ("line 1", "unknown_column")),
        ("a.csv", (HEADER + ",price\n").encode() + b",".join([b"x"] * 18), ("line 1", "duplicate_column")),
        ("a.csv", b"version,price\nv1,5\n", ("line 1", "missing_column")),
        ("a.geojson", b'{"type": "FeatureCollection", "features": []}', ("file", "not_csv")),
        ("a.txt", b'[{"version": "v1"}]', ("file", "not_csv")),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, content: bytes, expected: tuple[str, str]):
    (tmp_path / name).write_bytes(content)
    assert expected in {(where, rule) for where, _, _, rule in faults(tmp_path / name)}


def test_a_missing_file_says_so(tmp_path: Path):
    assert faults(tmp_path / "nothing.csv") == {("file", None, None, "unreadable_file")}


def test_other_delimiters_a_byte_order_mark_and_blank_lines_are_read(tmp_path: Path):
    path = write(tmp_path, {})
    path.write_text("\ufeff" + path.read_text().replace(",", ";").replace("\n", "\r\n\r\n") + "\r\n")
    (record,) = imports.read(path)
    assert (record.where, record.rate.version, record.rate.valid_from.tzinfo) == ("line 3", "v1", UTC)


def test_a_report_can_be_printed_as_json():
    bad = imports.BadRecord("line 2", "v1", "price", "negative", "-1 is not a price")
    refused = ImportRefused([bad])
    assert refused.as_dict() == {
        "records": [
            {"where": "line 2", "id": "v1", "field": "price", "rule": "negative", "detail": "-1 is not a price"}
        ]
    }
    assert str(refused) == "line 2 v1 price: negative: -1 is not a price"


def test_plans_and_lines_lie_in_their_tables(engine: Engine):
    do(engine, CORE)
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(RatePlan)).scalar_one() == 1
        lines = connection.execute(select(RateLine.part, RateLine.from_unit, RateLine.price).order_by(RateLine.part))
        assert sorted(map(tuple, lines)) == [
            ("day", 1, 25_000),
            ("day", 3, 35_000),
            ("day", 5, 45_000),
            ("night", 1, 25_000),
        ]

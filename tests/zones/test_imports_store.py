"""Applying imported records: what differs is written, once, and history is kept."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import shapely
from sqlalchemy import Connection, Engine, event, select, text, update

from zones import imports
from zones.data import make
from zones.imports import ImportRefused
from zones.imports.reader import DistrictRecord, WardRecord, ZoneRecord
from zones.imports.shapes import canonical
from zones.models import District, Ward, Zone, ZoneOccupancy

NOW = datetime(2026, 11, 23, 0, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
HERE = shapely.box(105.85, 21.02, 105.851, 21.021)
THERE = shapely.box(105.86, 21.02, 105.861, 21.021)


def zone(code: str = "HK-001", **changes: Any) -> ZoneRecord:
    record = ZoneRecord(
        code=code,
        name="Trần Hưng Đạo 1",
        street="Phố Trần Hưng Đạo",
        district_code="002",
        rate_area="restricted",
        kind="kerb",
        admission="advisory",
        max_stay_minutes=720,
        capacity={"car": 16, "motorbike": 40},
        capacity_source="illustrative",
        geometry=canonical(HERE),
    )
    return replace(record, **changes)


def outline(box: Any) -> shapely.MultiPolygon:
    return canonical(shapely.MultiPolygon([box]))


def moved(**changes: Any) -> ZoneRecord:
    return zone(geometry=canonical(THERE), **changes)


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.begin() as connection:
        yield connection


@contextmanager
def writes(connection: Connection) -> Iterator[list[str]]:
    """The writing statements that are executed meanwhile."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.lstrip().upper().startswith("SELECT"):
            seen.append(statement)

    event.listen(connection, "before_cursor_execute", note)
    yield seen
    event.remove(connection, "before_cursor_execute", note)


def rows(connection: Connection, table: Any) -> list[Any]:
    """All versions, oldest first."""
    return list(connection.execute(select(table.__table__).order_by(table.code, table.valid_from, table.valid_to)))


def counts(connection: Connection) -> dict[str, tuple[Any, ...]]:
    found = connection.execute(select(ZoneOccupancy.__table__).order_by(ZoneOccupancy.vehicle_class))
    return {row.vehicle_class: (row.admission, row.capacity, row.occupied, row.version) for row in found}


def summary(report: imports.Report) -> tuple[int, int, int, int]:
    return report.created, report.changed, report.reversioned, report.unchanged


# Zones


def test_a_new_zone_is_stored_with_a_count_for_each_class(connection):
    report = imports.apply("zones", connection, [zone()], NOW)
    (row,) = rows(connection, Zone)
    assert (row.code, row.name, row.street, row.district_code) == (
        "HK-001",
        "Trần Hưng Đạo 1",
        "Phố Trần Hưng Đạo",
        "002",
    )
    assert (row.published_at, row.updated_at, row.valid_from, row.valid_to) == (NOW, NOW, NOW, None)
    assert counts(connection) == {"car": ("advisory", 16, 0, 1), "motorbike": ("advisory", 40, 0, 1)}
    assert summary(report) == (1, 0, 0, 0)
    assert report.written == ("HK-001",)


def test_the_same_zones_again_write_nothing(connection):
    imports.apply("zones", connection, [zone()], NOW)
    before = rows(connection, Zone), counts(connection)
    with writes(connection) as seen:
        report = imports.apply("zones", connection, [zone()], LATER)
    assert seen == []
    assert (rows(connection, Zone), counts(connection)) == before
    assert summary(report) == (0, 0, 0, 1)
    assert report.written == ()


def test_a_changed_outline_makes_a_new_version_and_history_keeps_the_old(connection):
    imports.apply("zones", connection, [zone()], NOW)
    report = imports.apply("zones", connection, [moved(name="Trần Hưng Đạo 2")], LATER)
    old, new = rows(connection, Zone)
    assert (old.valid_from, old.valid_to, old.name) == (NOW, LATER, "Trần Hưng Đạo 1")
    assert (new.valid_from, new.valid_to, new.name) == (LATER, None, "Trần Hưng Đạo 2")
    assert (new.published_at, new.updated_at) == (LATER, LATER)
    assert old.id != new.id
    assert counts(connection)["car"] == ("advisory", 16, 0, 1)
    assert summary(report) == (0, 0, 1, 0)


def test_a_changed_fact_keeps_the_version(connection):
    imports.apply("zones", connection, [zone()], NOW)
    (before,) = rows(connection, Zone)
    report = imports.apply("zones", connection, [zone(name="Phố mới", max_stay_minutes=60)], LATER)
    (after,) = rows(connection, Zone)
    assert (after.id, after.valid_from, after.published_at) == (before.id, NOW, NOW)
    assert (after.name, after.max_stay_minutes, after.updated_at) == ("Phố mới", 60, LATER)
    assert counts(connection)["car"] == ("advisory", 16, 0, 1)
    assert summary(report) == (0, 1, 0, 0)


def test_capacity_may_be_lowered_under_parked_vehicles(connection):
    imports.apply("zones", connection, [zone(admission="strict")], NOW)
    connection.execute(update(ZoneOccupancy).where(ZoneOccupancy.vehicle_class == "car").values(occupied=15, version=9))
    report = imports.apply("zones", connection, [zone(admission="strict", capacity={"car": 4, "motorbike": 40})], LATER)
    assert counts(connection) == {"car": ("strict", 4, 15, 10), "motorbike": ("strict", 40, 0, 1)}
    assert rows(connection, Zone)[0].updated_at == LATER
    assert summary(report) == (0, 1, 0, 0)


def test_admission_changes_with_its_counts(connection):
    imports.apply("zones", connection, [zone()], NOW)
    imports.apply("zones", connection, [zone(admission="strict")], LATER)
    assert counts(connection) == {"car": ("strict", 16, 0, 2), "motorbike": ("strict", 40, 0, 2)}


def test_a_class_that_is_left_out_has_no_places_any_more(connection):
    imports.apply("zones", connection, [zone()], NOW)
    for _ in range(2):
        report = imports.apply("zones", connection, [zone(capacity={"car": 16})], LATER)
    assert counts(connection) == {"car": ("advisory", 16, 0, 1), "motorbike": ("advisory", 0, 0, 2)}
    assert summary(report) == (0, 0, 0, 1)
    imports.apply("zones", connection, [zone()], LATER)
    assert counts(connection)["motorbike"] == ("advisory", 40, 0, 3)


def test_a_zone_that_the_file_does_not_name_stays(connection):
    imports.apply("zones", connection, [zone(), zone("HK-002")], NOW)
    before = rows(connection, Zone)[0]
    imports.apply("zones", connection, [moved(code="HK-002")], LATER)
    assert rows(connection, Zone)[0] == before


def test_a_zone_that_was_closed_opens_again_and_keeps_its_counts(connection):
    imports.apply("zones", connection, [zone()], NOW)
    connection.execute(update(Zone).values(valid_to=LATER))
    report = imports.apply("zones", connection, [zone()], LATER)
    assert [row.valid_to for row in rows(connection, Zone)] == [LATER, None]
    assert summary(report) == (1, 0, 0, 0)
    assert counts(connection)["car"] == ("advisory", 16, 0, 1)


def test_a_dry_run_reports_and_writes_nothing(connection):
    imports.apply("zones", connection, [zone(), zone("HK-002"), zone("HK-003")], NOW)
    before = rows(connection, Zone), counts(connection)
    records = [zone(), zone("HK-002", name="neu"), moved(code="HK-003"), zone("HK-004")]
    with writes(connection) as seen:
        report = imports.apply("zones", connection, records, LATER, dry_run=True)
    assert seen == []
    assert (rows(connection, Zone), counts(connection)) == before
    assert report.as_dict() == {
        "kind": "zones",
        "created": 1,
        "changed": 1,
        "reversioned": 1,
        "unchanged": 1,
        "written": ["HK-002", "HK-003", "HK-004"],
        "dry_run": True,
    }
    assert summary(imports.apply("zones", connection, records, LATER)) == summary(report)


def test_a_version_cannot_end_before_it_began(connection):
    imports.apply("zones", connection, [zone()], NOW)
    with pytest.raises(ImportRefused) as refused:
        imports.apply("zones", connection, [moved(), zone("HK-002")], NOW - timedelta(seconds=1))
    assert [(each.id, each.rule) for each in refused.value.records] == [("HK-001", "older_than_stored")]
    assert len(rows(connection, Zone)) == 1


def test_versions_of_a_zone_never_overlap(connection):
    for minute in range(4):
        record = moved() if minute % 2 else zone()
        imports.apply("zones", connection, [record], NOW + timedelta(minutes=minute))
    spans = [(row.valid_from, row.valid_to) for row in rows(connection, Zone)]
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
    assert spans[-1][1] is None


def test_a_large_file_takes_few_statements(connection):
    records = [zone(f"HK-{number:04}") for number in range(3_000)]
    renamed = [replace(record, name="neu", capacity={"car": 1}) for record in records]
    for now, step in ((NOW, records), (LATER, renamed)):
        with writes(connection) as seen:
            imports.apply("zones", connection, step, now)
        assert len(seen) < 30
    assert {row.name for row in rows(connection, Zone)} == {"neu"}
    assert counts(connection) == {"car": ("advisory", 1, 0, 2), "motorbike": ("advisory", 0, 0, 2)}


def test_two_imports_at_once_store_each_zone_once(engine):
    records = [zone(f"HK-{number:03}") for number in range(1, 60)]

    def run(_: int) -> tuple[int, int, int, int]:
        with engine.begin() as connection:
            return summary(imports.apply("zones", connection, records, NOW))

    with ThreadPoolExecutor(4) as pool:
        reports = sorted(pool.map(run, range(4)))
    assert reports == [(0, 0, 0, 59)] * 3 + [(59, 0, 0, 0)]
    with engine.connect() as connection:
        assert len(rows(connection, Zone)) == 59


def test_processes_see_that_zones_changed_only_when_they_did(connection):
    def revision() -> int:
        return connection.execute(text("SELECT value FROM revision WHERE name = 'zones'")).scalar_one()

    start = revision()
    imports.apply("zones", connection, [zone()], NOW)
    created = revision()
    imports.apply("zones", connection, [zone()], LATER)
    again = revision()
    imports.apply("zones", connection, [zone(capacity={"car": 1, "motorbike": 40})], LATER)
    assert start < created == again < revision()


# Districts and wards

EVENING = datetime(2026, 11, 23, 17, 30, tzinfo=UTC)  # half past midnight of the 24th in Hanoi


def district(box: Any = HERE, **changes: Any) -> DistrictRecord:
    return replace(DistrictRecord("002", "Hoàn Kiếm", date(2018, 1, 1), outline(box)), **changes)


def test_a_district_is_in_force_since_it_joined(connection):
    imports.apply("districts", connection, [district(), district(code="003", joined=None)], EVENING)
    assert [row.valid_from for row in rows(connection, District)] == [date(2018, 1, 1), date(2026, 11, 24)]


def test_a_district_that_is_yet_to_join_is_known_since_today(connection):
    imports.apply("districts", connection, [district(joined=date(2027, 1, 1))], EVENING)
    (row,) = rows(connection, District)
    assert (row.joined, row.valid_from) == (date(2027, 1, 1), date(2026, 11, 24))


def test_a_changed_outline_of_a_district_is_dated(connection):
    imports.apply("districts", connection, [district()], NOW)
    report = imports.apply("districts", connection, [district(THERE)], EVENING)
    old, new = rows(connection, District)
    assert (old.valid_from, old.valid_to) == (date(2018, 1, 1), date(2026, 11, 24))
    assert (new.valid_from, new.valid_to) == (date(2026, 11, 24), None)
    assert summary(report) == (0, 0, 1, 0)
    assert imports.current_districts(connection)["002"].equals(THERE)


def test_a_district_may_be_renamed_and_the_same_again_writes_nothing(connection):
    imports.apply("districts", connection, [district()], NOW)
    report = imports.apply("districts", connection, [district(name="Quận Hoàn Kiếm")], LATER)
    assert summary(report) == (0, 1, 0, 0)
    assert [(row.name, row.valid_to) for row in rows(connection, District)] == [("Quận Hoàn Kiếm", None)]
    with writes(connection) as seen:
        imports.apply("districts", connection, [district(name="Quận Hoàn Kiếm")], EVENING)
    assert seen == []


def test_wards_are_a_layer_of_their_own(connection):
    ward = WardRecord("00070", "Phường Hoàn Kiếm", "002", outline(HERE))
    imports.apply("wards", connection, [ward, replace(ward, code="00082", district_code=None)], NOW)
    found = rows(connection, Ward)
    assert [(row.code, row.district_code, row.valid_from) for row in found] == [
        ("00070", "002", date(2026, 11, 23)),
        ("00082", None, date(2026, 11, 23)),
    ]
    assert summary(imports.apply("wards", connection, [ward], LATER)) == (0, 0, 0, 1)
    assert rows(connection, District) == []


# The shipped city


def test_the_shipped_city_can_be_imported_and_imported_again(connection):
    areas = ("restricted", "core", "inside_ring_3", "beyond_ring_3")
    files = {kind: make.HERE / f"{kind}.geojson" for kind in ("districts", "zones")}
    for report_index, now in enumerate((NOW, LATER)):
        districts = imports.read("districts", files["districts"])
        first = imports.apply("districts", connection, districts, now)
        current = imports.current_districts(connection)
        zones = imports.read("zones", files["zones"], rate_areas=areas, districts=current)
        second = imports.apply("zones", connection, zones, now)
        wanted = [(9, 0, 0, 0), (199, 0, 0, 0)] if report_index == 0 else [(0, 0, 0, 9), (0, 0, 0, 199)]
        assert [summary(first), summary(second)] == wanted

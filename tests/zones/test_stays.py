"""Finished sessions as receipts tell them: by the names of their time."""

from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Engine

from tests.zones import parked
from tests.zones.parked import at
from zones import sessions, stays

REDRAWN, STARTED, ENDED = at("2026-10-01"), at("2026-10-14T08:00"), at("2026-10-14T10:20")


@pytest.fixture
def database(engine: Engine) -> Iterator[psycopg.Connection]:
    """Empty but for two versions of a zone and of its district."""
    with engine.connect() as pooled:
        connection = pooled.connection.driver_connection
        parked.zone(connection, "HK-001", valid_to=REDRAWN, car=5)
        parked.zone(connection, "HK-001", valid_from=REDRAWN)
        connection.execute("UPDATE zone SET name = 'Old name' WHERE valid_to IS NOT NULL")
        for name, begins, ends in (("Old district", "2018-01-01", "2026-10-01"), ("Hoàn Kiếm", "2026-10-01", None)):
            connection.execute(
                "INSERT INTO district (code, name, geometry, valid_from, valid_to) "
                "VALUES ('002', %s, ST_Multi(ST_GeomFromText(%s, 4326)), %s, %s)", (name, parked.SQUARE, begins, ends)
            )  # fmt: skip
        yield connection
        pooled.rollback()


def test_a_stay_has_the_names_of_its_start(database: psycopg.Connection):
    before = parked.past(database, at("2026-09-30T23:00"), ENDED)
    after = parked.past(database, STARTED, ENDED, ends_at=at("2026-10-14T11:00"), plate="29-MĐ1 123.45")
    found = stays.finished(database, {before: "002", after: "002"})
    assert [(found[one].zone_name, found[one].district_name) for one in (before, after)] == [
        ("Old name", "Old district"),
        ("HK-001", "Hoàn Kiếm"),
    ]
    stay = found[after]
    assert (stay.plate, stay.street, stay.payment_method) == ("29-MĐ1 123.45", "Phố Huế", "wallet")
    assert (stay.started_at, stay.ended_at, stay.ends_at) == (STARTED, ENDED, at("2026-10-14T11:00"))


def test_what_is_unknown_has_its_code_for_a_name(database: psycopg.Connection):
    session = parked.past(database, STARTED, ENDED, zone="XX-999")
    stay = stays.finished(database, {session: "999"})[session]
    assert (stay.zone_name, stay.street, stay.district_name) == ("XX-999", "", "999")


def test_a_zone_that_was_loaded_later_has_its_first_name(database: psycopg.Connection):
    session = parked.past(database, at("2017-12-31T12:00"), at("2017-12-31T13:00"))
    stay = stays.finished(database, {session: "002"})[session]
    assert (stay.zone_name, stay.district_name) == ("Old name", "Old district")


def test_sessions_that_are_not_finished_are_left_out(database: psycopg.Connection):
    running = parked.active(database, STARTED, ENDED)
    assert stays.finished(database, {running: "002", sessions.new_id(STARTED): "002"}) == {}
    assert stays.finished(database, {}) == {}

"""The shipped city goes into a database that has none, and is never forced on one that has."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import sql

from app import city
from app.city import load_default_city
from app.database import upgrade
from billing.imports import ImportRefused as RatesRefused
from tests.conftest import admin_connection, drop_database, url_of
from zones.imports import ImportRefused as ZonesRefused

TABLES = ("district", "zone", "zone_occupancy", "rate_plan", "rate_line")


@pytest.fixture(scope="module")
def migrated(worker_id: str) -> Iterator[str]:
    name = f"iparking_test_load_{worker_id}_{os.getpid()}"
    with admin_connection() as connection:
        drop_database(connection, name)
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    upgrade(url_of(name))
    yield url_of(name)
    with admin_connection() as connection:
        drop_database(connection, name)


@pytest.fixture
def url(migrated: str) -> str:
    """A migrated database without a city."""
    with psycopg.connect(migrated, autocommit=True) as connection:
        connection.execute("TRUNCATE district, zone, zone_occupancy, rate_plan, rate_line RESTART IDENTITY CASCADE")
    return migrated


def content(url: str) -> dict[str, list]:
    with psycopg.connect(url) as connection:
        return {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall() for table in TABLES}


def one(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def test_nine_districts_their_zones_and_rates_are_loaded(url: str):
    load_default_city(url)
    assert one(url, "SELECT count(*) FROM district") == 9
    assert one(url, "SELECT count(*) FROM zone") >= 151
    assert one(url, "SELECT sum(capacity) FROM zone_occupancy WHERE vehicle_class = 'car'") >= 4_500
    assert one(url, "SELECT bool_and(valid_from = joined) FROM district")


def test_every_zone_has_a_rate_for_each_class_it_serves(url: str):
    load_default_city(url)
    query = """SELECT count(*) FROM zone z JOIN zone_occupancy o ON o.zone_code = z.code
        WHERE NOT EXISTS (SELECT FROM rate_plan p WHERE (p.rate_area, p.vehicle_class) = (z.rate_area, o.vehicle_class)
                          AND p.unit <> 'month' AND p.valid_from = '2018-01-01 00:00+07' AND p.valid_to IS NULL)"""
    assert one(url, query) == 0


def test_loading_again_changes_nothing(url: str):
    load_default_city(url)
    before = content(url)
    load_default_city(url)
    assert content(url) == before


def test_two_that_load_at_once_load_one_city(url: str):
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(load_default_city, [url] * 4))
    assert one(url, "SELECT count(*) = count(DISTINCT code) FROM zone")
    assert one(url, "SELECT count(*) FROM district") == 9


def test_what_an_operator_changed_is_never_overwritten(url: str):
    load_default_city(url)
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE zone SET name = 'another' WHERE code = 'HK-001'")
        connection.execute("UPDATE zone_occupancy SET capacity = 7 WHERE zone_code = 'HK-001'")
    before = content(url)
    load_default_city(url)
    assert content(url) == before


def test_city_of_someone_else_is_left_alone(url: str):
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO district (code, name, geometry, valid_from) VALUES ('x', 'Elsewhere', "
            "ST_Multi(ST_GeomFromText('POLYGON ((0 0, 1 0, 1 1, 0 0))', 4326)), '2020-01-01')"
        )
    load_default_city(url)
    assert one(url, "SELECT count(*) FROM district") == 1 and one(url, "SELECT count(*) FROM rate_plan") == 0


def test_bad_file_loads_nothing_at_all(url: str, monkeypatch, tmp_path):
    broken = tmp_path / "zones.geojson"
    broken.write_text('{"type": "FeatureCollection", "features": []}')
    monkeypatch.setattr(city, "ZONES", broken)
    with pytest.raises(ZonesRefused, match="empty_file"):
        load_default_city(url)
    assert not any(content(url).values())


def test_bad_rates_load_nothing_at_all(url: str, monkeypatch, tmp_path):
    monkeypatch.setattr(city, "RATES", tmp_path / "missing.csv")
    with pytest.raises(RatesRefused):
        load_default_city(url)
    assert not any(content(url).values())

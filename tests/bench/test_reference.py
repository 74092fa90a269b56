"""The references do what the issue of the benchmark says: one guarded UPDATE, one INSERT."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from bench import reference
from bench.load import Client


@pytest.fixture
def tables(empty_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        reference.make_tables(connection, zones=3, capacity=2)
        yield connection
        connection.execute("DROP TABLE ref_zone, ref_session, ref_plate")


def counts(connection: psycopg.Connection) -> tuple[list[int], int]:
    occupied = [row[0] for row in connection.execute("SELECT occ FROM ref_zone ORDER BY id").fetchall()]
    sessions = connection.execute("SELECT count(*) FROM ref_session").fetchone()
    return occupied, sessions[0]


def columns(connection: psycopg.Connection, table: str) -> list[str]:
    query = "SELECT column_name FROM information_schema.columns WHERE table_name = %s ORDER BY ordinal_position"
    return [row[0] for row in connection.execute(query, (table,)).fetchall()]


def test_tables_have_nothing_but_these_columns_and_their_primary_keys(tables: psycopg.Connection) -> None:
    indexes = "SELECT indexname FROM pg_indexes WHERE tablename LIKE 'ref\\_%' ORDER BY 1"
    assert columns(tables, "ref_plate") == ["id", "zone", "plate"]
    assert columns(tables, "ref_zone") == ["id", "occ", "cap"]
    assert columns(tables, "ref_session") == ["id", "zone", "plate"]
    assert tables.execute(indexes).fetchall() == [("ref_plate_pkey",), ("ref_session_pkey",), ("ref_zone_pkey",)]


def test_statement_admits_up_to_the_capacity_and_not_one_more(tables: psycopg.Connection) -> None:
    admitted = [tables.execute(reference.CEILING, (2, f"plate {n}")).fetchone() for n in range(3)]
    assert [row is not None for row in admitted] == [True, True, False]
    assert counts(tables) == ([0, 2, 0], 2)


def test_ceiling_view_answers_201_until_the_zone_is_full(empty_database: str, tables: psycopg.Connection) -> None:
    client = reference.create_application(empty_database).test_client()
    answers = [client.post("/ceiling", json={"zone": 1, "plate": "30A-123.45"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 409]
    assert tables.execute("SELECT id, zone, plate FROM ref_session ORDER BY id").fetchall() == [
        (answer.get_json()["id"], 1, "30A-123.45") for answer in answers[:2]
    ]


def test_bare_read_answers_with_the_row_it_is_asked_for(empty_database: str, tables: psycopg.Connection) -> None:
    client = reference.create_application(empty_database).test_client()
    assert client.get("/read/5").get_json() == {"id": 5, "zone": 3, "plate": "30A-5"}
    assert client.get(f"/read/{reference.PLATES + 1}").status_code == 404


def test_bare_bytes_are_those_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "answer").write_bytes(b'{"type":"FeatureCollection"}')
    monkeypatch.setenv(reference.BYTES_FILE, str(tmp_path / "answer"))
    reference._answer.cache_clear()
    assert reference.create_application("").test_client().get("/bytes?bbox=1").data == b'{"type":"FeatureCollection"}'
    reference._answer.cache_clear()


def test_pgbench_runs_the_very_same_statement(empty_database: str, tables: psycopg.Connection) -> None:
    tables.execute("UPDATE ref_zone SET cap = 1000000")
    burst = Client(threads=1, pgbench_connections=2).pgbench(empty_database, zones=3, seconds=1)
    occupied, sessions = counts(tables)
    assert sum(occupied) == sessions == burst.requests
    assert 0 < burst.p50_ms <= burst.p95_ms <= burst.p99_ms

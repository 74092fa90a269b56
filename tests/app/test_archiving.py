"""The archive as the jobs and the command line run it, and what reports say of months that are out."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app import archiving, create_app, jobs
from app.resources import Resources, make_resources
from app.stack.processes import wait_until
from tests.conftest import ROOT, Client, SteppedClock, settings_of

SPAN = {"from": "2025-03-31T00:00:00+07:00", "to": "2025-04-02T00:00:00+07:00", "bucket": "1d"}


@pytest.fixture
def database(own_database: str) -> str:
    """With one session of March 2025."""
    with psycopg.connect(own_database, autocommit=True) as connection:
        connection.execute("SELECT make_month_partitions('2025-03-10+07', 0)")
        connection.execute(
            """INSERT INTO parking_session (id, plate, vehicle_class, client, zone_code, admission, started_at, over_at,
                                            ended_at, ended_by, received_at, payment_method, rate_version, fee)
            SELECT gen_random_uuid(), '29A-123.45', 'car', 'c', 'HK-001', 'advisory', at, at, at, 'driver', at, 'cash',
                   'v', 0 FROM (SELECT '2025-03-31T12:00+07'::timestamptz) t(at)"""
        )
    return own_database


@contextmanager
def serving(database: str, redis_url: str, keys: Path, clock: SteppedClock, folder: Path | None) -> Iterator[Any]:
    settings = replace(settings_of(database, redis_url, keys), archive_folder=folder)
    held: Resources = replace(make_resources(settings), clock=clock)
    app = create_app(settings, held)
    app.test_client_class = Client
    try:
        yield held, app.test_client()
    finally:
        held.close()


def report(client: Client) -> dict[str, Any]:
    return client.get("/v1/reports/occupancy", query_string=SPAN | {"zone": "HK-001"}, role="planner").json


def test_the_job_archives_beside_the_others_and_reports_say_so(
    database: str, redis_url: str, keys_path: Path, clock: SteppedClock, tmp_path: Path
):
    with serving(database, redis_url, keys_path, clock, tmp_path) as (held, client):
        before = report(client)
        assert before["archived_months"] == [] and sum(row["arrivals"] for row in before["rows"]) == 1
        assert jobs.JOBS["archive"].run(held) == 1
        assert wait_until(lambda: not archiving.is_at_work(), 60.0)
        after = report(client)
        assert after["archived_months"] == ["2025-03"] and sum(row["arrivals"] for row in after["rows"]) == 0
        assert [file.name for file in tmp_path.iterdir()] == ["parking_session_2025_03.parquet"]


def test_without_a_folder_nothing_is_archived(database: str, redis_url: str, keys_path: Path, clock: SteppedClock):
    with serving(database, redis_url, keys_path, clock, None) as (held, client):
        assert jobs.JOBS["archive"].run(held) == 0
        assert report(client)["archived_months"] == []


def command(database: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "IPARKING_DATABASE_URL": database,
        "IPARKING_REDIS_URL": os.environ["IPARKING_TEST_REDIS_URL"],
        "IPARKING_HOME": str(folder / "home"),
        "IPARKING_ARCHIVE_FOLDER": str(folder / "archive"),
    }
    line = [sys.executable, "-m", "app.cli", "archive", *arguments]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_commands_archive_list_and_restore(database: str, tmp_path: Path):
    def answer(*arguments: str) -> Any:
        done = command(database, tmp_path, *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert answer("list") == {"months": []}
    assert answer("run")["archived"] == ["2025-03"]
    (listed,) = answer("list")["months"]
    assert (listed["month"], listed["state"], listed["rows"]) == ("2025-03", "archived", 1)
    assert answer("restore", "2025-03") == {"restored": "2025-03", "rows": 1}
    refused = command(database, tmp_path, "restore", "2025-03")
    assert refused.returncode == 1 and refused.stderr.strip() == "iparking: 2025-03 is not archived"

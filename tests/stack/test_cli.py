"""The command line: help, exit codes, and JSON that stands alone on standard output."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

import app
from app import cli
from app.database import MIGRATIONS

VERBS = ["up", "down", "status", "demo", "test", "db upgrade", "import", "simulate", "rebuild", "bench core"]

NEWEST = max(file.name for file in (MIGRATIONS / "versions").glob("0*.py"))[:4]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    database_url: str,
    redis_url: str,
) -> Run:
    """Runs the command line in this process on the test's servers: exit code, output, errors."""
    monkeypatch.setenv("IPARKING_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IPARKING_DATABASE_URL", database_url)
    monkeypatch.setenv("IPARKING_REDIS_URL", redis_url)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["iparking", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help_with_an_example(run: Run, verb: str) -> None:
    code, out, _ = run(*verb.split(), "--help")
    assert code == 0
    assert f"./iparking {verb} [OPTIONS]" in out
    assert "Example:" in out
    assert f"./iparking {verb}" in out.partition("Example:")[2]


@pytest.mark.parametrize("verb", [*VERBS, "reconcile", "ledger", "ledger check", "calls", "calls list", "bench money"])
def test_h_is_help(run: Run, verb: str) -> None:
    assert run(*verb.split(), "-h") == run(*verb.split(), "--help")


def test_help_lists_every_verb(run: Run) -> None:
    _, out, _ = run("--help")
    listed = {line.split()[0] for line in out.partition("Commands:")[2].splitlines() if line.strip()}
    assert {verb.split()[0] for verb in VERBS} <= listed


@pytest.mark.parametrize("arguments", [("fly",), ("up", "--port", "0"), ("up", "--port", "x"), ("import", "zones")])
def test_wrong_arguments_exit_with_2(run: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Error: " in err


def test_bad_records_are_listed_and_nothing_is_imported(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "districts.csv"
    file.write_text("code,name,geometry\n901,Somewhere,\n,Nowhere,\n")
    code, out, _ = run("import", "districts", file)
    assert code == 1
    lines = out.splitlines()
    assert lines[0].split() == ["where", "id", "field", "rule"]
    assert any(line.split()[:5] == ["line", "2", "901", "geometry", "missing_field"] for line in lines)
    assert lines[-1].startswith("nothing was imported: ")

    code, out, _ = run("import", "districts", file, "--json")
    found = json.loads(out)
    assert code == 1
    assert found["imported"] is False
    assert {"where": "line 2", "id": "901", "field": "geometry", "rule": "missing_field"}.items() <= found["records"][
        0
    ].items()


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("districts", "zones/data/districts.geojson"),
        ("zones", "zones/data/zones.geojson"),
        ("rates", "billing/data/rates.csv"),
    ],
)
def test_import_of_what_is_there_changes_nothing(run: Run, kind: str, file: str) -> None:
    code, out, err = run("import", kind, Path(__file__).parents[2] / file, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["imported"] is True
    assert found["written"] == []
    assert found["unchanged"] > 0


def test_rebuild_copies_every_count(run: Run) -> None:
    code, out, err = run("rebuild", "--json")
    assert code == 0, err
    assert json.loads(out)["copies"] > 150


@pytest.mark.parametrize(
    "arguments",
    ["ledger check", "calls list", "archive list", "rebuild", "reconcile --date 2026-10-14", "import --dry-run"],
)
class TestCommandThatReads:
    """It finds a database as it is."""

    def run(self, run: Run, arguments: str, *more: str) -> tuple[int, str, str]:
        file = Path(app.__file__).parent.parent / "zones" / "data" / "zones.geojson"
        return run(*arguments.split(), *(["zones", str(file)] if "import" in arguments else []), *more)

    def test_makes_none(self, run: Run, arguments: str, connection: psycopg.Connection) -> None:
        code, out, err = self.run(run, arguments, "--database", "nowhere")
        assert (code, out) == (1, "")
        assert err == "iparking: there is no database nowhere: `./iparking up --database nowhere` makes it\n"
        assert connection.execute("SELECT FROM pg_database WHERE datname = 'nowhere'").rowcount == 0

    def test_upgrades_none(self, run: Run, arguments: str, connection: psycopg.Connection) -> None:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
        try:
            code, out, err = self.run(run, arguments)
            assert (code, out) == (1, "")
            assert err.endswith("./iparking db upgrade --database iparking\n")
            assert connection.execute("TABLE alembic_version").fetchall() == [("0001",)]
        finally:
            connection.execute("UPDATE alembic_version SET version_num = %s", (NEWEST,))


def test_missing_server_ends_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPARKING_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    code, out, err = run("rebuild")
    assert (code, out) == (1, "")
    assert err.startswith("iparking: ")
    assert err.count("\n") == 1


def test_clock_without_offset_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPARKING_CLOCK_START", "2026-03-02T07:00:00")
    code, _, err = run("up", "--env", "simulation")
    assert code == 1
    assert err == "iparking: IPARKING_CLOCK_START: the offset is missing\n"


def test_statement_is_imported_and_a_bad_one_refused(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "statement.csv"
    header = "transaction_id,at,debit,credit,description"
    file.write_text(f"{header}\nFT1,26/11/2026 09:10:00,,50000,chuyen tien\n")
    for option, is_imported in (("--dry-run", False), ("--json", True)):
        code, out, _ = run("import", "statement", file, "--json", option)
        found = json.loads(out)
        assert (code, found["imported"], found["booked"]) == (0, is_imported, 0)
        assert found["unmatched"] == [{"where": "line 2", "transaction": "FT1", "amount": 50000, "why": "no_reference"}]
    code, out, _ = run("import", "statement", file)
    assert "unmatched: line 2 FT1: 50,000 VND: no_reference" in out.splitlines()
    code, out, _ = run("credits", "list")
    assert code == 0 and out.startswith("vietqr  FT1  50,000 VND  2026-11-26") and out.endswith("chuyen tien\n")
    for expected in (0, 1):  # a second time it has its owner
        code, _, err = run("credits", "assign", "FT1", "driver-3", "--json")
        assert code == expected and ("no unmatched credit FT1" in err) is bool(expected)
    assert json.loads(run("credits", "list", "--json")[1]) == {"credits": []}
    file.write_text(f"{header}\nFT1,26/11/2026,,50000,chuyen tien\n")
    code, out, _ = run("import", "statement", file)
    assert code == 1 and "line 2  FT1  at     not_a_time" in out

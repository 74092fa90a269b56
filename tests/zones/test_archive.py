"""The archive: what goes out comes back as it was, and whatever breaks in the middle, nothing is lost."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import psycopg
import pytest

from app.stack.processes import wait_until
from tests.conftest import HANOI, ROOT
from zones import archive, partitions
from zones.archive import ArchiveBusy, ArchiveError
from zones.parquet import UnknownColumns

MONTH = date(2025, 3, 1)
NOW = datetime(2026, 11, 20, tzinfo=HANOI)
TABLE = "parking_session_2025_03"
ROWS = 1_501
BATCH = 1_000  # so that there are two
# A server learns a moment later that its client was killed, and holds the archive's lock until then.
HELD = """SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
           WHERE locktype = 'advisory' AND datname = current_database()"""

PAST = f"""
INSERT INTO parking_session (
    id, plate, vehicle_class, client, idempotency_key, zone_code, admission, started_at, minutes, ends_at, over_at,
    ended_at, ended_by, received_at, payment_method, rate_version, fee, stop_key, stop_requested_at)
SELECT gen_random_uuid(), CASE n % 3 WHEN 0 THEN 'T29-123.45' ELSE '29-MĐ1 123.' || n END, 'car', 'tài xế ' || n,
       CASE n % 4 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE E'key\\t"\\\\N'' ' || n END, 'HK-001', 'advisory', at,
       CASE WHEN n % 2 = 0 THEN n END, CASE WHEN n % 2 = 0 THEN at + '1 h' END, at + '1 h', at + n * interval '1 us',
       'driver', at + '1 h', 'wallet', 'v', 9000000000000000 + n, CASE WHEN n % 5 = 0 THEN '🅿' END,
       CASE WHEN n % 5 = 0 THEN at END
  FROM generate_series(1, {ROWS}) n,
       LATERAL (SELECT '2025-03-01T00:00:00.000001+07'::timestamptz + n * interval '1 minute 1 microsecond') t(at)
"""


@pytest.fixture
def connection(own_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection]:
    """A database with March and (empty) April of last year."""
    monkeypatch.setattr(archive.parquet, "BATCH", BATCH)
    with archive.connect(own_database) as connection:
        connection.execute("SELECT make_month_partitions('2025-03-10+07', 1)")
        connection.execute(PAST)
        yield connection


def everything(connection: psycopg.Connection) -> list[tuple]:
    return connection.execute("SELECT * FROM parking_session ORDER BY started_at, id").fetchall()


def run(connection: psycopg.Connection, folder: Path, only: date | None = None) -> list[date]:
    return archive.run(connection, folder, NOW, 13, only)


def test_every_column_is_the_same_after_it_came_back(connection: psycopg.Connection, tmp_path: Path):
    before = everything(connection)
    assert len(before) == ROWS
    assert run(connection, tmp_path) == [MONTH, date(2025, 4, 1)] and run(connection, tmp_path) == []
    assert everything(connection) == []
    assert [(e.month, e.state, e.rows) for e in archive.entries(connection)] == [
        (MONTH, "archived", ROWS), (date(2025, 4, 1), "archived", 0),
    ]  # fmt: skip
    assert partitions.months(connection, attached=True) == partitions.months(connection, attached=False) == []
    assert archive.restore(connection, tmp_path, MONTH, NOW) == ROWS
    assert archive.restore(connection, tmp_path, date(2025, 4, 1), NOW) == 0
    assert everything(connection) == before
    assert run(connection, tmp_path) == [], "what was restored stays"
    assert run(connection, tmp_path, only=MONTH) == [MONTH] and everything(connection) == []


def test_it_is_read_by_any_parquet_reader(connection: psycopg.Connection, tmp_path: Path):
    from pyarrow import parquet

    first = everything(connection)[0]
    run(connection, tmp_path)
    table = parquet.read_table(tmp_path / f"{TABLE}.parquet")
    row = table.slice(0, 1).to_pylist()[0]
    assert table.num_rows == ROWS and str(table.schema.field("started_at").type) == "timestamp[us, tz=UTC]"
    assert (row["id"], row["plate"], row["started_at"], row["fee"]) == (str(first[0]), first[1], first[7], first[16])
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"{TABLE}.parquet", "parking_session_2025_04.parquet"]


def test_a_restored_month_is_like_any_other(connection: psycopg.Connection, tmp_path: Path):
    def catalogue() -> list[tuple]:
        query = """SELECT 'index', pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = to_regclass(%(t)s)
            UNION ALL SELECT 'check', pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = to_regclass(%(t)s)
            UNION ALL SELECT 'trigger', tgname FROM pg_trigger WHERE tgrelid = to_regclass(%(t)s)"""
        return sorted(connection.execute(query, {"t": TABLE}).fetchall())

    before = catalogue()
    run(connection, tmp_path)
    archive.restore(connection, tmp_path, MONTH, NOW)
    assert catalogue() == before


@pytest.mark.parametrize("step", ["_due", "_compare", "_put_in_place", "_take_out", "_finish"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_any_step_it_loses_nothing_and_goes_on(
    connection: psycopg.Connection, own_database: str, tmp_path: Path, step: str, moment: str
):
    before = everything(connection)
    code = f"""
import os, signal, sys
from datetime import datetime
from pathlib import Path
from zones import archive
step = archive.{step}
def killed(*arguments):
    {"step(*arguments)" if moment == "after" else "pass"}
    os.kill(os.getpid(), signal.SIGKILL)
archive.{step} = killed
archive.run(archive.connect(sys.argv[1]), Path(sys.argv[2]), datetime.fromisoformat(sys.argv[3]), 13)
"""
    done = subprocess.run([sys.executable, "-c", code, own_database, str(tmp_path), NOW.isoformat()], cwd=ROOT)
    assert done.returncode == -9
    assert wait_until(lambda: connection.execute(HELD).fetchone() == (0,), 10.0), "the server missed the death"
    listed = [entry.month for entry in archive.entries(connection)]
    assert everything(connection) == ([] if MONTH in listed else before), "there, or listed as archived"
    run(connection, tmp_path)
    assert everything(connection) == [] and partitions.months(connection, attached=False) == []
    assert not list(tmp_path.glob("*.unfinished"))
    archive.restore(connection, tmp_path, MONTH, NOW)
    assert everything(connection) == before


def test_a_restore_that_is_killed_may_be_repeated(connection: psycopg.Connection, own_database: str, tmp_path: Path):
    before = everything(connection)
    run(connection, tmp_path)
    code = """
import os, sys
from datetime import date, datetime
from pathlib import Path
from zones import archive
archive._put_back = lambda *_: os.kill(os.getpid(), 9)
archive.restore(archive.connect(sys.argv[1]), Path(sys.argv[2]), date(2025, 3, 1), datetime.now())
"""
    done = subprocess.run([sys.executable, "-c", code, own_database, str(tmp_path)], cwd=ROOT)
    assert done.returncode == -9 and everything(connection) == []
    archive.restore(connection, tmp_path, MONTH, NOW)
    assert everything(connection) == before


def test_a_full_disk_leaves_the_month_where_it_is(connection: psycopg.Connection, tmp_path: Path):
    before = everything(connection)
    (tmp_path / f"{TABLE}.unfinished").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        run(connection, tmp_path)
    assert everything(connection) == before and archive.entries(connection) == []
    assert list(tmp_path.iterdir()) == []
    assert MONTH in run(connection, tmp_path)


def test_a_file_that_lost_a_row_is_noticed_before_anything_is_dropped(
    connection: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = everything(connection)
    arrays = archive.parquet._arrays
    monkeypatch.setattr(archive.parquet, "_arrays", lambda rows, schema: arrays([*rows[:-1], rows[0]], schema))
    with pytest.raises((ArchiveError, psycopg.errors.UniqueViolation)):
        run(connection, tmp_path)
    assert everything(connection) == before and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["changed", "gone"])
def test_a_file_that_is_not_the_one_that_was_written_is_not_restored(
    connection: psycopg.Connection, tmp_path: Path, change: str
):
    run(connection, tmp_path)
    file = tmp_path / f"{TABLE}.parquet"
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ArchiveError, match=file.name):
        archive.restore(connection, tmp_path, MONTH, NOW)
    assert everything(connection) == []


def take_out(connection: psycopg.Connection, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Archive March but for the last step: its table is there by itself."""
    with monkeypatch.context() as patched:
        patched.setattr(archive, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(connection, folder)


def test_a_table_that_changed_after_it_was_taken_out_is_not_dropped(
    connection: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    take_out(connection, tmp_path, monkeypatch)
    connection.execute(f"DELETE FROM {TABLE} WHERE fee = (SELECT max(fee) FROM {TABLE})")
    with pytest.raises(ArchiveError, match="has changed"):
        run(connection, tmp_path)
    assert partitions.months(connection, attached=False) == [MONTH]


MORE = f"""
INSERT INTO {TABLE} (id, plate, vehicle_class, client, zone_code, admission, started_at, over_at, ended_at, ended_by,
                     received_at, payment_method, rate_version, fee)
SELECT gen_random_uuid(), plate, vehicle_class, client, zone_code, admission, started_at, over_at, ended_at, ended_by,
       received_at, payment_method, rate_version, fee
  FROM {TABLE} LIMIT 1
"""


@pytest.mark.parametrize("change", [MORE, f"UPDATE {TABLE} SET fee = fee + 1", f"DELETE FROM {TABLE}"])
def test_a_table_that_changed_after_it_was_taken_out_is_not_restored_over(
    connection: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
):
    before = everything(connection)
    take_out(connection, tmp_path, monkeypatch)
    connection.execute(change)
    alone = f"SELECT * FROM {TABLE} ORDER BY started_at, id"
    held = connection.execute(alone).fetchall()
    for _ in range(2):
        with pytest.raises(ArchiveError, match=f"{TABLE} has changed"):
            archive.restore(connection, tmp_path, MONTH, NOW)
    assert connection.execute(alone).fetchall() == held and everything(connection) == []
    connection.execute(f"ALTER TABLE {TABLE} RENAME TO kept")
    assert archive.restore(connection, tmp_path, MONTH, NOW) == ROWS and everything(connection) == before


def test_a_table_that_stayed_as_it_was_taken_out_gives_way_to_its_file(
    connection: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = everything(connection)
    take_out(connection, tmp_path, monkeypatch)
    assert archive.restore(connection, tmp_path, MONTH, NOW) == ROWS and everything(connection) == before


def test_a_month_waits_for_its_last_running_session(connection: psycopg.Connection, tmp_path: Path):
    connection.execute(
        """INSERT INTO active_session (plate, vehicle_class, id, client, zone_code, admission, started_at, over_at,
                                       max_over_at, payment_method, rate_version, refund, fee_after, fee_amount)
        VALUES ('30A-1', 'car', gen_random_uuid(), 'c', 'HK-001', 'strict', '2025-03-31T23:00+07', '2025-04-01+07',
                '2025-04-01+07', 'cash', 'v', 'none', '{0,1}', '{1}')"""
    )
    assert run(connection, tmp_path) == [] and len(everything(connection)) == ROWS
    connection.execute("UPDATE active_session SET started_at = '2025-04-01T00:00+07', over_at = '2025-04-02+07'")
    assert run(connection, tmp_path) == [MONTH]


@pytest.mark.parametrize(("months", "out"), [(13, True), (19, True), (20, False)])
def test_retention_counts_whole_months(connection: psycopg.Connection, tmp_path: Path, months: int, out: bool):
    """March 2025 ended 19 months and 20 days before."""
    done = archive.run(connection, tmp_path, NOW, months)
    assert (MONTH in done) == out


def test_two_at_once_do_it_once(connection: psycopg.Connection, own_database: str, tmp_path: Path):
    with archive.connect(own_database) as other, archive._alone(other):
        with pytest.raises(ArchiveBusy, match="another process"):
            run(connection, tmp_path)
        with pytest.raises(ArchiveBusy, match="another process"):
            archive.restore(connection, tmp_path, MONTH, NOW)
    assert MONTH in run(connection, tmp_path)


def test_a_column_that_came_later_has_its_default_and_one_that_went_is_named(
    connection: psycopg.Connection, tmp_path: Path
):
    run(connection, tmp_path)
    connection.execute("ALTER TABLE parking_session ADD COLUMN note text DEFAULT 'none'")
    assert archive.restore(connection, tmp_path, MONTH, NOW) == ROWS
    assert connection.execute("SELECT DISTINCT note FROM parking_session").fetchall() == [("none",)]
    connection.execute("ALTER TABLE parking_session DROP COLUMN stop_key")
    with pytest.raises(UnknownColumns, match="stop_key"):
        archive.restore(connection, tmp_path, date(2025, 4, 1), NOW)


def test_a_type_without_a_form_is_named(connection: psycopg.Connection, tmp_path: Path):
    connection.execute("ALTER TABLE parking_session ADD COLUMN place point")
    with pytest.raises(UnknownColumns, match="place point"):
        run(connection, tmp_path)
    assert len(everything(connection)) == ROWS and list(tmp_path.iterdir()) == []


def test_reports_are_told_which_months_are_out(connection: psycopg.Connection, tmp_path: Path):
    run(connection, tmp_path)
    april = [MONTH, date(2025, 4, 1)]
    hanoi = [
        datetime(2025, month, day, tzinfo=HANOI) for month, day in ((3, 31), (4, 1), (4, 2), (5, 1), (5, 2), (6, 1))
    ]
    assert archive.missing(connection, hanoi[0], hanoi[1]) == [MONTH]
    assert archive.missing(connection, hanoi[1], hanoi[2]) == april, "a stay of March may have ended in April"
    assert archive.missing(connection, hanoi[3], hanoi[4]) == [date(2025, 4, 1)]
    assert archive.missing(connection, hanoi[4], hanoi[5]) == []
    assert archive.missing(connection, hanoi[5], NOW) == []


assert os.path.exists("/dev/full"), "the full disk of these tests"

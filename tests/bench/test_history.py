"""Past sessions: as many as asked, in the months in which they began, as the service would have left them."""

from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import history
from bench.errors import BenchError
from zones import plates, sessions

HANOI = ZoneInfo("Asia/Ho_Chi_Minh")
NOW = datetime(2026, 10, 14, 8, tzinfo=HANOI)
ZONES = ["BD-001", "HK-001"]


@given(st.integers(0, 10**8), st.integers(0, 5_000))
def test_months_follow_each_other_and_share_all_sessions(number: int, days: int) -> None:
    spans = history.months(NOW + timedelta(days=days))
    assert all(one.end == following.start for one, following in pairwise(spans))
    assert all(span.start < span.until <= span.end for span in spans)
    assert history.MONTHS - 1 <= len(spans) <= history.MONTHS
    parts = history.shares(number, spans)
    assert sum(parts) == number and min(parts) >= 0


def test_a_disk_without_room_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"need .* GB on the disk"):
        history.require_space(tmp_path, 10**13)


def test_loaded_sessions_are_like_those_of_the_service(city_database: str) -> None:
    history.fill(city_database, 400, NOW, ZONES)
    with psycopg.connect(city_database, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT tableoid::regclass::text, id, plate, vehicle_class, zone_code, started_at, over_at, ended_at, "
            "idempotency_key FROM parking_session"
        ).fetchall()
        indexes = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE i.inhparent IS NULL) FROM pg_index x "
            "LEFT JOIN pg_inherits i ON i.inhrelid = x.indexrelid "
            "WHERE x.indrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'parking_session'::regclass)"
        ).fetchone()
        assert history.size(connection) > 0
        history.fill(city_database, 0, NOW, ZONES)  # in place of all that was there
        assert connection.execute("SELECT count(*) FROM parking_session").fetchone() == (0,)
    assert len(rows) == len({row[1] for row in rows}) == len({row[8] for row in rows}) == 400
    for table, session, plate, vehicle_class, zone, started_at, over_at, ended_at, _ in rows:
        assert table == f"parking_session_{started_at.astimezone(HANOI):%Y_%m}"
        assert sessions.started_at_of(session) == started_at
        assert plates.parse(plate, "car").text == plate
        assert vehicle_class in ("car", "motorbike") and zone in ZONES
        assert started_at < ended_at <= over_at
    assert indexes[0] > 0 and indexes[1] == 0  # each index of each month belongs to one of the parent's

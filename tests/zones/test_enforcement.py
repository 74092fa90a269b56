"""Plate checks: the verdict by rule and instant, and the sessions that it rests on."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from tests.zones.parked import MAX_STAY, active, at, past, right, zone
from zones import enforcement, errors, places, sessions
from zones.enforcement import GRACE, REACH, Check, Look, Position, Sighting

SECOND = timedelta(seconds=1)
NOON = at("2026-10-14T12:00")
HERE, NEXT_DOOR, ELSEWHERE = "HK-001", "HK-002", "BD-001"


class Stay(NamedTuple):
    """A session as a check sees it: paid until `paid_until`; `gone_at` is None while the vehicle is taken to stand."""

    zone: str
    started_at: datetime
    paid_until: datetime
    gone_at: datetime | None

    def write(self, connection: psycopg.Connection) -> UUID:
        """Put it where the service keeps it; its id."""
        if self.gone_at is None:
            return active(connection, self.started_at, self.paid_until, zone=self.zone, admission="strict")
        return past(connection, self.started_at, self.gone_at, zone=self.zone, ends_at=self.paid_until)


def stay(zone: str, start: datetime, paid_until: datetime, *, gone: datetime | str | None = "paid") -> Stay:
    return Stay(zone, start, paid_until, paid_until if gone == "paid" else gone)  # type: ignore[arg-type]


def hour_until(end: datetime, zone: str = HERE) -> Stay:
    return stay(zone, end - timedelta(hours=1), end)


@pytest.fixture
def connection(engine: Engine, empty_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        zone(connection, HERE, car=2, motorbike=3)
        zone(connection, ELSEWHERE, "001", admission="strict", car=2)
        yield connection


class Judge:
    """Writes the stays of one vehicle, has it checked, and takes everything back."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection
        self.ids: list[UUID] = []  # of the stays that were written last

    def __call__(self, candidates: list[str], stays: "Sequence[Stay | Permit]", instant: datetime) -> Check:
        with self.connection.transaction(force_rollback=True):
            self.ids = [one.write(self.connection) for one in stays]
            return seen_as(self.connection, candidates, [("30A-123.45", "car")], instant)


def seen_as(
    connection: psycopg.Connection, candidates: list[str], readings: list[tuple[str, str]], instant: datetime
) -> Check:
    """The check of a vehicle that may be any of these and stand in any of the candidates."""
    look = Look(sessions.new_id(instant), "warden", sighting(captured_at=instant), instant, readings, candidates, None)
    (made,) = enforcement.check(connection, [look])
    assert isinstance(made, Check)
    return made


@pytest.fixture
def judge(connection: psycopg.Connection) -> Judge:
    return Judge(connection)


@pytest.mark.parametrize(
    ("since_end", "verdict", "seconds"),
    [
        (-timedelta(hours=1) - SECOND, "unpaid", None),  # before it began
        (-timedelta(hours=1), "paid", None),  # start-inclusive
        (-timedelta(microseconds=1), "paid", None),
        (timedelta(), "grace", 0),  # end-exclusive
        (GRACE - timedelta(microseconds=1), "grace", 299),
        (GRACE, "expired", 300),
        (REACH - timedelta(microseconds=1), "expired", 86_399),
        (REACH, "unpaid", None),
    ],
)
def test_verdict_changes_at_these_instants(judge: Judge, since_end: timedelta, verdict: str, seconds: int | None):
    """
    |-- paid --|-- grace 5 min --|-- expired until 24 h --|-- unpaid
    """
    found = judge([HERE], [hour_until(NOON)], NOON + since_end)
    assert found.verdict == verdict
    assert found.expired_for_seconds == seconds
    assert found.zone == HERE


def test_overstay_in_a_strict_zone_is_expired_for_as_long_as_it_lasts(judge: Judge):
    overstay = stay(HERE, NOON - timedelta(days=9), NOON - timedelta(days=8), gone=None)
    found = judge([HERE], [overstay], NOON)
    assert (found.verdict, found.expired_for_seconds) == ("expired", timedelta(days=8) // SECOND)
    stopped = stay(HERE, NOON - timedelta(days=9), NOON - timedelta(days=8), gone=NOON)
    assert judge([HERE], [stopped], NOON - SECOND).verdict == "expired"
    assert judge([HERE], [stopped], NOON).verdict == "grace", "its overstay is paid for, now it may drive off"
    assert judge([HERE], [stopped], NOON + GRACE).expired_for_seconds == GRACE // SECOND


def test_session_in_another_zone_is_the_wrong_zone(judge: Judge):
    elsewhere = hour_until(NOON + SECOND, ELSEWHERE)
    found = judge([HERE, NEXT_DOOR], [elsewhere], NOON)
    assert (found.verdict, found.reasons, found.zone) == ("wrong_zone", ["other_zone"], HERE)
    assert [found.session] == judge.ids
    assert judge([HERE], [hour_until(NOON, ELSEWHERE)], NOON).verdict == "unpaid"


def test_session_in_any_zone_that_the_circle_touches_pays(judge: Judge):
    next_door = hour_until(NOON + SECOND, NEXT_DOOR)
    found = judge([HERE, NEXT_DOOR], [next_door], NOON)
    assert (found.verdict, found.zone, [found.session]) == ("paid", NEXT_DOOR, judge.ids)


def test_grace_goes_before_wrong_zone_and_wrong_zone_before_expired(judge: Judge):
    elsewhere = hour_until(NOON + timedelta(minutes=30), ELSEWHERE)
    assert judge([HERE], [hour_until(NOON), elsewhere], NOON + GRACE - SECOND).verdict == "grace"
    assert judge([HERE], [hour_until(NOON), elsewhere], NOON + GRACE).verdict == "wrong_zone"


def test_the_last_session_counts_among_several_that_ended(judge: Judge):
    found = judge([HERE], [hour_until(NOON - timedelta(hours=3)), hour_until(NOON)], NOON + GRACE)
    assert (found.verdict, found.session) == ("expired", judge.ids[1])


def test_no_zone_at_all_is_outside(judge: Judge):
    found = judge([], [hour_until(NOON + SECOND)], NOON)
    assert (found.verdict, found.reasons, found.zone, found.session) == ("outside_zones", ["no_zone_here"], None, None)


class Permit(NamedTuple):
    """A right as a check sees it; it is written as a stay is, and is no session."""

    zone: str | None = HERE
    valid_from: datetime = NOON - timedelta(hours=1)
    valid_until: datetime = NOON + timedelta(hours=1)
    district: str | None = None
    plate: str = "30A-123.45"
    vehicle_class: str = "car"
    kind: str = "resident"
    revoked_at: datetime | None = None

    def write(self, connection: psycopg.Connection) -> UUID:
        return right(connection, **self._asdict())


class TestPermit:
    TICK = timedelta(microseconds=1)

    @pytest.mark.parametrize(
        ("instant", "verdict"),
        [
            (NOON - timedelta(hours=1) - TICK, "unpaid"),
            (NOON - timedelta(hours=1), "permit"),  # inclusive
            (NOON + timedelta(hours=1) - TICK, "permit"),
            (NOON + timedelta(hours=1), "unpaid"),  # exclusive, and without grace
        ],
    )
    def test_a_right_holds_from_its_begin_until_before_its_end(self, judge: Judge, instant: datetime, verdict: str):
        found = judge([HERE], [Permit()], instant)
        assert (found.verdict, found.session, found.expired_for_seconds) == (verdict, None, None)
        assert (found.zone, found.reasons) == (HERE, ["right" if verdict == "permit" else "no_session"])

    def test_a_right_until_midnight_ends_with_the_day(self, judge: Judge):
        """
        |-- the 14th --| 00:00 in Hanoi
        """
        midnight = at("2026-10-15T00:00")
        today = Permit(valid_from=midnight - timedelta(days=1), valid_until=midnight)
        assert judge([HERE], [today], midnight - self.TICK).verdict == "permit"
        assert judge([HERE], [today], midnight).verdict == "unpaid"
        tomorrow = today._replace(valid_from=midnight, valid_until=midnight + self.TICK)
        assert judge([HERE], [today, tomorrow], midnight).verdict == "permit"

    def test_a_revoked_right_held_until_it_was_revoked(self, judge: Judge):
        assert judge([HERE], [Permit(revoked_at=NOON)], NOON - self.TICK).verdict == "permit"
        assert judge([HERE], [Permit(revoked_at=NOON)], NOON).verdict == "unpaid"
        assert judge([HERE], [Permit(revoked_at=NOON), Permit(kind="disabled")], NOON).verdict == "permit"

    def test_a_session_that_pays_goes_before_a_right_and_a_right_before_all_else(self, judge: Judge):
        running = hour_until(NOON + SECOND)
        assert judge([HERE], [Permit(), running], NOON).verdict == "paid"
        assert judge([HERE], [Permit(), hour_until(NOON)], NOON).verdict == "permit", "not grace"
        assert judge([HERE], [Permit(), hour_until(NOON - GRACE)], NOON).verdict == "permit", "not expired"
        assert judge([HERE], [Permit(), hour_until(NOON + SECOND, ELSEWHERE)], NOON).verdict == "permit", (
            "not elsewhere"
        )
        overstay = stay(HERE, NOON - timedelta(days=9), NOON - timedelta(days=8), gone=None)
        found = judge([HERE], [Permit(), overstay], NOON)
        assert (found.verdict, found.session, found.expired_for_seconds) == ("permit", None, None)

    @pytest.mark.parametrize(
        ("granted", "verdict", "where"),
        [
            (Permit(HERE), "permit", HERE),
            (Permit(ELSEWHERE), "unpaid", NEXT_DOOR),
            (Permit(None, district="002"), "permit", HERE),
            (Permit(None, district="001"), "unpaid", NEXT_DOOR),
            (Permit(None), "permit", NEXT_DOOR),
        ],
    )
    def test_a_right_holds_in_its_zone_its_district_or_the_whole_city(
        self, connection, judge: Judge, granted: Permit, verdict: str, where: str
    ):
        """The nearest candidate is of the district 003, and the next one of 002."""
        zone(connection, NEXT_DOOR, "003", car=2)
        found = judge([NEXT_DOOR, HERE], [granted], NOON)
        assert (found.verdict, found.zone) == (verdict, where)

    def test_a_right_is_of_one_vehicle(self, connection):
        with connection.transaction(force_rollback=True):
            Permit(plate="29-E1 1234", vehicle_class="motorbike").write(connection)
            both = enforcement.read_plate("29E11234", None)
            found = seen_as(connection, [HERE], both, NOON)
            assert (found.verdict, found.plate, found.vehicle_class) == ("permit", "29-E1 1234", "motorbike")
            assert seen_as(connection, [HERE], [("29E-112.34", "car")], NOON).verdict == "unpaid"
            active(connection, NOON - SECOND, NOON + SECOND, plate="29E-112.34")
            found = seen_as(connection, [HERE], both, NOON)
            assert (found.verdict, found.plate) == ("paid", "29E-112.34"), "a session goes first"

    def test_no_zone_is_outside_also_with_a_right(self, judge: Judge):
        assert judge([], [Permit(None)], NOON).verdict == "outside_zones"

    def test_rights_of_others_are_not_read(self, connection):
        """Rows of the table that a check reads, in a crowd of permits."""
        query = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'parking_right'"
        Permit().write(connection)
        connection.execute(
            "INSERT INTO parking_right (id, kind, plate, vehicle_class, valid_from, valid_until, reason, granted_at, "
            "granted_by) SELECT gen_random_uuid(), 'event', 'P' || n, 'car', %s, %s, 'r', %s, 'operator' "
            "FROM generate_series(1, 500) n",
            (NOON, NOON + SECOND, NOON),
        )

        def read(instant: datetime, plate: str = "30A-123.45") -> tuple[str, int]:
            with connection.transaction(force_rollback=True):
                before = connection.execute(query).fetchone()[0]
                made = seen_as(connection, [HERE], [(plate, "car")], instant)
                return made.verdict, connection.execute(query).fetchone()[0] - before

        assert read(NOON) == ("permit", 2), "whether there is one, and where it holds"
        assert read(NOON + timedelta(hours=2)) == ("unpaid", 0)
        assert read(NOON, "30A-999.99") == ("unpaid", 0)
        active(connection, NOON - SECOND, NOON + SECOND)
        assert read(NOON) == ("paid", 0), "who pays is not looked up"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from([HERE, NEXT_DOOR, ELSEWHERE]), st.integers(0, 3000), st.integers(1, 900)), max_size=6
    ),
    st.integers(0, 4000),
)
def test_verdict_equals_looking_at_each_second(judge: Judge, made: list[tuple[str, int, int]], second: int):
    """Who walks back second by second finds how long ago the place was paid for."""
    stays = [stay(zone, NOON + start * SECOND, NOON + (start + length) * SECOND) for zone, start, length in made]
    here = [range(start, start + length) for zone, start, length in made if zone != ELSEWHERE and start <= second]
    away = [range(start, start + length) for zone, start, length in made if zone == ELSEWHERE and start <= second]
    ago = next((ago for ago in range(second + 1) if any(second - ago in paid for paid in here)), None)
    if ago == 0:
        expected = ("paid", None)
    elif ago is not None and ago - 1 < 300:
        expected = ("grace", ago - 1)
    elif any(second in paid for paid in away):
        expected = ("wrong_zone", None)
    else:
        expected = ("unpaid", None) if ago is None else ("expired", ago - 1)
    found = judge([HERE, NEXT_DOOR], stays, NOON + second * SECOND)
    assert (found.verdict, found.expired_for_seconds) == expected


@pytest.mark.parametrize(
    ("text", "vehicle_class", "readings"),
    [
        ("30a 12345", None, [("30A-123.45", "car")]),
        ("29E11234", None, [("29E-112.34", "car"), ("29-E1 1234", "motorbike")]),
        ("29E11234", "motorbike", [("29-E1 1234", "motorbike")]),
        ("29-E1 1234", None, [("29-E1 1234", "motorbike")]),
        ("29mđ1 12345", None, [("29-MĐ1 123.45", "motorbike")]),
        ("29MÐ1-123.45", "motorbike", [("29-MĐ1 123.45", "motorbike")]),
        ("80-011-NG-01", None, [("80-011-NG-01", "car"), ("80-011-NG-01", "motorbike")]),
    ],
)
def test_plate_is_read_as_every_vehicle_it_can_be(text: str, vehicle_class: str | None, readings: list):
    assert enforcement.read_plate(text, vehicle_class) == readings


@pytest.mark.parametrize(("text", "vehicle_class"), [("", None), ("30O-12345", None), ("30A-123.45", "motorbike")])
def test_what_is_no_plate_of_the_class_is_refused(text: str, vehicle_class: str | None):
    with pytest.raises(errors.InvalidPlate):
        enforcement.read_plate(text, vehicle_class)


def test_large_vehicles_are_not_served():
    with pytest.raises(errors.ClassNotServed):
        enforcement.read_plate("30A-123.45", "large")


def test_capture_is_at_most_a_day_old_and_not_ahead_of_the_clocks_skew():
    tick = timedelta(microseconds=1)
    enforcement.check_instant(NOON + enforcement.CLOCK_SKEW, NOON)
    enforcement.check_instant(NOON - REACH + tick, NOON)
    with pytest.raises(errors.CapturedInFuture):
        enforcement.check_instant(NOON + enforcement.CLOCK_SKEW + tick, NOON)
    with pytest.raises(errors.CapturedTooLate):
        enforcement.check_instant(NOON - REACH, NOON)


@pytest.fixture
def months(connection: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """With partitions from September to December, in a transaction that is rolled back."""
    with connection.transaction(force_rollback=True):
        connection.execute("SELECT make_month_partitions('2026-09-14+07', 3)").fetchall()
        yield connection


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    history=st.lists(st.tuples(st.integers(0, 30 * 60), st.integers(0, 60 * 60)), max_size=8),
    last=st.sampled_from([None, "advisory", "strict"]),
    instant=st.integers(0, 20 * 24 * 60),
    vehicle_class=st.sampled_from(["car", "motorbike"]),
)
def test_sessions_about_an_instant_are_those_begun_and_not_long_gone(months, history, last, instant, vehicle_class):
    """One vehicle's sessions follow each other, over two months; some last for days, as only strict zones let them."""
    seen, clock, told = NOON + timedelta(minutes=instant), NOON, []
    with months.transaction(force_rollback=True):
        for pause, length in history:
            start = clock + timedelta(minutes=pause)
            clock = start + timedelta(minutes=length)
            made = past(months, start, clock, vehicle_class=vehicle_class, admission="strict")
            past(months, start, clock, plate="30A-999.99", vehicle_class=vehicle_class)
            told.append((made, start, min(start + MAX_STAY, clock), clock))
        if last is not None:
            over = clock + timedelta(hours=1)
            made = active(months, clock, over, admission=last, vehicle_class=vehicle_class)
            told.append((made, clock, over, over if last == "advisory" else None))
        found = seen_as(months, [HERE], [("30A-123.45", "car"), ("30A-123.45", "motorbike")], seen)
    verdict, seconds, ids = told_by(told, seen)
    assert (found.verdict, found.expired_for_seconds) == (verdict, seconds)
    assert found.session in ids


def told_by(
    told: list[tuple[UUID, datetime, datetime, datetime | None]], seen: datetime
) -> tuple[str, int | None, set[UUID | None]]:
    """The verdict by stays (id, start, paid until, gone at) of which all are looked at, and those that may tell it."""
    begun = [stay for stay in told if stay[1] <= seen]
    if running := {made for made, _, paid_until, _ in begun if seen < paid_until}:
        return "paid", None, {*running}
    ends = {
        made: gone_at if gone_at is not None and gone_at <= seen else paid_until
        for made, _, paid_until, gone_at in begun
        if gone_at is None or gone_at > seen - REACH
    }
    if not ends:
        return "unpaid", None, {None}
    ago = seen - max(ends.values())
    last = {made for made, end in ends.items() if end == seen - ago}
    return ("grace" if ago < GRACE else "expired"), ago // SECOND, {*last}


def fetched(connection: psycopg.Connection) -> dict[str, int]:
    """How many rows of each month this session has fetched by index, as far as it has not told others yet."""
    query = "SELECT relname, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname LIKE 'parking_session_2%'"
    return dict(connection.execute(query).fetchall())


def opened(connection: psycopg.Connection) -> set[str]:
    """The months whose sessions of a plate this transaction has looked for: it keeps the index locked."""
    query = """SELECT i.indrelid::regclass::text FROM pg_locks l JOIN pg_index i ON i.indexrelid = l.relation
        WHERE l.pid = pg_backend_pid() AND pg_get_indexdef(l.relation) LIKE '%(plate, vehicle_class, started_at)'"""
    return {name for (name,) in connection.execute(query)}


def test_a_check_reads_its_own_vehicle_in_the_months_that_can_tell_something(own_database: str):
    """
    |-- September --|-- 14 October: seen
           |--- a strict stay of another vehicle that ended today: read as well, but no plate is looked for in its month
    """
    with psycopg.connect(own_database, autocommit=True) as connection:
        connection.execute("SELECT make_month_partitions('2026-01-14+07', 12)").fetchall()

        def read() -> tuple[int, set[str]]:
            with connection.transaction(force_rollback=True):
                before = fetched(connection)
                made = seen_as(connection, ["HK-001"], [("30A-123.45", "car")], NOON)
                assert made.verdict == "expired"
                rows = fetched(connection)
                return sum(rows[name] - before[name] for name in rows), opened(connection)

        for other in range(100):
            past(connection, NOON - timedelta(hours=2), NOON - timedelta(hours=1), plate=f"30A-{other:03d}.99")
        past(connection, NOON - timedelta(hours=2), NOON - timedelta(hours=1))
        read()  # makes the plans, which opens all
        assert read() == (1, {"parking_session_2026_10"})
        past(connection, NOON - timedelta(days=20), NOON - timedelta(hours=3), plate="30A-999.99", admission="strict")
        assert read() == (2, {"parking_session_2026_10"})


class Counting:
    """A connection that counts its statements."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection, self.statements = connection, []

    def execute(self, query: str, *arguments: Any) -> psycopg.Cursor:
        self.statements.append(query)
        return self.connection.execute(query, *arguments)


def checked(connection: Any, held: places.Places, client: str, sighting: Sighting, received_at: datetime) -> Check:
    (made,) = enforcement.check(connection, [enforcement.look(held, client, sighting, received_at)])
    assert isinstance(made, Check)
    return made


def sighting(**changes: Any) -> Sighting:
    values = {"plate": "30a12345", "vehicle_class": None, "zone": HERE, "position": None, "captured_at": NOON}
    return Sighting(**values | changes)


def test_a_check_is_one_statement_and_is_stored_with_who_where_and_when(connection):
    session = active(connection, NOON - SECOND, NOON + SECOND)
    counting, received = Counting(connection), NOON + SECOND
    seen = sighting(position=Position(21.0205, 105.8505, 7.5))
    made = checked(counting, places.load(connection), "warden", seen, received)
    assert len(counting.statements) == 1
    row = connection.execute(
        "SELECT id, client, plate, vehicle_class, zone_code, verdict, reasons, session_id, expired_for_seconds, "
        "near_plates, ST_Y(position), ST_X(position), accuracy, captured_at, received_at FROM parking_check"
    ).fetchone()
    assert row == (
        made.id, "warden", "30A-123.45", "car", HERE, "paid", ["session"], session, None,
        [], 21.0205, 105.8505, 7.5, NOON, received,
    )  # fmt: skip


def test_a_refused_check_leaves_nothing(connection):
    held = places.load(connection)
    for changes in ({"plate": "?"}, {"zone": "XX-001"}, {"captured_at": NOON - REACH}):
        with pytest.raises(errors.ZoneError):
            checked(connection, held, "warden", sighting(**changes), NOON)
    assert connection.execute("SELECT count(*) FROM parking_check").fetchone() == (0,)


def test_an_open_strict_stay_was_paid_for_until_the_maximum_stay(connection):
    """
    -30 h |---- paid 24 h ----|-6 h -- overstay --| noon: stopped
    """
    past(connection, NOON - timedelta(hours=30), NOON, zone=ELSEWHERE, admission="strict")
    held = places.load(connection)

    def verdict(instant: datetime) -> tuple:
        seen = sighting(zone=ELSEWHERE, captured_at=instant)
        made = checked(connection, held, "warden", seen, NOON)
        return made.verdict, made.expired_for_seconds

    assert verdict(NOON - timedelta(hours=6) - SECOND) == ("paid", None)
    assert verdict(NOON - timedelta(hours=6)) == ("grace", 0)
    assert verdict(NOON - SECOND) == ("expired", 6 * 3600 - 1)
    assert verdict(NOON) == ("grace", 0)


@pytest.mark.parametrize("admission", ["advisory", "strict"])
def test_a_stopped_session_keeps_when_its_time_would_have_been_over(connection, admission):
    """
    11:00 |---- paid ----| noon: stopped        13:00 its time would have been over
    """
    over = NOON + timedelta(hours=1)
    session = active(connection, NOON - timedelta(hours=1), over, admission=admission)
    connection.execute("UPDATE zone_occupancy SET occupied = 1 WHERE (zone_code, vehicle_class) = (%s, 'car')", (HERE,))
    call = sessions.StopCall(session, "driver", None, NOON, "key")
    query = "SELECT outcome FROM stop_sessions(%s)"
    assert connection.execute(query, (sessions.stop_arguments([call]),)).fetchone() == ("stopped",)
    stored = connection.execute("SELECT over_at, ended_at FROM parking_session WHERE id = %s", (session,)).fetchone()
    assert stored == (over, NOON)
    held = places.load(connection)
    seen = [
        checked(connection, held, "warden", sighting(captured_at=instant), over).verdict
        for instant in (NOON - SECOND, NOON, NOON + GRACE, over)
    ]
    assert seen == ["paid", "grace", "expired", "expired"], "unused time pays for nothing"


def test_a_text_that_fits_two_vehicles_names_the_one_that_is_parked(connection):
    active(connection, NOON - SECOND, NOON + SECOND, plate="29-E1 1234", vehicle_class="motorbike")
    held = places.load(connection)
    made = checked(connection, held, "warden", sighting(plate="29E11234"), NOON)
    assert (made.verdict, made.plate, made.vehicle_class) == ("paid", "29-E1 1234", "motorbike")
    made = checked(connection, held, "warden", sighting(plate="29E11235"), NOON)
    assert (made.verdict, made.plate, made.vehicle_class) == ("unpaid", "29E-112.35", None)


def test_a_group_of_checks_has_an_answer_each_and_a_key_only_one(connection):
    """Four checks in one statement; the repeated key has the first answer, its other body none."""
    active(connection, NOON - SECOND, NOON + SECOND)
    held, counting = places.load(connection), Counting(connection)
    seen, other = sighting(), sighting(plate="30A-999.99")
    keys = [("k", b"1"), ("k", b"1"), ("k", b"2"), None]
    looks = [
        enforcement.look(held, "warden", one, NOON, key)
        for one, key in zip((seen, seen, other, other), keys, strict=True)
    ]
    first, again, conflict, free = enforcement.check(counting, looks)
    assert first == again and first.verdict == "paid"
    assert isinstance(conflict, errors.KeyConflict) and free.verdict == "unpaid"
    assert len(counting.statements) == 1
    assert connection.execute("SELECT count(*) FROM parking_check").fetchone() == (2,)

"""Rights: what is granted, until when it covers a stay, and how it ends."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from tests.zones.parked import SQUARE, at, insert, zone
from zones import errors, places, rights
from zones.places import Place, Places
from zones.rights import Right, Wanted

NOON = at("2026-10-14T12:00")
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
HERE, NEXT_DOOR, ELSEWHERE = "HK-001", "HK-002", "BD-001"


@pytest.fixture
def connection(engine: Engine, empty_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        zone(connection, HERE, car=2, motorbike=3)
        zone(connection, NEXT_DOOR, car=2)
        zone(connection, ELSEWHERE, "001", car=2)
        for code in ("001", "002"):
            outline = SQUARE.replace("POLYGON", "MULTIPOLYGON(") + ")"
            insert(
                connection, "district", code=code, name=code, geometry=f"SRID=4326;{outline}", valid_from="2018-01-01"
            )
        yield connection


@pytest.fixture
def held(connection: psycopg.Connection) -> Places:
    return places.load(connection)


@pytest.fixture
def here(held: Places) -> Place:
    return held.by_code[HERE]


def wanted(**changes: Any) -> Wanted:
    values = {
        "kind": "resident", "plate": "30A-123.45", "vehicle_class": "car", "zone": HERE, "district": None,
        "valid_from": NOON, "valid_until": NOON + HOUR, "reference": None,
    }  # fmt: skip
    return Wanted(**values | changes)


def grant(connection: psycopg.Connection, held: Places, now: datetime = NOON, **changes: Any) -> Right:
    return rights.grant(connection, held, wanted(**changes), "operator", now, "một lý do")


def covered(connection: psycopg.Connection, place: Place, instant: datetime, plate: str = "30A-123.45") -> Any:
    return rights.covered_until(connection, plate, "car", place, instant)


class TestCover:
    def test_a_right_covers_from_its_begin_until_before_its_end(self, connection, held, here):
        """
        12:00 |---- right ----| 13:00
        """
        grant(connection, held)
        end = NOON + HOUR
        assert covered(connection, here, NOON - SECOND) is None
        assert covered(connection, here, NOON) == end
        assert covered(connection, here, end - timedelta(microseconds=1)) == end
        assert covered(connection, here, end) is None

    def test_rights_that_follow_each_other_are_as_good_as_one(self, connection, held, here):
        """
        last year's |-----------| midnight
                       this year's |------------|     a week |--|     a day later
        """
        midnight, year, day = at("2026-01-01T00:00"), timedelta(days=365), timedelta(days=1)
        grant(connection, held, valid_from=midnight - year, valid_until=midnight)
        grant(connection, held, valid_from=midnight, valid_until=midnight + year)
        grant(connection, held, valid_from=midnight + year + day, valid_until=midnight + 2 * year, kind="official")
        assert covered(connection, here, midnight - SECOND) == midnight + year
        assert covered(connection, here, midnight) == midnight + year
        assert covered(connection, here, midnight + year) is None

    @pytest.mark.parametrize(
        ("where", "holds_in"),
        [
            ({"zone": HERE, "district": None}, {HERE}),
            ({"zone": None, "district": "002"}, {HERE, NEXT_DOOR}),
            ({"zone": None, "district": "001"}, {ELSEWHERE}),
            ({"zone": None, "district": None}, {HERE, NEXT_DOOR, ELSEWHERE}),
        ],
    )
    def test_a_right_holds_in_its_zone_its_district_or_the_whole_city(self, connection, held, where, holds_in):
        grant(connection, held, **where)
        assert {code for code, place in held.by_code.items() if covered(connection, place, NOON)} == holds_in

    def test_another_plate_or_class_has_no_right(self, connection, held, here):
        grant(connection, held, plate="29E11234", vehicle_class="motorbike")
        assert rights.covered_until(connection, "29-E1 1234", "motorbike", here, NOON) == NOON + HOUR
        assert covered(connection, here, NOON, "29E-112.34") is None
        grant(connection, held, plate="80-011-NG-01")
        assert covered(connection, here, NOON, "80-011-NG-01") == NOON + HOUR
        assert rights.covered_until(connection, "80-011-NG-01", "motorbike", here, NOON) is None

    def test_a_revoked_right_covers_until_it_was_revoked(self, connection, held, here):
        right = grant(connection, held)
        rights.revoke(connection, right.id, "operator", NOON + 10 * SECOND, "sai")
        assert covered(connection, here, NOON) == NOON + 10 * SECOND
        assert covered(connection, here, NOON + 10 * SECOND) is None

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(
                    [{"zone": HERE}, {"zone": None, "district": "002"}, {"zone": None}, {"zone": ELSEWHERE}]
                ),
                st.integers(0, 60), st.integers(1, 30), st.integers(1, 60) | st.none(),
            ),
            max_size=6,
        ),
        st.integers(0, 90),
    )  # fmt: skip
    def test_cover_equals_looking_at_each_second(self, connection, held, here, made, second):
        """Who walks on second by second, while any right lets him, comes as far."""
        seconds = set()
        with connection.transaction(force_rollback=True):
            for number, (where, begin, length, revoked) in enumerate(made):
                kind = rights.KINDS[number % len(rights.KINDS)]
                begins, ends = NOON + begin * SECOND, NOON + (begin + length) * SECOND
                try:
                    with connection.transaction():
                        right = grant(connection, held, kind=kind, valid_from=begins, valid_until=ends, **where)
                except errors.AlreadyGranted:
                    continue
                if revoked is not None and revoked < begin + length:
                    rights.revoke(connection, right.id, "operator", NOON + revoked * SECOND, "sai")
                    length = max(0, revoked - begin)
                if where.get("zone") != ELSEWHERE:
                    seconds |= {*range(begin, begin + length)}
            found = covered(connection, here, NOON + second * SECOND)
        end = next(n for n in range(second, 200) if n not in seconds)
        assert found == (NOON + end * SECOND if end > second else None)


class TestGrant:
    def test_a_right_is_as_it_was_asked_for(self, connection, held):
        right = grant(connection, held, plate="30a12345", reference="GP-1", valid_from=NOON + SECOND)
        assert right._replace(id=None) == Right(
            None, "resident", "30A-123.45", "car", HERE, None, NOON + SECOND, NOON + HOUR, "upcoming", "GP-1",
            "một lý do", NOON, "operator", None, None, None,
        )  # fmt: skip
        assert rights.find(connection, right.id, NOON) == right

    @pytest.mark.parametrize("plate", ["29MĐ112345", "29 mđ1 123.45", "29-MÐ1 123.45", "２９ＭĐ1-12345"])
    def test_a_plate_is_the_same_however_it_is_typed(self, connection, held, plate):
        assert grant(connection, held, plate=plate, vehicle_class="motorbike").plate == "29-MĐ1 123.45"

    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"plate": "30O-123.45"}, errors.InvalidPlate),
            ({"vehicle_class": "motorbike"}, errors.InvalidPlate),
            ({"vehicle_class": "large"}, errors.ClassNotServed),
            ({"zone": "XX-1"}, errors.UnknownZone),
            ({"zone": None, "district": "999"}, errors.UnknownDistrict),
        ],
    )
    def test_what_nobody_can_have_is_refused(self, connection, held, changes, error):
        with pytest.raises(error):
            grant(connection, held, **changes)
        assert rights.find_all(connection, NOON, 10) == []

    def test_the_same_right_twice_is_refused_but_not_another(self, connection, held):
        grant(connection, held)
        with pytest.raises(errors.AlreadyGranted):
            grant(connection, held, valid_from=NOON + HOUR - SECOND, valid_until=NOON + 3 * HOUR)
        for other in (
            {"valid_from": NOON + HOUR, "valid_until": NOON + 2 * HOUR}, {"kind": "disabled"}, {"zone": NEXT_DOOR},
            {"zone": None}, {"zone": None, "district": "002"}, {"plate": "30A-123.46"},
        ):  # fmt: skip
            grant(connection, held, **other)

    def test_a_revoked_right_may_be_granted_again(self, connection, held):
        right = grant(connection, held)
        rights.revoke(connection, right.id, "operator", NOON, "sai")
        assert grant(connection, held).id != right.id

    def test_two_operators_at_once_grant_a_right_once(self, held, connection, empty_database):
        def try_to(number: int) -> Any:
            with psycopg.connect(empty_database, autocommit=True) as own:
                try:
                    return rights.grant(own, held, wanted(), f"operator-{number}", NOON, "một lý do").granted_by
                except errors.AlreadyGranted:
                    return None

        with ThreadPoolExecutor(6) as pool:
            found = [by for by in pool.map(try_to, range(6)) if by]
        assert [right.granted_by for right in rights.find_all(connection, NOON, 10)] == found and len(found) == 1


class TestRevoke:
    def test_the_first_revocation_stands(self, connection, held):
        right = grant(connection, held)
        revoked, is_new = rights.revoke(connection, right.id, "operator", NOON + SECOND, "chuyển nhà")
        assert is_new and (revoked.state, revoked.revoked_at) == ("revoked", NOON + SECOND)
        assert (revoked.revoked_by, revoked.revocation) == ("operator", "chuyển nhà")
        assert rights.revoke(connection, right.id, "another", NOON + 2 * SECOND, "khác") == (revoked, False)

    def test_what_is_over_or_never_was_is_not_revoked(self, connection, held):
        right = grant(connection, held)
        with pytest.raises(errors.RightOver):
            rights.revoke(connection, right.id, "operator", NOON + HOUR, "muộn")
        assert rights.find(connection, right.id, NOON).revoked_at is None
        with pytest.raises(errors.UnknownRight):
            rights.revoke(connection, uuid4(), "operator", NOON, "sai")

    def test_two_operators_at_once_revoke_once(self, connection, held, empty_database):
        right = grant(connection, held)

        def try_to(number: int) -> tuple[Right, bool]:
            with psycopg.connect(empty_database, autocommit=True) as own:
                return rights.revoke(own, right.id, f"operator-{number}", NOON + number * SECOND, "sai")

        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(try_to, range(6)))
        assert sorted(is_new for _, is_new in found) == [False] * 5 + [True]
        assert len({each for each, _ in found}) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE parking_right SET valid_until = valid_until + interval '1 day'",
        "UPDATE parking_right SET plate = '30A-999.99', revoked_at = now(), revoked_by = 'x', revocation = 'x'",
        "DELETE FROM parking_right",
        "TRUNCATE parking_right",
    ],
)
def test_a_right_is_only_revoked_whoever_asks(connection, held, statement):
    grant(connection, held)
    with pytest.raises(psycopg.errors.RestrictViolation):
        connection.execute(statement)


def test_a_revocation_is_not_taken_back(connection, held):
    rights.revoke(connection, grant(connection, held).id, "operator", NOON, "sai")
    with pytest.raises(psycopg.errors.RestrictViolation):
        connection.execute("UPDATE parking_right SET revoked_at = NULL, revoked_by = NULL, revocation = NULL")


@pytest.mark.parametrize(
    "change",
    [
        {"zone_code": HERE, "district_code": "002"}, {"valid_until": NOON}, {"kind": "friend"},
        {"vehicle_class": "large"},
        {"revoked_at": NOON}, {"revoked_by": "x", "revocation": "x"}, {"plate": ""}, {"reason": ""},
    ],
)  # fmt: skip
def test_the_database_holds_the_rules(connection, change):
    values = {
        "id": uuid4(), "kind": "event", "plate": "30A-123.45", "vehicle_class": "car", "valid_from": NOON,
        "valid_until": NOON + HOUR, "reason": "r", "granted_at": NOON, "granted_by": "operator",
    }  # fmt: skip
    insert(connection, "parking_right", **values)
    with pytest.raises(psycopg.errors.CheckViolation):
        insert(connection, "parking_right", **values | {"id": uuid4(), "kind": "monthly"} | change)


class TestList:
    def test_each_filter_narrows_and_states_change_at_their_instants(self, connection, held):
        first = grant(connection, held, NOON - 3 * SECOND)
        bike = {"plate": "29E11234", "vehicle_class": "motorbike", "zone": None, "district": "002"}
        second = grant(connection, held, NOON - 2 * SECOND, **bike)
        third = grant(connection, held, NOON - SECOND, zone=None)
        rights.revoke(connection, third.id, "operator", NOON, "sai")

        def found(now: datetime = NOON, limit: int = 10, **filters: Any) -> list[Any]:
            return [right.id for right in rights.find_all(connection, now, limit, **filters)]

        assert found() == [third.id, second.id, first.id]
        assert found(limit=1) == [third.id] and found(before=second.id) == [first.id]
        assert found(texts=["29E-112.34", "29-E1 1234"]) == [second.id]
        assert found(zone=HERE) == [first.id] and found(zone=NEXT_DOOR) == []
        assert found(district="002") == [second.id]
        for now, valid, upcoming, over in (
            (NOON - SECOND, [], [second.id, first.id], []),
            (NOON, [second.id, first.id], [], []),
            (NOON + HOUR - SECOND, [second.id, first.id], [], []),
            (NOON + HOUR, [], [], [second.id, first.id]),
        ):
            assert [found(now, state=state) for state in ("valid", "upcoming", "over")] == [valid, upcoming, over]
            assert found(now, state="revoked") == [third.id]

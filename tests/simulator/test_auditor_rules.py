"""The auditor's own arithmetic: intervals, prices, the books of one session."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from app.database import sqlalchemy_url
from billing import plans
from billing.rates import RateTable, price
from simulator.answers import Answer, Clock, RunHeader, ZoneFacts, microseconds, rfc3339
from simulator.auditor import checks, prices, rules
from simulator.auditor.districts import charged, peak
from simulator.auditor.model import Book
from simulator.auditor.outcome import expected
from simulator.auditor.prices import HOUR, MINUTE, NoPrice, area_of, fee
from simulator.auditor.rules import Possible, busiest
from simulator.auditor.verdict import Verdict

SEVEN = microseconds("2026-11-23T07:00:00+07:00")
ADVISORY = ZoneFacts("002", "Phố Hàng Bông", "core", "advisory", 720, {"car": 3}, {"car": 0})
STRICT = ZoneFacts("002", "Phố Hàng Bông", "core", "strict", 720, {"car": 1}, {"car": 0})


def at(clock: str, day: int = 23) -> int:
    return microseconds(f"2026-11-{day:02d}T{clock}+07:00")


# --- prices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hours", "owed"),
    [(0, 25_000), (1, 25_000), (2, 50_000), (3, 85_000), (4, 120_000), (5, 165_000), (8, 300_000), (9, 345_000)],
)
def test_golden_bills_of_the_core_area(hours: int, owed: int) -> None:
    assert fee("core", "car", SEVEN, SEVEN + hours * HOUR) == owed


@pytest.mark.parametrize(
    ("start", "end", "owed"),
    [
        (at("18:00:00"), at("06:00:00", 24), 150_000),  # a whole night: the cap
        (at("17:00:00"), at("19:00:00"), 50_000),  # an hour by day, one by night
        (at("17:30:00"), at("18:30:00"), 25_000),  # the hour that straddles the cut belongs to the day
        (at("17:00:00"), at("07:00:00", 24), 25_000 + 150_000 + 45_000),  # hour 14 of the stay is the third step
        (SEVEN, SEVEN + HOUR + 1, 50_000),
    ],
)
def test_a_night_has_its_own_price_and_cap(start: int, end: int, owed: int) -> None:
    assert fee("core", "car", start, end) == owed


@pytest.mark.parametrize(
    ("start", "end", "owed"),
    [
        (SEVEN, SEVEN, 5_000),
        (SEVEN, at("18:00:00"), 5_000),  # half-open: six o'clock is not yet the night
        (SEVEN, at("18:00:00") + 1, 12_000),  # 5,000 + 8,000, or 24 h
        (at("20:00:00"), at("05:00:00", 24), 8_000),
        (at("17:00:00"), at("17:00:00", 24), 12_000),
        (at("17:00:00"), at("17:30:00", 24), 17_000),  # 24 h and a day turn
        (at("17:00:00"), at("19:00:00", 24), 24_000),
    ],
)
def test_a_motorbike_pays_by_the_turn(start: int, end: int, owed: int) -> None:
    assert fee("restricted", "motorbike", start, end) == owed


def test_what_is_not_on_the_list_has_no_price() -> None:
    with pytest.raises(NoPrice):
        fee("elsewhere", "car", SEVEN, SEVEN)
    with pytest.raises(NoPrice):
        fee("core", "large", SEVEN, SEVEN)


@pytest.mark.parametrize(
    ("district", "street", "area"),
    [
        ("002", "Phố Trần Hưng Đạo", "restricted"),
        ("002", "Hai Bà Trưng", "restricted"),
        ("007", "Phố Trần Hưng Đạo", "core"),  # the part of it that lies outside Hoàn Kiếm
        ("002", "Phố Hàng Bông", "core"),
        ("019", "Đường Lê Đức Thọ", "beyond_ring_3"),
        ("005", "Phố Duy Tân", "inside_ring_3"),
        ("999", "Main Street", None),
    ],
)
def test_a_street_tells_its_price_area(district: str, street: str, area: str | None) -> None:
    assert area_of(district, street) == area


stays = st.tuples(
    st.integers(0, 6 * 365 * 24 * 60).map(lambda minutes: microseconds("2018-01-02T00:00:00+07:00") + minutes * MINUTE),
    st.one_of(st.integers(0, 72 * 60).map(lambda minutes: minutes * MINUTE), st.integers(0, 72 * HOUR)),
)


@pytest.fixture(scope="module")
def shipped_rates(city_database: str) -> Iterator[RateTable]:
    engine = create_engine(sqlalchemy_url(city_database))
    with engine.connect() as connection:
        yield plans.load(connection)
    engine.dispose()


@given(stays, st.sampled_from(sorted(prices.CARS)), st.sampled_from(["car", "motorbike"]))
def test_two_implementations_of_the_decree_agree(
    shipped_rates: RateTable, stay: tuple[int, int], area: str, vehicle_class: str
) -> None:
    """The auditor's loop and billing's were written apart; where they differ one of them is wrong."""
    start, length = stay
    begin = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=start)
    bill = price(shipped_rates.at(area, vehicle_class, begin), begin, begin + timedelta(microseconds=length))
    assert fee(area, vehicle_class, start, start + length) == bill.total


@given(stays, st.integers(0, 30 * HOUR), st.sampled_from(["car", "motorbike"]))
def test_a_longer_stay_is_never_cheaper(stay: tuple[int, int], more: int, vehicle_class: str) -> None:
    start, length = stay
    assert (
        0
        < fee("core", vehicle_class, start, start + length)
        <= fee("core", vehicle_class, start, start + length + more)
    )


# --- intervals ------------------------------------------------------------------------------------------------------

intervals = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda pair: (min(pair), max(pair) + 1)), max_size=12
)


def test_one_that_leaves_as_another_comes_is_no_overlap() -> None:
    """|=====|
    |=====|"""
    assert busiest([(0.0, 5.0), (5.0, 9.0)])[0] == 1
    assert busiest([(0.0, 5.1), (5.0, 9.0)]) == (2, 5.0)
    assert busiest([(3.0, 3.0)])[0] == 0


@given(intervals)
def test_busiest_is_what_a_look_at_every_instant_finds(held: list[tuple[int, int]]) -> None:
    looked = max((sum(begin <= now < end for begin, end in held) for now in range(32)), default=0)
    assert busiest([(float(b), float(e)) for b, e in held])[0] == looked
    assert peak(held) == looked


@given(intervals, st.integers(0, 30), st.integers(0, 5))
def test_possible_counts_take_in_whoever_may_have_been_there(
    held: list[tuple[int, int]], begin: int, length: int
) -> None:
    """Closed at both ends: what leaves at the instant of the request may still have stood there, and what comes too."""
    most = Possible(2, [(float(b), float(e)) for b, e in held]).most(float(begin), float(begin + length))
    looked = max(sum(b <= now <= e for b, e in held) for now in range(begin, begin + length + 1))
    assert most == 2 + looked


# --- the books ------------------------------------------------------------------------------------------------------


def book(zone: ZoneFacts = ADVISORY) -> Book:
    clock = Clock(business=SEVEN, real=0.0, speed=60.0, error=0.001)  # a real second is a business minute
    header = RunHeader(
        run="r", base_url="http://x", trace="t", start=SEVEN, clock=clock, drivers=1, zones={"Z": zone}, districts={}
    )
    return Book(header, Verdict())


def answer(action: str, sent: float, status: int, body: dict[str, Any], **more: Any) -> Answer:
    fields: dict[str, Any] = {
        "due": sent, "ready": sent, "sent": sent, "answered": sent + 0.5, "tries": 1, "action": action,
        "plate": "30A-000.01", "vehicle_class": "car", "zone": "Z", "minutes": None, "key": "k", "driver": 0,
        "session": None, "captured_at": None, "status": status, "body": json.dumps(body),
    }  # fmt: skip
    return Answer(**{**fields, **more})


def session(started: float, session_id: str = "s1", minutes: int | None = None, **more: Any) -> dict[str, Any]:
    began = SEVEN + round(started * MINUTE)
    ends = None if minutes is None else began + minutes * MINUTE
    owed = fee("core", "car", began, ends or began)
    document = {
        "id": session_id, "state": "running", "zone": "Z", "plate": "30A-000.01", "vehicle_class": "car",
        "started_at": rfc3339(began), "ends_at": ends and rfc3339(ends), "ended_at": None,
        "fee": {"amount": owed, "currency": "VND"},
    }  # fmt: skip
    return {**document, **more}


def started(zone: ZoneFacts, minutes: int | None = None) -> Book:
    opened = book(zone)
    opened.take(answer("start", 0.0, 201, session(0.2, minutes=minutes), minutes=minutes))
    return opened


def settled(opened: Book) -> Book:
    opened.close()
    rules.check(opened)
    return opened


def test_an_advisory_session_is_over_at_the_end_of_its_time() -> None:
    opened = settled(started(ADVISORY, minutes=60))
    (one,) = opened.sessions.values()
    assert expected(opened, one, one.over_at - 1) == ("running", None, 25_000)
    assert expected(opened, one, one.over_at) == ("expired", one.over_at, 25_000)
    assert not opened.standing(one, one.over_at)
    assert charged(opened, one, one.over_at) == 0
    assert charged(opened, one, one.over_at + 1) == 25_000
    assert opened.verdict.kept == []


def test_a_strict_session_stays_and_goes_on_costing_until_it_is_stopped() -> None:
    opened = settled(started(STRICT, minutes=60))
    (one,) = opened.sessions.values()
    assert expected(opened, one, one.over_at) == ("expired", None, 25_000)
    assert expected(opened, one, one.over_at + 1) == ("expired", None, 50_000)
    assert opened.standing(one, one.over_at + HOUR)
    assert charged(opened, one, one.over_at + HOUR) == 0


def free(zone: ZoneFacts, owed: int = 0) -> Book:
    """An hour of the method `free`."""
    opened = book(zone)
    said = session(0.2, minutes=60, payment_method="free", fee={"amount": owed, "currency": "VND"})
    opened.take(answer("start", 0.0, 201, said, minutes=60))
    return settled(opened)


def test_a_free_session_costs_nothing_while_its_time_lasts() -> None:
    for zone, later in ((ADVISORY, 0), (STRICT, None)):  # only the right says what an overstay costs
        opened = free(zone)
        (one,) = opened.sessions.values()
        assert opened.verdict.kept == []
        assert expected(opened, one, one.over_at - 1).fee == expected(opened, one, one.over_at).fee == 0
        assert expected(opened, one, one.over_at + HOUR).fee == later
    assert [found.kind for found in free(ADVISORY, owed=25_000).verdict.kept] == ["fee"]


def test_without_minutes_the_maximum_stay_is_the_end() -> None:
    opened = settled(started(ADVISORY))
    (one,) = opened.sessions.values()
    assert one.over_at == one.started_at + 720 * MINUTE
    assert expected(opened, one, one.started_at + 90 * MINUTE) == ("running", None, 50_000)


@pytest.mark.parametrize(("zone", "ended"), [(ADVISORY, 60.2), (STRICT, 90.2)])
def test_a_new_start_closes_a_session_whose_time_is_over(zone: ZoneFacts, ended: float) -> None:
    """Advisory: at the end of its time. Strict: when the plate was seen again, with its overstay."""
    opened = started(zone, minutes=60)
    opened.take(answer("start", 90.0, 201, session(90.2, "s2")))
    settled(opened)
    first = opened.sessions["s1"]
    assert opened.verdict.kept == []
    assert expected(opened, first, SEVEN + 200 * MINUTE)[:2] == ("expired", SEVEN + round(ended * MINUTE))


def test_a_new_start_within_the_time_is_a_doubled_session() -> None:
    opened = started(ADVISORY, minutes=60)
    opened.take(answer("start", 30.0, 201, session(30.2, "s2")))
    assert settled(opened).verdict.by_kind == {"doubled": 1}


def test_a_start_that_met_the_stop_of_the_last_session_is_no_doubled_session() -> None:
    """The stop was sent before the start was answered: it may have been first.

    stop   sent |-------| answered
    start          |-------| answered
    """
    opened = started(ADVISORY)
    stopped = {"state": "ended", "ended_at": rfc3339(SEVEN + round(30.3 * MINUTE))}
    opened.take(answer("start", 30.1, 201, session(30.2, "s2")))
    opened.take(answer("stop", 30.0, 200, session(0.2, **stopped), session="s1"))
    assert settled(opened).verdict.kept == []


def test_a_place_given_back_may_be_taken_while_the_stop_is_under_way() -> None:
    opened = started(STRICT)
    stopped = {"state": "ended", "ended_at": rfc3339(SEVEN + round(30.2 * MINUTE))}
    opened.take(answer("start", 30.2, 201, session(30.3, "s2", plate="30A-000.02"), plate="30A-000.02"))
    opened.take(answer("stop", 30.0, 200, session(0.2, **stopped), session="s1"))
    assert settled(opened).verdict.kept == []


def test_a_place_taken_before_it_was_given_back_is_an_over_admission() -> None:
    opened = started(STRICT)
    opened.take(answer("start", 30.0, 201, session(30.2, "s2", plate="30A-000.02"), plate="30A-000.02"))
    stopped = {"state": "ended", "ended_at": rfc3339(SEVEN + round(40.2 * MINUTE))}
    opened.take(answer("stop", 40.0, 200, session(0.2, **stopped), session="s1"))
    assert settled(opened).verdict.by_kind == {"over_admission": 1}


@pytest.mark.parametrize(
    ("status", "tries", "found"),
    [
        (409, 1, {"over_admission": 1}),
        (409, 2, {}),  # the first try may have been done, and undone since
        (402, 1, {}),  # the card was asked after the start had closed it
        (503, 1, {}),  # nobody knows
    ],
)
def test_a_refused_start_ends_no_strict_overstay(status: int, tries: int, found: dict[str, int]) -> None:
    """The garage has one place, and the overstay is never stopped: another vehicle is in its place."""
    opened = started(STRICT, minutes=60)
    opened.take(answer("start", 90.0, status, {"code": "owes_too_much"}, tries=tries))
    opened.take(answer("start", 91.0, 201, session(91.2, "s2", plate="30A-000.02"), plate="30A-000.02"))
    opened.close()
    rules._check_admissions(opened)
    assert opened.verdict.by_kind == found


def refused(code: str, sent: float = 30.0, **more: Any) -> Answer:
    action = more.pop("action", "start")
    return answer(action, sent, 409, {"code": code}, **more)


@pytest.mark.parametrize(
    ("opened", "refusal", "right"),
    [
        (started(STRICT), refused("zone_full", plate="30A-000.02"), True),
        (book(STRICT), refused("zone_full"), False),
        (started(ADVISORY), refused("zone_full", plate="30A-000.02"), False),
        (started(ADVISORY), refused("already_parked"), True),
        (started(ADVISORY), refused("already_parked", plate="30A-000.02"), False),
        (started(ADVISORY, 10), refused("already_parked"), False),
        (started(ADVISORY, 10), refused("session_expired", session="s1", action="stop"), True),
        (started(ADVISORY, 60), refused("session_expired", session="s1", action="stop"), False),
        (started(STRICT, 10), refused("session_expired", session="s1", action="stop"), False),
        (started(STRICT, 10), refused("session_expired", session="s1", action="extend", minutes=5), True),
        (started(ADVISORY), refused("session_ended", session="s1", action="stop"), False),
        (started(ADVISORY), refused("not_prepaid", session="s1", action="extend", minutes=5), True),
        (started(ADVISORY, 60), refused("not_prepaid", session="s1", action="extend", minutes=5), False),
        (started(ADVISORY, 60), refused("max_stay_exceeded", session="s1", action="extend", minutes=661), True),
        (started(ADVISORY, 60), refused("max_stay_exceeded", session="s1", action="extend", minutes=660), False),
        (book(), refused("max_stay_exceeded", minutes=721), True),
        (book(), refused("max_stay_exceeded", minutes=720), False),
        (book(), refused("unknown_zone", vehicle_class="motorbike"), True),
        (book(), refused("unknown_zone"), False),
        (book(), refused("invalid_body"), False),
        (started(ADVISORY), refused("not_found", session="s1", action="stop"), False),
    ],
    ids=lambda value: value.body if isinstance(value, Answer) else "",
)
def test_a_refusal_must_follow_from_the_facts(opened: Book, refusal: Answer, right: bool) -> None:
    opened.take(refusal)
    settled(opened)
    assert (opened.verdict.kept == []) is right
    assert opened.errors == (0 if right else 1)


def test_a_zone_with_the_prices_of_another_area_is_found() -> None:
    wrong = ZoneFacts("002", "Phố Trần Hưng Đạo", "core", "advisory", 720, {"car": 3}, {"car": 0})
    assert settled(book(wrong)).verdict.by_kind == {"rate_area": 1}


def test_another_citys_areas_are_noted_and_not_priced() -> None:
    elsewhere = ZoneFacts("B1", "Ernst-Reuter-Platz", "berlin", "advisory", 720, {"car": 3}, {"car": 0})
    opened = settled(started(elsewhere))
    assert opened.verdict.kept == []
    assert opened.verdict.notes == ["no price for a car in berlin"]


# --- wardens --------------------------------------------------------------------------------------------------------


def seen(opened: Book, minutes: float, verdict: str, of: str | None, over: int | None = None, **more: Any) -> Book:
    """The book with one answered check: seen at so many business minutes after seven."""
    at_business = SEVEN + round(minutes * MINUTE)
    body = {
        "id": "c1", "plate": "30A-000.01", "zone": "Z", "verdict": verdict, "session": of, "expired_for_seconds": over,
        "captured_at": rfc3339(at_business),
    }  # fmt: skip
    opened.take(answer("check", more.pop("sent", minutes), 201, body, captured_at=at_business, **more))
    return settled(opened)


def stopped_after_an_hour() -> Book:
    opened = started(ADVISORY)
    ended = {"state": "ended", "ended_at": rfc3339(SEVEN + round(60.2 * MINUTE))}
    opened.take(answer("stop", 60.0, 200, session(0.2, **ended), session="s1"))
    return opened


@pytest.mark.parametrize(
    ("opened", "minutes", "verdict", "of", "over"),
    [
        (started(ADVISORY), 30.0, "paid", "s1", None),
        (started(ADVISORY, 60), 60.1, "paid", "s1", None),
        (started(ADVISORY, 60), 60.2, "grace", "s1", 0),  # half-open: at its end a session runs no more
        (started(ADVISORY, 60), 65.1, "grace", "s1", 294),
        (started(ADVISORY, 60), 65.2, "expired", "s1", 300),
        (started(STRICT, 60), 90.2, "expired", "s1", 1800),
        (stopped_after_an_hour(), 59.0, "paid", "s1", None),
        (stopped_after_an_hour(), 62.2, "grace", "s1", 120),
        (stopped_after_an_hour(), 90.2, "expired", "s1", 1800),
        (book(), 30.0, "unpaid", None, None),
    ],
)
def test_a_warden_is_told_what_the_sessions_say(
    opened: Book, minutes: float, verdict: str, of: str | None, over: int | None
) -> None:
    assert seen(opened, minutes, verdict, of, over).verdict.kept == []


@pytest.mark.parametrize(
    ("minutes", "verdict", "of", "over"),
    [(30.0, "unpaid", None, None), (30.0, "paid", "s2", None), (65.2, "grace", "s1", 300), (65.2, "expired", "s1", 1)],
)
def test_a_wrong_verdict_is_found(minutes: float, verdict: str, of: str | None, over: int | None) -> None:
    assert seen(started(ADVISORY, 60), minutes, verdict, of, over).verdict.by_kind == {"check": 1}


def test_a_session_in_another_zone_is_the_wrong_zone() -> None:
    opened = started(ADVISORY)
    opened.header.zones["Y"] = ADVISORY
    elsewhere = answer("check", 30.0, 201, {}, zone="Y", captured_at=SEVEN + 30 * MINUTE)
    opened.close()
    assert checks.possible(opened, elsewhere, SEVEN + 30 * MINUTE) == {checks.Expected("wrong_zone", "s1", None)}


@pytest.mark.parametrize("verdict", ["paid", "grace"])
def test_a_check_that_met_the_stop_may_be_answered_either_way(verdict: str) -> None:
    """The stop was under way while the warden asked, about an instant just after it.

    stop    sent 60 |------| answered 60.5        ended at 60.2
    check      sent 60.3 |------|                 seen at 60.25
    """
    of, over = ("s1", None) if verdict == "paid" else ("s1", 3)
    assert seen(stopped_after_an_hour(), 60.25, verdict, of, over, sent=60.3).verdict.kept == []


def test_a_check_that_met_an_extend_may_be_answered_either_way() -> None:
    opened = started(ADVISORY, 60)
    longer = session(0.2, minutes=90, fee={"amount": 50_000, "currency": "VND"})
    opened.take(answer("extend", 60.0, 200, longer, session="s1", minutes=30))
    opened.close()
    warden = answer("check", 60.3, 201, {}, captured_at=SEVEN + round(60.25 * MINUTE))
    found = checks.possible(opened, warden, SEVEN + round(60.25 * MINUTE))
    assert {one.verdict for one in found} == {"paid", "grace"}

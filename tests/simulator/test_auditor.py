"""The auditor against a stand-in service: silent while all is right, loud for each thing that can go wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from simulator.answers import Answer, AnswersReader, AnswersWriter
from simulator.auditor import Audit, audit
from simulator.trace import Event
from tests.simulator.fake_service import FakeService, serving
from tests.simulator.runs import event, run, write_keys

MORNING = [
    event(0.0, "v1", "start"),
    event(1.0, "v2", "start", minutes=30),
    event(2.0, "v3", "start", "STR-1"),
    event(3.0, "v4", "start", "STR-1", minutes=1),
    event(4.0, "v5", "start", minutes=1),
    event(20.0, "v6", "start", "STR-1"),  # full
    event(30.0, "v2", "extend", minutes=30),
    event(40.0, "v1", "stop"),
    event(50.0, "v3", "stop", "STR-1"),
    event(55.0, "v2", "check"),
    event(95.0, "v7", "start", "STR-1"),  # where v3 stood
    event(99.0, "w8", "start", vehicle_class="motorbike", plate="29-AB 123.45"),
]
LATE_STOP = event(180.0, "v5", "stop")  # its minute is over


@pytest.fixture(autouse=True)
def _no_need_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in keeps no copies that could be late."""
    monkeypatch.setattr("simulator.auditor.interface.QUIET_SECONDS", 0.0)


def play(
    folder: Path, service: FakeService, events: list[Event] = MORNING, tamper: Callable[[], None] | None = None
) -> Audit:
    """Replay, perhaps change something behind everybody's back, audit."""
    with serving(service) as url:
        replay_in_order(folder, url, service, events)
        if tamper is not None:
            tamper()
        return audit([folder / "answers.jsonl"], write_keys(folder))


def replay_in_order(folder: Path, url: str, service: FakeService, events: list[Event]) -> None:
    """The service takes the events up as they stand in the trace, however the machine mixes them; the late stop is
    late."""
    service.order = [(each.action, each.plate) for each in events]
    service.late = {LATE_STOP.plate} if LATE_STOP in events else set()
    run(folder, url, events)


def rewrite(folder: Path, change: Callable[[list[Answer]], list[Answer]]) -> None:
    """Change the record of a run."""
    path = folder / "answers.jsonl"
    with AnswersReader(path) as reader:
        kept, header = change(list(reader)), reader.header
        ending = reader.ending
    writer = AnswersWriter(path, header)
    for answer in kept:
        writer.write(answer)
    writer.close(ending)


def kinds(found: Audit) -> set[str]:
    return set(found.verdict.by_kind)


def test_a_right_service_has_no_divergences(tmp_path: Path) -> None:
    found = play(tmp_path, FakeService(speed=100), [*MORNING, LATE_STOP])
    assert found.verdict.kept == []
    assert found.book.codes == {"zone_full": 1, "session_expired": 1}
    assert found.book.errors == 0
    assert found.verdict.compared["sessions in the API"] == 7
    assert found.verdict.compared["refusals"] == 2
    assert found.verdict.compared["fees in answers"] == 10


def test_figures_by_district_come_from_the_book(tmp_path: Path) -> None:
    """v1 and v3 were stopped, v5 ran out: an hour of 25,000 each. Cars at once: v1-v5, of 5 bays."""
    found = play(tmp_path, FakeService(speed=100), [*MORNING, LATE_STOP])
    (row,) = found.districts
    assert row["sessions"] == 7
    assert row["revenue"] == 3 * 25_000
    assert row["peak_occupancy"] == 1.0
    assert row["p99_ms"] >= row["p50_ms"] > 0


def test_one_vehicle_too_many_is_an_over_admission(tmp_path: Path) -> None:
    events = [event(float(n), f"v{n}", "start", "STR-1") for n in (1, 2, 3)]  # nobody leaves
    found = play(tmp_path, FakeService(speed=100, capacity_slack=1), events)
    assert found.verdict.by_kind["over_admission"] == 1
    assert "3 vehicles" in str(found.verdict.kept[0])


def test_a_zone_that_was_not_full_must_not_refuse(tmp_path: Path) -> None:
    events = [event(float(n), f"v{n}", "start", "STR-1") for n in (1, 2)]
    found = play(tmp_path, FakeService(speed=100, capacity_slack=-1), events)
    assert found.verdict.by_kind["refusal"] == 1
    assert any("zone_full, but at most 1 of 2" in str(divergence) for divergence in found.verdict.kept)
    assert found.book.errors == found.verdict.by_kind["refusal"]


def test_already_parked_must_be_true(tmp_path: Path) -> None:
    service = FakeService(speed=100)
    service.begin = lambda client, body: (409, {"code": "already_parked"})  # type: ignore[method-assign]
    found = play(tmp_path, service, [event(0.0, "v1", "start")])
    assert "already_parked, but the vehicle had no session then" in str(found.verdict.kept[0])


def test_a_second_start_of_a_running_plate_is_refused_rightly(tmp_path: Path) -> None:
    events = [event(0.0, "v1", "start"), event(20.0, "v2", "start", plate="30A-000.01")]
    found = play(tmp_path, FakeService(speed=100), events)
    assert found.verdict.kept == []
    assert found.book.codes == {"already_parked": 1}


def test_two_sessions_of_one_plate_at_once_are_found(tmp_path: Path) -> None:
    service = FakeService(speed=100)
    honest = service.begin

    def forgetful(client: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        remembered, service.sessions = service.sessions, {}
        answer = honest(client, body)
        service.sessions = remembered | service.sessions
        return answer

    service.begin = forgetful  # type: ignore[method-assign]
    events = [event(0.0, "v1", "start"), event(20.0, "v1", "start")]  # sent once the first is answered
    assert kinds(play(tmp_path, service, events)) == {"doubled"}


def test_a_doubled_charge_is_found(tmp_path: Path) -> None:
    def twice(action: str, document: dict[str, Any]) -> None:
        if action == "stop":
            document["fee"] = {"amount": document["fee"]["amount"] * 2, "currency": "VND"}

    found = play(tmp_path, FakeService(speed=100, fault=twice))
    assert found.verdict.by_kind["fee"] == 2
    assert "50000, expected 25000" in str(found.verdict.kept[0])


def test_one_dong_is_found(tmp_path: Path) -> None:
    def more(action: str, document: dict[str, Any]) -> None:
        if action == "start" and document["plate"] == "30A-000.02":
            document["fee"] = {"amount": document["fee"]["amount"] + 1, "currency": "VND"}

    assert play(tmp_path, FakeService(speed=100, fault=more)).verdict.by_kind["fee"] == 1


def test_a_lost_session_is_found(tmp_path: Path) -> None:
    service = FakeService(speed=100)

    def lose() -> None:
        service.sessions.popitem()

    found = play(tmp_path, service, tamper=lose)
    assert found.verdict.by_kind["lost"] == 1
    assert "count" in kinds(found)


def test_a_session_that_nobody_started_is_found(tmp_path: Path) -> None:
    """Also when it is the record that has lost an event."""
    service = FakeService(speed=100)
    with serving(service) as url:
        replay_in_order(tmp_path, url, service, MORNING)
        rewrite(tmp_path, lambda kept: [answer for answer in kept if answer.plate != "30A-000.07"])
        found = audit([tmp_path / "answers.jsonl"], write_keys(tmp_path))
    assert found.verdict.by_kind["unknown"] == 1
    assert "count" in kinds(found)


def test_a_stop_that_did_nothing_is_found(tmp_path: Path) -> None:
    service = FakeService(speed=100)

    def undo() -> None:
        for session in service.sessions.values():
            session["ended"] = None

    found = play(tmp_path, service, tamper=undo)
    assert found.verdict.by_kind["session"] == 2


@pytest.mark.parametrize("count", [1, 7, None])
def test_a_wrong_count_is_found(tmp_path: Path, count: int | None) -> None:
    service = FakeService(speed=100)
    honest = service.availability

    def wrong(code: str) -> dict[str, Any]:
        return {name: {**counts, "occupied": count} for name, counts in honest(code).items()}

    def corrupt() -> None:
        service.availability = wrong  # type: ignore[method-assign]

    assert kinds(play(tmp_path, service, tamper=corrupt)) == {"count"}


def test_what_the_service_finds_itself_is_a_divergence(tmp_path: Path) -> None:
    service = FakeService(speed=100)

    async def consistency(_: object) -> Any:
        from aiohttp import web

        checks = [{"name": "redis", "divergences": 2, "details": ["STR-1 car"]}]
        return web.json_response({"divergences": 2, "as_of": "x", "checks": checks})

    service.consistency = consistency  # type: ignore[method-assign]
    assert kinds(play(tmp_path, service)) == {"consistency"}


def test_a_clock_that_runs_away_is_found(tmp_path: Path) -> None:
    def late(action: str, document: dict[str, Any]) -> None:
        if action == "stop":
            document["ended_at"] = "2026-11-23T07:50:00+07:00"

    assert "clock" in kinds(play(tmp_path, FakeService(speed=100, fault=late)))


def test_a_prepaid_time_cut_short_is_found(tmp_path: Path) -> None:
    def shorter(action: str, document: dict[str, Any]) -> None:
        if action == "start" and document["ends_at"]:
            document["ends_at"] = document["started_at"]

    assert "answer" in kinds(play(tmp_path, FakeService(speed=100, fault=shorter)))


def test_an_answer_that_is_no_session_is_found(tmp_path: Path) -> None:
    def empty(action: str, document: dict[str, Any]) -> None:
        if action == "stop":
            document.pop("fee")

    found = play(tmp_path, FakeService(speed=100, fault=empty))
    assert "answer" in kinds(found)
    assert found.book.errors == 2


def test_a_server_error_is_an_error_and_what_it_did_is_left_open(tmp_path: Path) -> None:
    """A stop was answered with 500: whether it was done only the service knows; its word is taken, its sums are
    checked."""
    service = FakeService(speed=100)
    original = service.end

    def done_but_not_said(session: dict[str, Any], body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        original(session, body)
        return 500, {"code": "internal_error"}

    service.end = done_but_not_said  # type: ignore[method-assign]
    found = play(tmp_path, service, [event(0.0, "v1", "start", "STR-1"), event(20.0, "v1", "stop", "STR-1")])
    assert found.book.errors == 1
    assert found.verdict.kept == []


def test_a_start_without_an_answer_may_have_been_done_once(tmp_path: Path) -> None:
    service = FakeService(speed=100)
    with serving(service) as url:
        replay_in_order(tmp_path, url, service, MORNING)
        rewrite(tmp_path, _forget_the_answer_to("30A-000.07"))
        found = audit([tmp_path / "answers.jsonl"], write_keys(tmp_path))
    assert found.verdict.kept == []
    assert found.book.errors == 1


def _forget_the_answer_to(plate: str) -> Callable[[list[Answer]], list[Answer]]:
    def forget(kept: list[Answer]) -> list[Answer]:
        return [msgspec.structs.replace(a, status=0, body="") if a.plate == plate else a for a in kept]

    return forget


def test_details_are_bounded_but_all_are_counted(tmp_path: Path) -> None:
    def more(action: str, document: dict[str, Any]) -> None:
        document["fee"] = {"amount": document["fee"]["amount"] + 1, "currency": "VND"}

    events = [event(n * 0.5, f"v{n}", "start") for n in range(60)]
    found = play(tmp_path, FakeService(speed=100, fault=more), events)
    assert found.verdict.by_kind["fee"] == 60
    assert len(found.verdict.kept) == 20
    assert found.as_dict()["divergences"] == 60

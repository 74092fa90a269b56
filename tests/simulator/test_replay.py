import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from app.stack.processes import wait_until
from simulator.answers import Answer, AnswersReader, Clock, microseconds
from simulator.client import Call, Client, parse_answer
from simulator.replay import ReplayError, aligned_start
from simulator.users import Fleet, Keys, KeysError
from tests.simulator.fake_service import FakeService, serving
from tests.simulator.runs import KEYS, START, event, plan, run, write_keys, write_trace


def answers(folder: Path) -> list[Answer]:
    with AnswersReader(folder / "answers.jsonl") as reader:
        return list(reader)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Every request that the replayer hands to its client, in that order (a retry again)."""
    seen: list[Call] = []
    submit = Client.submit

    def note(client: Client, call: Call) -> None:
        seen.append(call)
        submit(client, call)

    monkeypatch.setattr(Client, "submit", note)
    return seen


def until_sent(calls: list[Call], number: int) -> Callable[[], None]:
    """Freezes the service until this many requests are on their way to it."""

    def freeze() -> None:
        assert wait_until(lambda: sum(call.sent > 0.0 for call in calls) >= number, 8.0)

    return freeze


def test_every_event_is_sent_at_its_own_time(tmp_path: Path) -> None:
    with serving(FakeService(speed=100)) as url:
        figures = run(tmp_path, url, [event(n * 2.0, f"v{n}", "start") for n in range(20)])
    record = answers(tmp_path)
    gaps = [later - first for first, later in pairwise(sorted(answer.due for answer in record))]
    assert figures["requests"] == 20
    assert gaps == pytest.approx([0.02] * 19, abs=1e-5)  # 2 s of business time at 100x
    assert all(answer.sent >= answer.due for answer in record)


def test_a_freeze_of_the_service_shows_in_the_response_times_of_all_who_came_meanwhile(
    tmp_path: Path, calls: list[Call]
) -> None:
    """A closed loop would send one request into the freeze and wait for its answer; here fifty drivers wait.

    due      |.|.|.|.|.|.|.|.|.|.|.|        one every 10 ms
    frozen       |=============|            from the 20th request until the 70th is sent: at least 0.5 s
    """
    service = FakeService(speed=100, freeze_at=20, freeze=until_sent(calls, 70))
    with serving(service) as url:
        figures = run(tmp_path, url, [event(n * 1.0, f"v{n}", "start") for n in range(100)])
    assert figures["response_ms"]["max"] > 450
    assert figures["response_ms"]["p95"] > 300
    record = answers(tmp_path)
    assert sum(answer.answered - answer.due > 0.05 for answer in record) > 30
    assert sum(call.sent < service.thawed < call.answered for call in calls) > 50
    assert all(answer.ready == answer.due for answer in record)  # no driver's lag holds another's wait


def test_a_stop_waits_for_the_id_that_its_start_was_given(tmp_path: Path) -> None:
    """The stop is due 5 ms after its start, the start's answer takes 300 ms: the wait is response time, not lag."""
    service = FakeService(speed=100, freeze_at=1, freeze=lambda: time.sleep(0.3))
    with serving(service) as url:
        run(tmp_path, url, [event(0.0, "v1", "start"), event(0.5, "v1", "stop")])
    start, stop = answers(tmp_path)
    assert [action for action, _ in service.requests] == ["start", "stop"]
    assert stop.session == json.loads(start.body)["id"]
    assert stop.ready == start.answered
    assert stop.answered - stop.due > 0.25
    assert stop.sent - stop.ready < stop.ready - stop.due


def test_vehicles_do_not_wait_for_each_other(tmp_path: Path, calls: list[Call]) -> None:
    with serving(FakeService(speed=100, freeze_at=1, freeze=until_sent(calls, 2))) as url:
        run(tmp_path, url, [event(0.0, "v1", "start"), event(0.1, "v2", "start")])
    first, second = answers(tmp_path)
    assert second.sent < first.answered


def test_a_stop_of_a_refused_start_is_left_out_and_counted(tmp_path: Path) -> None:
    full = [event(0.0, f"v{n}", "start", "STR-1") for n in (1, 2)]
    late = event(20.0, "v3", "start", "STR-1")
    service = FakeService(speed=100, order=[(each.action, each.plate) for each in (*full, late)])
    with serving(service) as url:
        figures = run(tmp_path, url, [*full, late, event(40.0, "v3", "stop", "STR-1")])
    assert figures["answers"] == {"201": 2, "409": 1}
    assert [action for action, _ in service.requests] == ["start"] * 3
    assert figures["skipped"] == 1


def test_a_dropped_connection_is_tried_again_with_the_same_key(tmp_path: Path) -> None:
    service = FakeService(speed=100)
    original = service.answer

    def first_answer_is_lost(action: str, request: object, body: dict[str, object]) -> tuple[int, dict[str, object]]:
        service.drop.add(service.requests[-1][1])
        return original(action, request, body)  # type: ignore[arg-type]

    service.answer = first_answer_is_lost  # type: ignore[method-assign]
    with serving(service) as url:
        figures = run(tmp_path, url, [event(0.0, "v1", "start")])
    (answer,) = answers(tmp_path)
    assert len(service.sessions) == 1
    assert len({key for _, key in service.requests}) == 1
    assert (answer.status, answer.tries, figures["retries"]) == (201, 2, 1)


def test_an_unavailable_service_is_asked_again_later(tmp_path: Path) -> None:
    service = FakeService(speed=100)
    original = service.post
    seen: set[str] = set()

    async def unavailable_at_first(request):  # type: ignore[no-untyped-def]
        key = request.headers["Idempotency-Key"]
        if key not in seen:
            seen.add(key)
            service.unavailable.add(key)
        return await original(request)

    service.post = unavailable_at_first  # type: ignore[method-assign]
    with serving(service) as url:
        figures = run(tmp_path, url, [event(0.0, "v1", "start")])
    assert figures["answers"] == {"201": 1}
    assert figures["retries"] == 1


def test_without_an_answer_after_all_tries_the_record_says_so(tmp_path: Path) -> None:
    service = FakeService(speed=100)
    original = service.post

    async def cut(request):  # type: ignore[no-untyped-def]
        service.drop.add(request.headers["Idempotency-Key"])
        return await original(request)

    service.post = cut  # type: ignore[method-assign]
    with serving(service) as url:
        figures = run(tmp_path, url, [event(0.0, "v1", "start")])
    assert figures["unanswered"] == 1
    assert answers(tmp_path)[0].status == 0


def test_a_silent_service_is_a_time_out(tmp_path: Path, calls: list[Call]) -> None:
    def tried_again() -> None:
        assert wait_until(lambda: calls[0].tries > 1, 8.0)

    with serving(FakeService(speed=100, freeze_at=1, freeze=tried_again)) as url:
        figures = run(tmp_path, url, [event(0.0, "v1", "start")], timeout=0.5)
    assert figures["retries"] >= 1
    assert figures["answers"] == {"201": 1}


def test_a_speed_that_the_clock_does_not_have_is_refused(tmp_path: Path) -> None:
    with serving(FakeService(speed=100)) as url, pytest.raises(ReplayError, match="clock runs at 100x"):
        run(tmp_path, url, [event(0.0, "v1", "start")], speed=60.0)


def test_a_clock_that_has_passed_the_start_is_refused_unless_aligned_with_now(tmp_path: Path) -> None:
    service = FakeService(speed=100, lead=-30.0)
    with serving(service) as url:
        with pytest.raises(ReplayError, match="clock shows"):
            run(tmp_path, url, [event(0.0, "v1", "start")])
        figures = run(tmp_path, url, [event(0.0, "v1", "start")], align="now")
    assert figures["answers"] == {"201": 1}
    assert microseconds(figures["start"]) > microseconds(START)


def test_t_0_is_where_the_services_clock_shows_the_start_of_the_trace(tmp_path: Path) -> None:
    """business   06:58:20     07:00:00                 real   now ---- 1 s ----> due
    The reading of the clock is what counts, not when the replay began."""
    clock = Clock(business=microseconds("2026-11-23T06:58:20+07:00"), real=1_000.0, speed=100.0, error=0.0)
    intended = plan(tmp_path, "http://127.0.0.1:1", [])
    assert aligned_start(intended, microseconds(START), clock, 1_000.0) == microseconds(START)
    assert clock.real_at(microseconds(START)) == pytest.approx(1_001.0)
    with pytest.raises(ReplayError):
        aligned_start(intended, microseconds(START), clock, 1_002.0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_partial_report(tmp_path: Path, number: signal.Signals) -> None:
    program = (
        "import json, sys; from pathlib import Path; from simulator.replay import Plan, replay\n"
        "trace, url, keys, out = sys.argv[1:]\n"
        "print(json.dumps(replay(Plan(Path(trace), url, Path(keys), Path(out), quiet=True))))"
    )
    events = [event(n * 10.0, f"v{n}", "start") for n in range(1000)]
    service = FakeService(speed=100)
    with serving(service) as url:
        arguments = [write_trace(tmp_path, events), url, write_keys(tmp_path), tmp_path / "answers.jsonl"]
        child = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        until = time.monotonic() + 20
        while len(service.requests) < 5 and time.monotonic() < until:
            time.sleep(0.01)
        child.send_signal(number)
        output, _ = child.communicate(timeout=20)
    figures = json.loads(output)
    assert child.returncode == 0
    assert figures["partial"] is True
    assert 5 <= figures["requests"] < 1000
    with AnswersReader(tmp_path / "answers.jsonl") as reader:
        assert len(list(reader)) == figures["requests"]
        assert reader.ending is not None
        assert reader.ending.partial


def test_one_plate_always_belongs_to_the_same_driver() -> None:
    keys = Keys(("a", "b", "c"), "w", "o", "p")
    drivers = set()
    for attempt in range(3):
        step = Fleet(keys, str(attempt), lambda due: 0).arrive(event(0.0, "v7", "start"), 0.0)
        assert step is not None
        drivers.add(step.driver)
    assert len(drivers) == 1


def test_a_warden_sends_what_he_typed_and_when_he_saw_it() -> None:
    keys = Keys(("a",), "warden-key", "o", "p")
    seen = microseconds("2026-11-23T07:30:00+07:00")
    step = Fleet(keys, "r", lambda due: seen).arrive(event(0.0, "v1", "check", plate="30A-999.99"), 5.0)
    assert step is not None
    assert step.request.token == "warden-key"
    assert json.loads(step.request.body)["plate"] == "30A-999.99"
    assert microseconds(json.loads(step.request.body)["captured_at"]) == seen


def test_keys_without_many_drivers_are_one_driver(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(json.dumps({name: key for name, key in KEYS.items() if name != "drivers"}))
    assert Keys.read(tmp_path / "keys.json").drivers == ("d",)
    (tmp_path / "keys.json").write_text("[]")
    with pytest.raises(KeysError):
        Keys.read(tmp_path / "keys.json")


@pytest.mark.parametrize("cut", range(1, 60))
def test_an_answer_is_whole_only_with_its_last_byte(cut: int) -> None:
    whole = b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\nabc"
    assert parse_answer(whole) == (201, len(whole) - 3, len(whole), True)
    if cut < len(whole):
        assert parse_answer(whole[:cut]) is None


@pytest.mark.parametrize(
    "bad", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 xx\r\nContent-Length: 1\r\n\r\n", b"x" * 70_000]
)
def test_what_is_no_answer_ends_the_connection(bad: bytes) -> None:
    parsed = parse_answer(bad)
    assert parsed is not None
    assert parsed[2] == -1

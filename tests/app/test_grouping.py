"""Group commit: what each member of a group may rely on, in threads, and on real PostgreSQL."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.grouping import Group
from zones.errors import ZoneFull

PATIENCE = 20.0


class Runs:
    """A `run` that answers each call with its square, records the groups, and can be held up or made to fail."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.fail: Callable[[Sequence[int]], None] = lambda calls: None

    def __call__(self, connection: psycopg.Connection, calls: Sequence[int]) -> list[Any]:
        self.groups.append(list(calls))
        self.entered.release()
        assert self.gate.wait(PATIENCE)
        self.fail(calls)
        return [ZoneFull(str(call)) if call < 0 else call * call for call in calls]


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
def group(runs: Runs, connection: psycopg.Connection) -> Group[int, int]:
    return Group(runs, lambda: connection, lambda: connection)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def gathered(
    group: Group[int, int], runs: Runs, pool: ThreadPoolExecutor, calls: Sequence[int]
) -> tuple["Future[int]", list["Future[int]"]]:
    """A leader that is held up in its group, and calls that wait behind it, in this order."""
    runs.gate.clear()
    leader = pool.submit(group, 0)
    assert runs.entered.acquire(timeout=PATIENCE)
    waiting = []
    for number, call in enumerate(calls, 1):
        waiting.append(pool.submit(group, call))
        wait_until(lambda number=number: len(group._waiting) == number)
    return leader, waiting


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = threading.Event()
    timer = threading.Timer(PATIENCE, deadline.set)
    timer.start()
    while not condition():
        assert not deadline.is_set()
    timer.cancel()


def test_a_lone_call_is_run_at_once(group: Group[int, int], runs: Runs):
    assert [group(call) for call in (2, 3)] == [4, 9]
    assert runs.groups == [[2], [3]]


def test_calls_that_wait_go_together_in_the_order_in_which_they_came(group, runs, pool):
    leader, waiting = gathered(group, runs, pool, [3, 1, 2])
    runs.gate.set()
    assert leader.result(PATIENCE) == 0 and [one.result(PATIENCE) for one in waiting] == [9, 1, 4]
    assert runs.groups == [[0], [3, 1, 2]]


def test_a_refusal_is_its_own(group, runs, pool):
    _, waiting = gathered(group, runs, pool, [3, -1, 2])
    runs.gate.set()
    assert (waiting[0].result(PATIENCE), waiting[2].result(PATIENCE)) == (9, 4)
    with pytest.raises(ZoneFull, match="-1"):
        waiting[1].result(PATIENCE)


def test_where_the_group_fails_each_member_runs_alone(group, runs, pool):
    def fail(calls: Sequence[int]) -> None:
        if len(calls) > 1:
            raise psycopg.errors.LockNotAvailable("somebody holds what one of them needs")

    _, waiting = gathered(group, runs, pool, [3, -1, 2])
    runs.fail = fail
    runs.gate.set()
    assert (waiting[0].result(PATIENCE), waiting[2].result(PATIENCE)) == (9, 4)
    with pytest.raises(ZoneFull):
        waiting[1].result(PATIENCE)
    assert runs.groups[:2] == [[0], [3, -1, 2]] and sorted(runs.groups[2:]) == [[-1], [2], [3]]


def test_a_failure_that_is_a_calls_own_is_raised_by_its_own_run(group, runs):
    def fail(calls: Sequence[int]) -> None:
        raise psycopg.errors.CheckViolation("always")

    runs.fail = fail
    with pytest.raises(psycopg.errors.CheckViolation):
        group(5)
    assert runs.groups == [[5], [5]]
    runs.fail = lambda calls: None
    assert group(6) == 36


def test_a_lost_connection_is_told_to_its_group_and_to_all_behind_it(group, runs, pool, connection):
    def fail(calls: Sequence[int]) -> None:
        connection.close()
        raise psycopg.OperationalError("the server closed the connection")

    leader, waiting = gathered(group, runs, pool, [3, 1, 2])
    runs.fail = fail
    runs.gate.set()
    for one in (leader, *waiting):
        with pytest.raises(psycopg.OperationalError, match="closed the connection"):
            one.result(PATIENCE)
    assert runs.groups == [[0]], "what waited was not even tried: the next leader would wait for the same server"


def test_the_next_call_after_a_loss_leads_again(runs, database_url):
    held: list[psycopg.Connection] = []

    def connect() -> psycopg.Connection:
        if not held or held[-1].closed:
            held.append(psycopg.connect(database_url, autocommit=True))
        return held[-1]

    def run(connection: psycopg.Connection, calls: Sequence[int]) -> list[Any]:
        return [connection.execute("SELECT pg_backend_pid()").fetchone()[0] for _ in calls]

    group: Group[int, int] = Group(run, connect, connect)
    pid = group(1)
    with psycopg.connect(database_url, autocommit=True) as killer:
        killer.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    with pytest.raises(psycopg.OperationalError):
        group(1)
    assert group(1) != pid
    held[-1].close()


def test_no_connection_is_told_like_a_lost_one(runs):
    def connect() -> psycopg.Connection:
        raise psycopg.OperationalError("connection refused")

    group: Group[int, int] = Group(runs, connect, connect)
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError, match="refused"):
            group(1)


def test_a_leader_that_dies_tells_its_members_and_the_next_one_leads(group, runs, pool):
    leader, waiting = gathered(group, runs, pool, [3, 1])
    deaths = iter([MemoryError])

    def die_once(calls: Sequence[int]) -> None:
        if calls != [0]:
            for death in deaths:
                raise death

    runs.fail = die_once
    runs.gate.set()
    assert leader.result(PATIENCE) == 0
    raised = [one.exception(PATIENCE) for one in waiting]
    assert {type(error) for error in raised} == {MemoryError, RuntimeError}
    assert group(4) == 16


@given(st.lists(st.integers(-3, 50), min_size=1, max_size=60))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_call_gets_its_own_answer_whatever_comes_together(connection: psycopg.Connection, calls: list[int]):
    group: Group[int, int] = Group(Runs(), lambda: connection, lambda: connection)

    def ask(call: int) -> int | str:
        try:
            return group(call)
        except ZoneFull as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, calls))
    assert answers == [str(call) if call < 0 else call * call for call in calls]

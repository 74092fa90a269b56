"""The real API under many processes that fight for few places: what they were answered must have an order.

The clients' processes and this one share the machine's monotonic clock. Beside them capacities are raised and lowered,
as an import would. IPARKING_TEST_OPERATIONS sets how many calls are made (10,000; with --deep a million).
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import psycopg
import pytest
from msgspec.structs import replace

from app.stack import Server, Stack, prepare_database
from app.stack.ports import choose_free
from app.stack.processes import wait_until
from simulator import history, plates
from simulator.history import Operation, Report, ZoneModel
from simulator.history.contention import Contention, contend
from simulator.service import Service

DEEP = bool(os.environ.get("IPARKING_TEST_DEEP"))
OPERATIONS = int(os.environ.get("IPARKING_TEST_OPERATIONS") or (1_000_000 if DEEP else 10_000))
PROCESSES = 4
DRIVERS = 6  # in each process
PLATES = 40
STRICT_ZONES = 4  # and one more that is advisory
CAPACITIES = (1, 2, 3, 4)
SEED = 20261014
# VND of each driver: nobody's wallet is to run dry, however many calls are made.
FUNDS = 10**12
CHANGE_SECONDS = 0.3
# A copy in Redis is milliseconds old; one that was lost (a flush, a time-out on a busy machine) is repaired within 5 s.
COUNT_AGE = 5_000_000_000
# What the reconciler has for its 5 s where this machine is busy (real seconds).
RECONCILED = 15.0
REDIS_DATABASE = 15  # the other tests empty theirs


@dataclass(frozen=True, slots=True)
class Arena:
    """The service, and what is fought over in it."""

    server: Server
    connection: psycopg.Connection
    zones: dict[tuple[str, str], ZoneModel]

    def contention(self, calls: int) -> Contention:
        tokens = json.loads(self.server.keys_path.read_text())["drivers"]
        another = plates.plates("car", SEED)
        known = tuple(another() for _ in range(PLATES))
        return Contention(self.server.url, tuple(tokens), tuple(self.zones), known, calls, SEED)


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    """Two workers of the real server, on a database of its own, with a few small zones."""
    redis = urlsplit(os.environ["IPARKING_TEST_REDIS_URL"])._replace(path=f"/{REDIS_DATABASE}").geturl()
    given = {"IPARKING_DATABASE_URL": os.environ["IPARKING_TEST_DATABASE_URL"], "IPARKING_REDIS_URL": redis}
    stack = Stack(tmp_path, environment=given)
    url = prepare_database(stack, "history", fresh=True)
    server = Server(
        stack, "history", choose_free(), name="history", workers=2, threads=8, environment={"IPARKING_ENV": "test"},
        drivers=DRIVERS, funds=FUNDS,
    )  # fmt: skip
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            zones = make_small(connection)
            server.start()
            yield Arena(server, connection, zones)
    finally:
        server.stop()
        stack.drop_database("history")


def make_small(connection: psycopg.Connection) -> dict[tuple[str, str], ZoneModel]:
    """A few zones with hardly a place in them."""
    query = "SELECT code FROM zone WHERE valid_to IS NULL ORDER BY code LIMIT %s"
    codes = [row[0] for row in connection.execute(query, (STRICT_ZONES + 1,)).fetchall()]
    zones = {}
    for number, code in enumerate(codes):
        admission = "strict" if number < STRICT_ZONES else "advisory"
        capacity = CAPACITIES[number % len(CAPACITIES)]
        connection.execute("UPDATE zone SET admission = %s WHERE code = %s", (admission, code))
        connection.execute(
            "UPDATE zone_occupancy SET admission = %s, capacity = %s WHERE (zone_code, vehicle_class) = (%s, 'car')",
            (admission, capacity, code),
        )
        zones[code, "car"] = ZoneModel(capacity, strict=admission == "strict")
    return zones


def fight(arena: Arena, calls: int, folder: Path) -> list[Operation]:
    """All processes at once, to their end; the whole history."""
    context = get_context("spawn")
    plan = arena.contention(calls)
    paths = [folder / f"history-{number}.jsonl" for number in range(PROCESSES)]
    processes = [context.Process(target=contend, args=(plan, number, path)) for number, path in enumerate(paths)]
    for process in processes:
        process.start()
    changes = list(change_capacities(arena, processes))
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return [*history.record.read(paths), *changes]


def change_capacities(arena: Arena, processes: list[BaseProcess]) -> Iterator[Operation]:
    """Raise and lower the capacities of the strict zones for as long as anybody runs, also below what stands there."""
    random = Random(SEED)
    strict = [zone for zone, model in arena.zones.items() if model.strict]
    while any(process.is_alive() for process in processes):
        zone, capacity = random.choice(strict), random.choice(CAPACITIES)
        invoked = time.monotonic_ns()
        arena.connection.execute(
            "UPDATE zone_occupancy SET capacity = %s, version = version + 1 "
            "WHERE (zone_code, vehicle_class) = (%s, %s)",
            (capacity, *zone),
        )
        yield Operation("capacity", "done", invoked, time.monotonic_ns(), *zone, number=capacity)
        processes[0].join(CHANGE_SECONDS)


def wrong(report: Report) -> list[str]:
    """What is wrong, as a person can read it."""
    return [f"{found.rule}: {found.detail}: {found.operations[:4]}" for found in report.violations[:5]]


def test_answers_of_a_crowd_have_an_order(arena: Arena, tmp_path: Path):
    operations = fight(arena, OPERATIONS // (PROCESSES * DRIVERS), tmp_path)
    began = time.monotonic()
    report = history.check(operations, arena.zones, count_age=COUNT_AGE)
    took = time.monotonic() - began
    assert wrong(report) == []
    outcomes = Counter((one.action, one.outcome) for one in operations)
    print(f"\n{report.operations:,} operations, checked in {took:.1f} s: {dict(sorted(outcomes.items()))}")
    assert_it_was_a_fight(operations, outcomes)
    assert_the_database_agrees(arena, operations)
    assert_the_money_agrees(arena)
    for forge in (add_a_second_session, end_a_running_session, lose_a_stop):
        assert_it_is_seen_through(arena, forge(operations), a_long_session(operations)[0].plate, forge.__name__)


def assert_it_is_seen_through(arena: Arena, forged: list[Operation], plate: str, name: str) -> None:
    """The plate's own history has no order. Only that is searched, with zones that admit always: to prove of a busy
    zone that no order of thousands of operations fits may take for ever."""
    open_zones = {zone: ZoneModel(model.initial.capacity, strict=False) for zone, model in arena.zones.items()}
    report = history.check([one for one in forged if one.plate == plate], open_zones, count_age=COUNT_AGE)
    assert [found for found in report.violations if found.rule == "not_linearizable"], name


def a_long_session(operations: list[Operation]) -> tuple[Operation, Operation]:
    """The start and the stop of the session that ran longest for certain, its plate being started again later."""
    starts = {one.session: one for one in operations if (one.action, one.outcome) == ("start", "done")}
    stops = [one for one in operations if (one.action, one.outcome) == ("stop", "done") and one.session in starts]
    latest = {one.plate: one.invoked for one in sorted(starts.values(), key=lambda one: one.invoked)}
    again = [stop for stop in stops if latest[stop.plate] > (stop.returned or 0)]
    stop = max(again, key=lambda one: one.invoked - (starts[one.session].returned or 0))
    return starts[stop.session], stop


def add_a_second_session(operations: list[Operation]) -> list[Operation]:
    """The history, had the plate of a running session been admitted once more."""
    start, stop = a_long_session(operations)
    between = ((start.returned or 0) + stop.invoked) // 2
    return [*operations, replace(start, key=None, session="forged", invoked=between, returned=between + 1)]


def end_a_running_session(operations: list[Operation]) -> list[Operation]:
    """The history, had somebody been told of a running session that it ended."""
    start, stop = a_long_session(operations)
    between = ((start.returned or 0) + stop.invoked) // 2
    look = replace(start, action="look", outcome="ended", key=None, invoked=between, returned=between + 1)
    return [*operations, look]


def lose_a_stop(operations: list[Operation]) -> list[Operation]:
    """The history, had a session never been stopped whose plate was started again."""
    _, stop = a_long_session(operations)
    return [one for one in operations if (one.action, one.session) != ("stop", stop.session)]


def assert_it_was_a_fight(operations: list[Operation], outcomes: Counter[tuple[str, str]]) -> None:
    """That each kind of refusal came, and that calls overlapped: a history without those would show nothing."""
    assert len(operations) >= OPERATIONS * 0.95
    for seldom in (("start", "zone_full"), ("start", "already_parked"), ("stop", "session_ended"), ("extend", "done")):
        assert outcomes[seldom] > OPERATIONS // 500, outcomes
    assert (
        outcomes["start", "done"] > OPERATIONS // 20
        and outcomes["start", "maybe"] + outcomes["stop", "maybe"] > OPERATIONS // 200
    ), outcomes
    ordered = sorted((one for one in operations if one.returned is not None), key=lambda one: one.invoked)
    overlaps = sum(a.returned > b.invoked for a, b in pairwise(ordered))
    assert overlaps > len(ordered) // 2


def assert_the_database_agrees(arena: Arena, operations: list[Operation]) -> None:
    """Every answered start is there once, counts are those of the sessions, and the service finds itself consistent."""
    started = {one.session for one in operations if (one.action, one.outcome) == ("start", "done")}
    query = "SELECT id::text FROM active_session UNION ALL SELECT id::text FROM parking_session"
    held = Counter(row[0] for row in arena.connection.execute(query).fetchall())
    assert started <= set(held) and set(held.values()) == {1}
    query = """SELECT count(*) FROM zone_occupancy o WHERE occupied <> (SELECT count(*) FROM active_session a
        WHERE (a.zone_code, a.vehicle_class) = (o.zone_code, o.vehicle_class))"""
    assert arena.connection.execute(query).fetchone() == (0,)
    operator = json.loads(arena.server.keys_path.read_text())["operator"]
    service = Service(arena.server.url)
    # Capacities were changed behind the service's back: their copies are the reconciler's affair.
    consistent = wait_until(lambda: service.get("/v1/admin/consistency", operator)["divergences"] == 0, RECONCILED)
    assert consistent, service.get("/v1/admin/consistency", operator)
    service.close()


def assert_the_money_agrees(arena: Arena) -> None:
    """Each driver has what they were given but for the fees of their sessions that are over, and what is put aside is
    for sessions that run: however starts and stops met at the same few wallets."""
    query = """
        SELECT w.owner, w.balance, w.owed, w.held,
               %(funds)s - (SELECT COALESCE(sum(p.fee), 0) FROM parking_session p WHERE p.client = w.owner),
               (SELECT COALESCE(sum(h.amount), 0) FROM hold h JOIN active_session a USING (id)
                 WHERE h.state = 'pending' AND a.client = w.owner)
          FROM wallet w WHERE w.kind = 'wallet'"""
    for owner, balance, owed, held, left, aside in arena.connection.execute(query, {"funds": FUNDS}).fetchall():
        assert (owner, balance, owed, held) == (owner, left, 0, aside)
    query = "SELECT count(*) FROM active_session a FULL JOIN (SELECT * FROM hold WHERE state = 'pending') h USING (id) "
    query += "WHERE a.id IS NULL OR h.id IS NULL"
    assert arena.connection.execute(query).fetchone() == (0,), "one hold for each session that runs, and no other"

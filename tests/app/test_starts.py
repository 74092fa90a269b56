"""Starts that come together where some cannot pay: each has its own answer, and the group costs two statements."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from app import parking, starts
from app.parking import StartRequest
from app.resources import Resources
from billing import ledger
from billing.errors import InsufficientFloat, InsufficientFunds, OwesTooMuch
from billing.ledger import Posting
from tests.app.carding import carded, real
from tests.app.test_grouping import PATIENCE, wait_until
from tests.conftest import Client, SteppedClock
from zones.errors import AlreadyParked, ZoneFull
from zones.sessions import Start, Started

__all__ = ["carded", "real"]
ZONE = "HK-001"
FIRST_HOUR = 30_000


@pytest.fixture
def statements(resources: Resources, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The starts that any connection was asked to execute."""
    seen: list[str] = []
    execute = psycopg.Cursor.execute

    def counted(cursor: psycopg.Cursor, query: Any, *args: Any, **kwargs: Any) -> psycopg.Cursor:
        if "start_sessions" in str(query):
            seen.append(str(query))
        return execute(cursor, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Cursor, "execute", counted)
    return seen


@pytest.fixture
def db(client: Client, resources: Resources) -> psycopg.Connection:
    """A connection of the service, whose catalogue is read."""
    return resources.connections.get()


def move(db: psycopg.Connection, clock: SteppedClock, client: str, amount: int, account: str = "wallet") -> None:
    """Take money out of a wallet (below 0: put it in), or lay a debt on its owner (receivable)."""
    entries = {f"{account}/{client}": amount, "refund": -amount}
    ledger.post(db, [Posting("test", f"{client}/{account}/{amount}", clock.now(), entries)])


def leave(db: psycopg.Connection, clock: SteppedClock, client: str, amount: int) -> None:
    move(db, clock, client, ledger.wallet(db, client).balance - amount)


def plan(
    resources: Resources, client: str, plate: int, method: str = "wallet", zone: str = ZONE, key: str | None = None,
    minutes: int = 60,
) -> Start:  # fmt: skip
    """A car's start as it would be."""
    wanted = StartRequest(zone, f"30A-{plate // 100:03}.{plate % 100:02}", "car", minutes, method)
    return parking._plan(resources, client, key, wanted, resources.clock.now())


def started(answers: Sequence[object]) -> list[bool]:
    return [isinstance(one, Started) for one in answers]


def holds(db: psycopg.Connection) -> dict[str, int]:
    rows = db.execute("SELECT owner, sum(amount)::bigint FROM hold WHERE state = 'pending' GROUP BY owner").fetchall()
    return dict(rows)


def occupied(db: psycopg.Connection, zone: str = ZONE) -> int:
    query = "SELECT occupied FROM zone_occupancy WHERE zone_code = %s AND vehicle_class = 'car'"
    return db.execute(query, (zone,)).fetchone()[0]


@pytest.fixture
def strict_zone(db: psycopg.Connection, database_url: str) -> Iterator[str]:
    """A strict zone with one place left for a car."""
    with psycopg.connect(database_url, autocommit=True) as owner:
        strict = "admission = 'strict' AND vehicle_class = 'car'"
        query = f"SELECT zone_code, capacity FROM zone_occupancy WHERE {strict} LIMIT 1"
        zone, capacity = owner.execute(query).fetchone()
        change = "UPDATE zone_occupancy SET capacity = %s WHERE zone_code = %s AND vehicle_class = 'car'"
        owner.execute(change, (1, zone))
        yield zone
        owner.execute(change, (capacity, zone))


def gathered(resources: Resources, monkeypatch: pytest.MonkeyPatch, calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What calls are answered that wait behind a group under way, all at once."""
    gate, entered, run = threading.Event(), threading.Semaphore(0), starts.together

    def held_up(held: Resources, connection: psycopg.Connection, members: Sequence[Start]) -> Sequence[Any]:
        entered.release()
        assert gate.wait(PATIENCE)
        return run(held, connection, members)

    monkeypatch.setattr(starts, "together", held_up)
    with ThreadPoolExecutor(len(calls)) as pool:
        answers = [pool.submit(calls[0])]
        assert entered.acquire(timeout=PATIENCE)
        answers += [pool.submit(call) for call in calls[1:]]
        wait_until(lambda: len(resources.group(held_up)._waiting) == len(calls) - 1)
        gate.set()
        return [one.result(PATIENCE) for one in answers]


def test_sixteen_at_once_of_whom_three_lack_money_cost_two_statements(
    client: Client, resources: Resources, clock, db, monkeypatch, statements
):
    """Two wallets are empty, and one driver owes too much; a seventeenth is on its way when they come."""
    clients = ["driver", *(f"driver-{n}" for n in range(1, 9))]
    for poor in ("driver-1", "driver-2"):
        leave(db, clock, poor, FIRST_HOUR - 1)
    move(db, clock, "driver-3", resources.settings.owed_limit + 1, "receivable")
    rich = [one for one in clients if one not in ("driver-1", "driver-2", "driver-3")]
    wanted = [rich[0], *[rich[n % len(rich)] for n in range(5)], "driver-1", *[rich[n % len(rich)] for n in range(5)],
              "driver-2", *rich[:3], "driver-3"]  # fmt: skip

    def start(number: int) -> Callable[[], Any]:
        body = {"zone": ZONE, "plate": f"30A-100.{number:02}", "vehicle_class": "car", "minutes": 60}
        own = client.application.test_client()
        return lambda: own.post(
            "/v1/sessions", json=body | {"payment_method": "wallet"}, role=wanted[number], key=f"k{number}"
        )

    answers = gathered(resources, monkeypatch, [start(number) for number in range(17)])
    codes = [one.json.get("code") for one in answers]
    assert [one.status_code for one in answers].count(201) == 1 + 13 and codes.count(None) == 14
    assert {who: code for who, code in zip(wanted, codes, strict=True) if code} == {
        "driver-1": "insufficient_funds", "driver-2": "insufficient_funds", "driver-3": "owes_too_much",
    }  # fmt: skip
    assert len(statements) == 1 + 2, "the one that led; then the sixteen, and the thirteen"
    assert occupied(db) == 14 and sum(holds(db).values()) == 14 * FIRST_HOUR
    assert set(holds(db)) <= set(rich)
    ids = {one.json["id"] for one in answers if one.status_code == 201}
    assert {str(row[0]) for row in db.execute("SELECT id FROM active_session").fetchall()} == ids and len(ids) == 14


def test_group_in_which_all_can_pay_is_one_statement(resources, db, statements):
    calls = [plan(resources, f"driver-{n}", n) for n in range(1, 9)]
    assert all(started(starts.together(resources, db, calls))) and len(statements) == 1


@pytest.mark.parametrize("method", ["wallet", "cash"])
def test_lone_start_that_cannot_pay_is_one_statement(resources, clock, db, statements, method):
    leave(db, clock, "driver-1", 0)
    move(db, clock, "driver-1", resources.settings.owed_limit + 1, "receivable")
    (refused,) = starts.together(resources, db, [plan(resources, "driver-1", 1, method)])
    assert isinstance(refused, OwesTooMuch) and len(statements) == 1 and occupied(db) == 0


def test_group_in_which_nobody_can_pay_is_one_statement(resources, clock, db, statements):
    for poor in ("driver-1", "driver-2"):
        leave(db, clock, poor, 0)
    answers = starts.together(resources, db, [plan(resources, f"driver-{n}", n) for n in (1, 2)])
    assert [type(one) for one in answers] == [InsufficientFunds] * 2 and len(statements) == 1
    assert answers[0] is not answers[1], "each thread raises its own"
    assert (occupied(db), holds(db)) == (0, {})


def test_who_cannot_pay_takes_no_place_and_no_plate(resources, clock, db, strict_zone):
    """The last place, and a plate, go to the next in the group."""
    leave(db, clock, "driver-1", 0)
    poor, rich = (plan(resources, f"driver-{n}", n, zone=strict_zone) for n in (1, 2))
    answers = starts.together(resources, db, [poor, rich])
    assert isinstance(answers[0], InsufficientFunds) and started(answers) == [False, True]
    poor, rich = plan(resources, "driver-1", 9), plan(resources, "driver-2", 9)
    answers = starts.together(resources, db, [poor, rich])
    assert isinstance(answers[0], InsufficientFunds) and started(answers) == [False, True]


def test_other_refusals_stay_their_own(resources, clock, db, strict_zone, statements):
    leave(db, clock, "driver-1", 0)
    assert all(started(starts.together(resources, db, [plan(resources, "driver-8", 8, zone=strict_zone)])))
    statements.clear()
    calls = [
        plan(resources, "driver-1", 1), plan(resources, "driver-2", 2, zone=strict_zone),
        plan(resources, "driver-3", 8),
        plan(resources, "driver-4", 4, "cash"), plan(resources, "driver-1", 5, "cash"),
    ]  # fmt: skip
    answers = starts.together(resources, db, calls)
    assert [type(one) for one in answers] == [InsufficientFunds, ZoneFull, AlreadyParked, Started, Started]
    assert len(statements) == 2


def test_repeated_start_is_answered_also_beside_one_that_cannot_pay(resources, clock, db):
    """Its wallet is empty by now: what it got before is not asked for again."""
    leave(db, clock, "driver-2", FIRST_HOUR)
    first = plan(resources, "driver-2", 2, key="k")
    assert started(starts.together(resources, db, [first])) == [True]
    leave(db, clock, "driver-1", 0)
    again = plan(resources, "driver-2", 2, key="k")
    answers = starts.together(resources, db, [plan(resources, "driver-1", 1), again, plan(resources, "driver-3", 3)])
    assert (
        isinstance(answers[0], InsufficientFunds) and answers[1].id == first.id and started(answers)[1:] == [True] * 2
    )
    assert occupied(db) == 2


def test_two_of_one_client_whose_money_is_enough_for_one(client, resources, clock, db, monkeypatch, statements):
    leave(db, clock, "driver-1", FIRST_HOUR)

    def start(number: int, role: str) -> Callable[[], Any]:
        body = {"zone": ZONE, "plate": f"30A-100.{number:02}", "vehicle_class": "car", "minutes": 60}
        own = client.application.test_client()
        return lambda: own.post("/v1/sessions", json=body | {"payment_method": "wallet"}, role=role)

    calls = [start(0, "driver-2"), start(1, "driver-1"), start(2, "driver-1"), start(3, "driver-3")]
    answers = gathered(resources, monkeypatch, calls)
    assert [answers[n].status_code for n in (0, 3)] == [201, 201]
    assert sorted(answers[n].json.get("code") or "started" for n in (1, 2)) == ["insufficient_funds", "started"]
    assert len(statements) == 1 + 2 + 2 and holds(db)["driver-1"] == FIRST_HOUR
    assert ledger.wallet(db, "driver-1").available == 0


def test_dear_start_does_not_keep_a_cheap_one_of_its_client_out(resources, clock, db, statements):
    leave(db, clock, "driver-1", FIRST_HOUR)
    dear = plan(resources, "driver-1", 1, minutes=120)
    answers = starts.together(resources, db, [dear, plan(resources, "driver-1", 2), plan(resources, "driver-2", 3)])
    assert isinstance(answers[0], InsufficientFunds) and answers[1] is None and started(answers)[2]
    assert started(starts.together(resources, db, [plan(resources, "driver-1", 2)])) == [True]


def test_wallet_that_is_emptied_between_the_tries_is_refused_too(resources, clock, db, monkeypatch, statements):
    leave(db, clock, "driver-1", 0)
    run, tries = starts._start, []

    def emptied(held: Resources, connection: psycopg.Connection, calls: Sequence[Start], purse: str) -> Any:
        tries.append(len(calls))
        if len(tries) in (2, 3):
            leave(db, clock, f"driver-{len(tries)}", 0)
        return run(held, connection, calls, purse)

    monkeypatch.setattr(starts, "_start", emptied)
    calls = [plan(resources, f"driver-{n}", n) for n in range(1, 6)]
    answers = starts.together(resources, db, calls)
    assert [type(one) for one in answers[:3]] == [InsufficientFunds] * 3 and answers[3:] == [None, None]
    assert tries == [5, 4, 3] and len(statements) == 3 and occupied(db) == 0, "those who are left are tried alone"


def test_another_failure_of_the_second_try_is_the_groups(resources, clock, db, monkeypatch, database_url):
    """Somebody holds what one of them needs: nothing was done, and each is run alone, as ever."""
    leave(db, clock, "driver-1", 0)
    calls = [plan(resources, "driver-1", 1), plan(resources, "driver-2", 2), plan(resources, "driver-3", 3)]
    run, tries = starts._start, []

    def blocked(held: Resources, connection: psycopg.Connection, members: Sequence[Start], purse: str) -> Any:
        tries.append(len(members))
        if len(tries) == 2:
            raise psycopg.errors.LockNotAvailable("somebody holds it")
        return run(held, connection, members, purse)

    monkeypatch.setattr(starts, "_start", blocked)
    with pytest.raises(psycopg.errors.LockNotAvailable):
        starts.together(resources, db, calls)
    assert occupied(db) == 0 and holds(db) == {}


def test_float_that_does_not_cover_leaves_the_others_in(client, resources, clock, db, statements):
    for attendant in ("attendant-1", "attendant-2"):
        body = {"amount": FIRST_HOUR, "reason": "nộp tại quầy"}
        assert client.post(f"/v1/admin/floats/{attendant}/topups", json=body, role="operator").status_code == 200
        assert client.post("/v1/attendant/shifts", json={"counted": 0}, role=attendant).status_code == 201
    assert started(starts.on_behalf(resources, db, [plan(resources, "attendant-1", 1, "cash")])) == [True]
    statements.clear()
    calls = [plan(resources, f"attendant-{n}", 10 + n, "cash") for n in (1, 2)]
    answers = starts.on_behalf(resources, db, calls)
    assert isinstance(answers[0], InsufficientFloat) and started(answers) == [False, True] and len(statements) == 2
    moved = "SELECT count(*) FROM cash_movement WHERE session_id = %s"
    assert [db.execute(moved, (call.id,)).fetchone()[0] for call in calls] == [0, 1]


def test_payments_by_card_are_written_once_beside_a_wallet_that_is_empty(carded, client, clock):
    db = carded.connections.get()
    db.execute("INSERT INTO card VALUES ('driver-2', 'cus_1', 'pm_1', %s)", (clock.now(),))
    leave(db, clock, "driver-1", 0)
    calls = [plan(carded, "driver-1", 1), plan(carded, "driver-2", 2, "card"), plan(carded, "driver-3", 3)]
    answers = starts.together(carded, db, calls)
    assert isinstance(answers[0], InsufficientFunds) and started(answers) == [False, True, True]
    assert db.execute("SELECT id FROM payment").fetchall() == [(calls[1].id,)]
    assert db.execute("SELECT payment_id, verb FROM gateway_call").fetchall() == [(calls[1].id, "hold")]

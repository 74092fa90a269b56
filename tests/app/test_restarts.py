"""A start whose plate stands in a session that is over: that one is closed with the start, or not at all."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from flask import Flask

from app import jobs, starts
from app.resources import Resources
from billing import ledger
from billing.ledger import Posting
from tests.app.test_grouping import PATIENCE, wait_until
from tests.app.test_races import ROUNDS, answered, apps, left, together
from tests.conftest import FUNDS, Client, SteppedClock
from zones import occupancy

__all__ = ["apps"]
KERB, PLATE, OTHER = "HK-001", "30A-123.45", "30A-999.99"


@pytest.fixture
def garages(database_url: str) -> Iterator[tuple[str, str]]:
    """Two strict zones with one place for a car each, in their order."""
    change = "UPDATE zone_occupancy SET capacity = %s WHERE zone_code = %s AND vehicle_class = 'car'"
    with psycopg.connect(database_url, autocommit=True) as owner:
        query = "SELECT zone_code, capacity FROM zone_occupancy WHERE admission = 'strict' AND vehicle_class = 'car'"
        found = owner.execute(query + " ORDER BY zone_code LIMIT 2").fetchall()
        for zone, _ in found:
            owner.execute(change, (1, zone))
        yield found[0][0], found[1][0]
        for zone, capacity in found:
            owner.execute(change, (capacity, zone))


def start(
    client: Client, zone: str, plate: str = PLATE, *, role: str = "driver-1", key: str | None = None, **more: Any
):
    body = {"zone": zone, "plate": plate, "vehicle_class": "car", "payment_method": "wallet", "minutes": 60} | more
    return client.post("/v1/sessions", json=body, role=role, key=key)


def find(client: Client, session: dict, role: str = "driver-1") -> dict:
    found: dict = client.get(f"/v1/sessions/{session['id']}", role=role).json
    return found


def occupied(client: Client, zone: str) -> int:
    count: int = client.get(f"/v1/zones/{zone}/availability").json["car"]["occupied"]
    return count


def move(resources: Resources, client: str, account: str, amount: int) -> None:
    """Take money out of a wallet, or (receivable) lay a debt on its owner."""
    entries = {f"{account}/{client}": amount, "refund": -amount}
    posting = Posting("test", f"{client}/{account}", resources.clock.now(), entries)
    ledger.post(resources.connections.get(), [posting])


def fill(client: Client, resources: Resources, zone: str) -> None:
    assert start(client, zone, OTHER, role="driver-2", minutes=600).status_code == 201


def empty(client: Client, resources: Resources, zone: str) -> None:
    move(resources, "driver-3", "wallet", FUNDS)


def owe(client: Client, resources: Resources, zone: str) -> None:
    move(resources, "driver-3", "receivable", resources.settings.owed_limit + 1)


REFUSALS = {"zone_full": fill, "insufficient_funds": empty, "owes_too_much": owe}


@pytest.mark.parametrize("code", REFUSALS)
@pytest.mark.parametrize("days", [0, 20])
def test_refused_start_does_not_end_a_strangers_overstay(
    client: Client, resources: Resources, clock: SteppedClock, garages: tuple[str, str], code: str, days: int
):
    """Also not one that is longer than its agreed price."""
    overstay = start(client, garages[0]).json
    clock.advance(minutes=90, days=days)
    REFUSALS[code](client, resources, garages[1])
    before, counts, seen = left(resources), occupancy.rows(resources.connections.get()), find(client, overstay)
    jobs.reconcile(resources)
    for _ in range(2):
        assert answered(start(client, garages[1], role="driver-3", key="k")) == code
    assert find(client, overstay) == seen and (seen["state"], seen["ended_at"]) == ("expired", None)
    assert left(resources) == before and occupancy.rows(resources.connections.get()) == counts
    resources.copies.flush()
    assert jobs.reconcile(resources) == 0, "what was not committed was not copied"
    clock.advance(minutes=60)
    stopped = client.post(f"/v1/sessions/{overstay['id']}/stop", json={}, role="driver-1")
    assert stopped.status_code == 200 and stopped.json["fee"]["amount"] > seen["fee"]["amount"]


def test_refused_start_leaves_a_late_stop_its_session(
    client: Client, resources: Resources, clock: SteppedClock, garages: tuple[str, str]
):
    session = start(client, KERB).json
    clock.advance(minutes=61)
    fill(client, resources, garages[0])
    assert answered(start(client, garages[0], role="driver-3")) == "zone_full"
    body = {"stopped_at": "2026-10-14T08:59:00+07:00"}
    stopped = client.post(f"/v1/sessions/{session['id']}/stop", json=body, role="driver-1")
    assert (answered(stopped), stopped.json["ended_at"]) == ("ended", "2026-10-14T08:59:00.000+07:00")


def test_attendant_whose_float_does_not_cover_ends_no_overstay(
    client: Client, clock: SteppedClock, garages: tuple[str, str]
):
    overstay = start(client, garages[0]).json
    clock.advance(minutes=90)
    assert client.post("/v1/attendant/shifts", json={"counted": 0}, role="attendant").status_code == 201
    body = {"zone": KERB, "plate": PLATE, "vehicle_class": "car", "minutes": 60}
    refused = client.post("/v1/attendant/sessions", json=body, role="attendant")
    assert answered(refused) == "insufficient_float"
    assert find(client, overstay)["ended_at"] is None


@pytest.mark.parametrize("days", [0, 20])
def test_admitted_start_ends_the_overstay_and_both_counts_are_copied(
    client: Client, resources: Resources, clock: SteppedClock, garages: tuple[str, str], days: int
):
    overstay = start(client, garages[0]).json
    clock.advance(minutes=90, days=days)
    owed = find(client, overstay)["fee"]
    jobs.reconcile(resources)
    started = start(client, garages[1], role="driver-3", key="k")
    assert started.status_code == 201
    assert start(client, garages[1], role="driver-3", key="k").data == started.data
    ended = find(client, overstay)
    assert (ended["ended_at"], ended["fee"]) == (started.json["started_at"], owed)
    assert [occupied(client, zone) for zone in garages] == [0, 1]
    resources.copies.flush()
    assert jobs.reconcile(resources) == 0
    assert left(resources) == {"occupied": 1, "running": 1, "over": 1, "charges": 1}


def test_place_of_the_overstay_itself_is_free_for_its_plate(
    client: Client, clock: SteppedClock, garages: tuple[str, str]
):
    overstay = start(client, garages[0]).json
    clock.advance(minutes=90)
    assert answered(start(client, garages[0], OTHER, role="driver-3")) == "zone_full"
    assert start(client, garages[0], role="driver-3").status_code == 201
    assert find(client, overstay)["ended_at"] == "2026-10-14T09:30:00.000+07:00"
    assert occupied(client, garages[0]) == 1


def test_one_key_in_two_processes_restarts_once(apps: list[Flask], resources: Resources, clock: SteppedClock):
    clients: list[Client] = [app.test_client() for app in apps]  # type: ignore[misc]
    for n in range(ROUNDS):
        plate = f"30A-{n:03}.00"
        assert start(clients[0], KERB, plate, minutes=1).status_code == 201
        clock.advance(minutes=2)
        answers = together(*[
            lambda app=app, n=n, plate=plate: start(app.test_client(), "BD-001", plate, key=f"k{n}", minutes=30)
            for app in apps * 2
        ])  # fmt: skip
        assert {(answer.status_code, answer.data) for answer in answers} == {(201, answers[0].data)}
        stopped = clients[1].post(f"/v1/sessions/{answers[0].json['id']}/stop", json={}, role="driver-1")
        assert stopped.status_code == 200
    assert left(resources) == {"occupied": 0, "running": 0, "over": 2 * ROUNDS, "charges": 2 * ROUNDS}


def test_restarts_that_cross_are_all_admitted(apps: list[Flask], resources: Resources, clock: SteppedClock):
    """From one zone to another and back, of one driver in two processes, beside starts in both zones."""
    zones = [KERB, "BD-001"]
    for n in range(ROUNDS):
        plates = [f"30A-{n:03}.0{m}" for m in range(4)]
        for m in (0, 1):
            assert start(apps[0].test_client(), zones[m], plates[m], minutes=1).status_code == 201
        clock.advance(minutes=2)
        answers = together(*[
            lambda n=n, m=m, plates=plates: start(apps[m % 2].test_client(), zones[1 - m % 2], plates[m], minutes=1)
            for m in range(4)
        ])  # fmt: skip
        assert [answer.status_code for answer in answers] == [201] * 4, [answer.json for answer in answers]
        clock.advance(minutes=2)
        jobs.release(resources)
    assert left(resources) == {"occupied": 0, "running": 4 * ROUNDS, "over": 2 * ROUNDS, "charges": 2 * ROUNDS}


def test_deadlock_is_undone_and_tried_again(
    client: Client, resources: Resources, clock: SteppedClock, garages: tuple[str, str], monkeypatch: pytest.MonkeyPatch
):
    """Somebody holds the driver's wallet and wants the zone's count, which the restart holds, and wants the wallet."""
    assert resources.settings.owner_url is not None
    overstay = start(client, garages[0]).json
    clock.advance(minutes=90)
    holds, wants, run, tries = threading.Event(), threading.Event(), starts._start, []

    def circle(owner: psycopg.Connection, watching: psycopg.Connection) -> None:
        owner.execute("SET deadlock_timeout = '1h'")  # the other one is to find it
        owner.execute("SELECT FROM wallet WHERE owner = 'driver-3' AND kind = 'wallet' FOR UPDATE")
        holds.set()
        assert wants.wait(PATIENCE)
        owner.execute("SELECT FROM zone_occupancy WHERE zone_code = %s FOR UPDATE", (garages[1],))
        owner.commit()

    def caught(*asked: Any) -> Any:
        tries.append(resources.connections.get().info.transaction_status)
        if tries[-1] == psycopg.pq.TransactionStatus.INTRANS and not wants.is_set():
            wants.set()
            query = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
            wait_until(lambda: watching.execute(query, (owner.info.backend_pid,)).fetchone() == (True,))
        return run(*asked)

    monkeypatch.setattr(starts, "_start", caught)
    with (
        psycopg.connect(resources.settings.owner_url) as owner,
        psycopg.connect(resources.settings.owner_url, autocommit=True) as watching,
        ThreadPoolExecutor(1) as pool,
    ):
        other = pool.submit(circle, owner, watching)
        assert holds.wait(PATIENCE)
        assert start(client, garages[1], role="driver-3").status_code == 201
        other.result(PATIENCE)
    assert tries.count(psycopg.pq.TransactionStatus.INTRANS) == 2
    assert find(client, overstay)["ended_at"] == "2026-10-14T09:30:00.000+07:00"
    assert left(resources) == {"occupied": 1, "running": 1, "over": 1, "charges": 1}

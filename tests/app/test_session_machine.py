"""The service beside a model of it, through random days: starts, extensions, stops, jobs, and a city that changes."""

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
import shapely
from flask import Flask
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from redis import Redis

from app import create_app, jobs
from app.resources import Resources, make_resources
from tests.app.city_in_memory import City, Stay, ZoneFacts
from tests.conftest import HANOI, Client, SteppedClock, clear, copy_of, owning, settings_of
from zones import imports
from zones.imports.reader import ZoneRecord
from zones.imports.shapes import canonical

DEEP = bool(os.environ.get("IPARKING_TEST_DEEP"))
MORNING = "2026-10-14T08:00:00+07:00"
ZONES = {"HK-001": ZoneFacts("advisory", 2), "HK-002": ZoneFacts("strict", 2), "HK-003": ZoneFacts("strict", 1)}
PLATES = [f"30A-{n:03}.00" for n in range(5)]
KEYS = ["k1", "k2", "k3"]

codes = st.sampled_from(list(ZONES))
which = st.integers(0, 50)
steps = st.sampled_from([0.001, 1, 60, 9 * 60, 15 * 60, 30 * 60, 3600, 6 * 3600, 13 * 3600])


@pytest.fixture(scope="module")
def own_city(worker_id: str) -> Iterator[str]:
    """A city of these tests' own: its zones change."""
    yield from copy_of("city", f"machine_{worker_id}")


@pytest.fixture
def service(own_city: str, redis_url: str, keys_path: Any, clock: SteppedClock) -> Iterator[Resources]:
    held = replace(make_resources(settings_of(own_city, redis_url, keys_path)), clock=clock)
    held.catalogue.stop()  # looks when it is told to, so that no run depends on the second it looks in
    yield held
    held.close()


def record(code: str, facts: ZoneFacts) -> ZoneRecord:
    number = list(ZONES).index(code)
    lon = 105.85 + number / 100 + facts.redrawn / 1_000_000
    return ZoneRecord(
        code=code, name=code, street="Phố Huế", district_code="002", rate_area="core", kind="kerb",
        admission=facts.admission, max_stay_minutes=facts.max_stay, capacity={"car": facts.capacity},
        capacity_source="illustrative", geometry=canonical(shapely.box(lon, 21.02, lon + 0.001, 21.021)),
    )  # fmt: skip


def empty_redis(service: Resources) -> None:
    with Redis.from_url(service.settings.redis_url) as redis:
        redis.flushdb()


class Days(RuleBasedStateMachine):
    """Each rule does the same to the service and to the model, and compares what they answer."""

    service: Resources
    app: Flask

    def __init__(self) -> None:
        super().__init__()
        self.clock: SteppedClock = self.service.clock  # type: ignore[assignment]
        self.clock.at(MORNING)
        self.city = City({code: replace(facts) for code, facts in ZONES.items()}, self.clock.now())
        with psycopg.connect(self.service.settings.owner_url, autocommit=True) as connection:
            clear(connection, "zone", "zone_occupancy")
        empty_redis(self.service)
        self.put(*ZONES)
        self.client: Client = self.app.test_client()  # type: ignore[assignment]

    def put(self, *changed: str) -> None:
        """Import zones as the model has them; the process sees it."""
        with owning(self.service) as connection:
            records = [record(code, self.city.zones[code]) for code in changed]
            imports.apply("zones", connection, records, self.clock.now())
        self.service.catalogue.refresh()

    def post(self, path: str, body: dict, key: str | None = None) -> Any:
        return self.client.post(f"/v1/sessions{path}", json=body, role="driver", key=key)

    @rule(plate=st.sampled_from(PLATES), zone=codes, minutes=st.sampled_from([1, 30, 60, 600]))
    def start_prepaid(self, plate: str, zone: str, minutes: int) -> None:
        self.start(plate, zone, minutes, None)

    @rule(plate=st.sampled_from(PLATES), zone=codes)
    def start_open(self, plate: str, zone: str) -> None:
        self.start(plate, zone, None, None)

    @rule(
        plate=st.sampled_from(PLATES), zone=codes, key=st.sampled_from(KEYS),
        minutes=st.none() | st.sampled_from([30, 720]),
    )  # fmt: skip
    def start_with_a_key(self, plate: str, zone: str, minutes: int | None, key: str) -> None:
        self.start(plate, zone, minutes, key)

    @precondition(lambda self: any(stay.key for stay in self.city.stays))
    @rule(which=which)
    def start_again_with_its_key(self, which: int) -> None:
        keyed = [stay for stay in self.city.stays if stay.key]
        stay = keyed[which % len(keyed)]
        self.start(stay.plate, stay.zone, stay.minutes, stay.key)

    def start(self, plate: str, zone: str, minutes: int | None, key: str | None) -> None:
        known = len(self.city.stays)
        wanted = self.city.start(plate, zone, minutes, key)
        body = {"zone": zone, "plate": plate, "vehicle_class": "car", "payment_method": "wallet", "minutes": minutes}
        answer = self.post("", body, key)
        if isinstance(wanted, str):
            assert answer.json.get("code") == wanted, answer.json
            return
        assert answer.status_code == 201, answer.json
        if len(self.city.stays) == known:
            assert answer.data == wanted.first_answer, "a repeated key gets the first answer"
        wanted.id, wanted.first_answer = answer.json["id"], answer.data

    @precondition(lambda self: self.city.stays)
    @rule(which=which, back=st.none() | st.sampled_from([0, 0.001, 60, 15 * 60, 15 * 60 + 0.001]))
    def stop(self, which: int, back: float | None) -> None:
        stay = self.city.stays[which % len(self.city.stays)]
        self.stop_as_of(stay, None if back is None else self.city.now - timedelta(seconds=back))

    def stop_as_of(self, stay: Stay, stopped_at: datetime | None) -> None:
        wanted = self.city.stop(stay, stopped_at)
        body = {} if stopped_at is None else {"stopped_at": stopped_at.isoformat()}
        self.compare(self.post(f"/{stay.id}/stop", body), wanted)

    @precondition(lambda self: self.city.stays)
    @rule(which=which, minutes=st.sampled_from([1, 30, 600]))
    def extend(self, which: int, minutes: int) -> None:
        stay = self.city.stays[which % len(self.city.stays)]
        wanted = self.city.extend(stay, minutes)
        self.compare(self.post(f"/{stay.id}/extend", {"minutes": minutes}), wanted)

    @precondition(lambda self: self.city.stays)
    @rule(which=which)
    def find(self, which: int) -> None:
        stay = self.city.stays[which % len(self.city.stays)]
        self.compare(self.client.get(f"/v1/sessions/{stay.id}", role="driver"), stay)

    def compare(self, answer: Any, wanted: str | Stay) -> None:
        if isinstance(wanted, str):
            assert answer.json.get("code") == wanted, answer.json
            return
        assert answer.status_code == 200, answer.json
        facts = {"id": wanted.id, "state": wanted.state(self.city.now), "zone": wanted.zone, "plate": wanted.plate}
        times = {"ends_at": wanted.ends_at, "ended_at": wanted.shown_end(self.city.now)}
        assert {name: answer.json[name] for name in facts} == facts
        assert {name: instant(answer.json[name]) for name in times} == times

    @precondition(lambda self: self.city.active())
    @rule(seconds=steps)
    def pass_time(self, seconds: float) -> None:
        self.move(self.clock.now() + timedelta(seconds=seconds))

    @precondition(lambda self: any(stay.over_at > self.city.now for stay in self.city.active()))
    @rule(which=which, short=st.sampled_from([0, 0, 0.001]))
    def pass_until_time_is_over(self, which: int, short: float) -> None:
        ahead = [stay.over_at for stay in self.city.active() if stay.over_at > self.city.now]
        self.move(max(self.city.now, ahead[which % len(ahead)] - timedelta(seconds=short)))

    def move(self, instant: datetime) -> None:
        self.clock.instant = self.city.now = instant

    @precondition(lambda self: any(stay.is_over(self.city.now) for stay in self.city.active()))
    @rule(closing=st.booleans())
    def tidy(self, closing: bool) -> None:
        jobs.release(self.service)
        self.city.release()
        if closing:
            jobs.close(self.service)
            self.city.close()

    @precondition(lambda self: any(stay.released for stay in self.city.active()))
    @rule(which=which)
    def stop_late(self, which: int) -> None:
        """After the place was given back, as of just before the time was over."""
        released = [stay for stay in self.city.active() if stay.released]
        stay = released[which % len(released)]
        self.stop_as_of(stay, stay.over_at - timedelta(seconds=1))

    @rule(
        code=codes,
        facts=st.one_of(
            st.integers(0, 3).map(lambda capacity: {"capacity": capacity}),
            st.sampled_from([30, 600, 720]).map(lambda minutes: {"max_stay": minutes}),
            st.just({"redrawn": 1}),
            st.just({"is_open": False}),
        ),
    )
    def change_zone(self, code: str, facts: dict[str, Any]) -> None:
        """An import, or the end of a zone's validity; any import opens a closed zone again."""
        self.change(code, facts)

    def change(self, code: str, facts: dict[str, Any]) -> None:
        known = self.city.zones[code]
        facts = {"is_open": True, **facts, "redrawn": known.redrawn + facts.get("redrawn", 0)}
        self.city.zones[code] = replace(known, **facts)
        if facts["is_open"]:
            return self.put(code)
        with owning(self.service) as connection:
            query = "UPDATE zone SET valid_to = %s WHERE code = %s AND valid_to IS NULL"
            connection.exec_driver_sql(query, (self.clock.now(), code))
        return self.service.catalogue.refresh()

    @precondition(lambda self: self.city.active())
    @rule(which=which)
    def turn_admission(self, which: int) -> None:
        """Of a zone in which somebody stands, so that old rule and new meet."""
        stays = self.city.active()
        code = stays[which % len(stays)].zone
        turned = {"strict": "advisory", "advisory": "strict"}[self.city.zones[code].admission]
        self.change(code, {"admission": turned})

    @rule()
    def lose_redis(self) -> None:
        self.service.copies.flush()
        empty_redis(self.service)

    @invariant()
    def counts_are_what_the_model_says(self) -> None:
        for code, facts in self.city.zones.items():
            answer = self.client.get(f"/v1/zones/{code}/availability")
            assert answer.status_code == (200 if facts.is_open else 404)
            if facts.is_open:
                assert answer.json["car"]["occupied"] == self.city.occupied(code), code

    def teardown(self) -> None:
        jobs.reconcile(self.service)
        self.service.copies.flush()
        checks = self.client.get("/v1/admin/consistency", role="operator").json
        assert checks["divergences"] == 0, checks
        with psycopg.connect(self.service.settings.owner_url) as connection:
            query = "SELECT count(*), count(DISTINCT id) FROM parking_session"
            over = len(self.city.stays) - len(self.city.active())
            assert connection.execute(query).fetchone() == (over, over)
            query = "SELECT count(*) FROM ledger_transaction WHERE kind = 'parking'"
            assert connection.execute(query).fetchone() == (over,), "each stay that ended is due once"


def instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(HANOI)


def test_service_answers_what_the_model_says(service: Resources):
    Days.service, Days.app = service, create_app(service.settings, service)
    Days.app.test_client_class = Client
    how = settings(
        max_examples=500 if DEEP else 20, stateful_step_count=60 if DEEP else 40, deadline=None,
        suppress_health_check=list(HealthCheck), phases=(Phase.reuse, Phase.generate, Phase.shrink),
    )  # fmt: skip
    run_state_machine_as_test(Days, settings=how)

"""A small stand-in for the service, right by default and wrong on demand: what the replayer and the auditor are tried
against.

Two zones: ADV-1 (advisory) and STR-1 (strict, two places), both in Hoàn Kiếm.
"""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from simulator.answers import microseconds, rfc3339
from simulator.auditor.prices import MINUTE, fee

MILLISECOND = 1000
DISTRICT = "002"
ZONES: dict[str, dict[str, Any]] = {
    "ADV-1": {"admission": "advisory", "capacity": {"car": 3, "motorbike": 5}, "max_stay_minutes": 720},
    "STR-1": {"admission": "strict", "capacity": {"car": 2}, "max_stay_minutes": 1440},
}


@dataclass
class FakeService:
    """State and faults. `fault(action, document)` may change an answer, `drop` cuts the connection of the first tries
    of a key, `freeze` is what the whole service waits for at request number `freeze_at`.

    What depends on how requests follow each other is told here, because on a busy machine requests that are due one
    after the other meet: those in `order` (action and plate) are taken up in that order, and the stops of the plates in
    `late` once their time is over."""

    start: str = "2026-11-23T07:00:00+07:00"
    speed: float = 100.0
    lead: float = 0.3
    capacity_slack: int = 0
    fault: Callable[[str, dict[str, Any]], None] | None = None
    drop: set[str] = field(default_factory=set)
    unavailable: set[str] = field(default_factory=set)
    freeze_at: int = 0
    freeze: Callable[[], object] | None = None
    order: list[tuple[str, str]] = field(default_factory=list)
    late: set[str] = field(default_factory=set)
    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    by_key: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    charged: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.anchor: float | None = None
        self.thawed = 0.0  # by the monotonic clock, as the replayer's
        self.turn = asyncio.Condition()

    def now(self) -> int:
        """The business instant. The clock stands at `lead` real seconds before the start when it is first looked at."""
        if self.anchor is None:
            self.anchor = time.time() + self.lead
        exact = microseconds(self.start) + round((time.time() - self.anchor) * self.speed * 1e6)
        return exact // MILLISECOND * MILLISECOND

    def over_at(self, session: dict[str, Any]) -> int:
        longest = ZONES[session["zone"]]["max_stay_minutes"] * MINUTE
        return session["ends"] if session["ends"] is not None else session["began"] + longest

    def standing(self, zone: str, vehicle_class: str) -> int:
        strict, now = ZONES[zone]["admission"] == "strict", self.now()
        mine = [s for s in self.sessions.values() if (s["zone"], s["vehicle_class"]) == (zone, vehicle_class)]
        return sum(s["ended"] is None and (strict or self.over_at(s) > now) for s in mine)

    def document(self, session: dict[str, Any], now: int) -> dict[str, Any]:
        strict, over = ZONES[session["zone"]]["admission"] == "strict", self.over_at(session)
        ended = session["ended"] if session["ended"] is not None else over if over <= now and not strict else None
        state = "ended" if session["ended"] is not None else "expired" if over <= now else "running"
        open_until = max(now, over) if strict and over <= now else session["ends"] or now
        owed = fee("core", session["vehicle_class"], session["began"], ended or open_until)
        return {
            "id": session["id"], "state": state, "zone": session["zone"], "plate": session["plate"],
            "vehicle_class": session["vehicle_class"], "started_at": rfc3339(session["began"]),
            "ends_at": session["ends"] and rfc3339(session["ends"]), "ended_at": ended and rfc3339(ended),
            "payment_method": "wallet", "fee": {"amount": owed, "currency": "VND"}, "rate_version": "test",
        }  # fmt: skip

    def begin(self, client: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        now, zone = self.now(), ZONES[body["zone"]]
        for session in self.sessions.values():
            same = (session["plate"], session["vehicle_class"]) == (body["plate"], body["vehicle_class"])
            if same and session["ended"] is None and self.over_at(session) > now:
                return 409, {"code": "already_parked"}
        places = zone["capacity"][body["vehicle_class"]] + self.capacity_slack
        if zone["admission"] == "strict" and self.standing(body["zone"], body["vehicle_class"]) >= places:
            return 409, {"code": "zone_full"}
        minutes = body.get("minutes")
        session = {
            "id": str(uuid.uuid4()), "client": client, "zone": body["zone"], "plate": body["plate"], "ended": None,
            "vehicle_class": body["vehicle_class"], "began": now, "ends": minutes and now + minutes * MINUTE,
        }  # fmt: skip
        self.sessions[session["id"]] = session
        return 201, self.document(session, now)

    def end(self, session: dict[str, Any], body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        now = self.now()
        if session["ended"] is not None:
            return 409, {"code": "session_ended"}
        if ZONES[session["zone"]]["admission"] == "advisory" and self.over_at(session) <= now:
            return 409, {"code": "session_expired"}
        session["ended"] = now
        return 200, self.document(session, now)

    def prolong(self, session: dict[str, Any], body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.over_at(session) <= self.now():
            return 409, {"code": "session_expired"}
        session["ends"] += body["minutes"] * MINUTE
        return 200, self.document(session, self.now())

    async def post(self, request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        action = request.match_info.get("action", "start" if request.path.endswith("sessions") else "check")
        self.requests.append((action, key))
        body = await request.json()
        if self.freeze is not None and len(self.requests) == self.freeze_at:
            self.freeze()  # the whole service stands still, as a stop-the-world pause would make it
            self.thawed = time.monotonic()
        if key in self.unavailable:
            self.unavailable.discard(key)
            return web.json_response({"code": "unavailable"}, status=503, headers={"Retry-After": "0"})
        await self.answer_once(key, action, request, body)
        if key in self.drop:
            self.drop.discard(key)
            assert request.transport is not None
            request.transport.close()
        status, document = self.by_key[key]
        return web.json_response(document, status=status)

    async def answer_once(self, key: str, action: str, request: web.Request, body: dict[str, Any]) -> None:
        """The key's first request is answered when it is its turn; any other finds that answer."""
        session = self.sessions.get(request.match_info.get("id", ""))
        step = action, body["plate"] if session is None else session["plate"]
        while action == "stop" and session and session["plate"] in self.late and self.over_at(session) > self.now():
            await asyncio.sleep(0.001)  # until the clock shows it
        async with self.turn:
            await self.turn.wait_for(lambda: step not in self.order or self.order[0] == step)
            if key in self.by_key:
                return
            self.by_key[key] = self.answer(action, request, body)
            if step in self.order:
                self.order.remove(step)
            self.turn.notify_all()

    def answer(self, action: str, request: web.Request, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        client = request.headers["Authorization"]
        if action == "check":
            return 201, self.check(body)
        if action == "start":
            status, document = self.begin(client, body)
        else:
            session = self.sessions[request.match_info["id"]]
            status, document = (self.end if action == "stop" else self.prolong)(session, body)
        if self.fault is not None and status < 400:
            self.fault(action, document)
        return status, document

    def check(self, body: dict[str, Any]) -> dict[str, Any]:
        """Paid, or not: the traffic of the tests has no other."""
        at = microseconds(body["captured_at"])
        mine = [s for s in self.sessions.values() if (s["plate"], s["zone"]) == (body["plate"], body["zone"])]
        runs = [s for s in mine if s["began"] <= at < min(self.over_at(s), s["ended"] or self.over_at(s))]
        verdict, session = ("paid", runs[0]["id"]) if runs else ("unpaid", None)
        facts = {"plate": body["plate"], "zone": body["zone"], "captured_at": body["captured_at"]}
        return {"id": str(uuid.uuid4()), "verdict": verdict, "session": session, "expired_for_seconds": None, **facts}

    def gone_at(self, session: dict[str, Any]) -> float:
        if session["ended"] is not None:
            return float(session["ended"])
        return float("inf") if ZONES[session["zone"]]["admission"] == "strict" else float(self.over_at(session))

    async def report(self, request: web.Request) -> web.Response:
        before = microseconds(request.query["to"])
        rows = [self.row(vehicle_class, before) for vehicle_class in ("car", "motorbike")]
        return web.json_response({"rows": rows})

    def row(self, vehicle_class: str, before: int) -> dict[str, Any]:
        mine = [s for s in self.sessions.values() if s["vehicle_class"] == vehicle_class and s["began"] < before]
        gone = [s for s in mine if self.gone_at(s) < before]
        instants = [s["began"] for s in mine]
        standing = [sum(s["began"] <= at < self.gone_at(s) for s in mine) for at in instants]
        minutes = sum(min(before, self.gone_at(s)) - s["began"] for s in mine) / MINUTE
        revenue = sum(fee("core", vehicle_class, s["began"], int(self.gone_at(s))) for s in gone)
        return {
            "district": DISTRICT, "vehicle_class": vehicle_class, "sessions": len(gone), "arrivals": len(mine),
            "revenue": {"amount": revenue, "currency": "VND"}, "departures": len(gone),
            "peak_occupied": max(standing, default=0), "occupied_minutes": round(minutes, 3),
        }  # fmt: skip

    async def health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "now": rfc3339(self.now()), "clock": {"speed": self.speed}})

    def availability(self, code: str) -> dict[str, Any]:
        counts = {}
        for vehicle_class, places in ZONES[code]["capacity"].items():
            taken = self.standing(code, vehicle_class)
            free, overflow = max(0, places - taken), max(0, taken - places)
            counts[vehicle_class] = {"occupied": taken, "capacity": places, "available": free, "overflow": overflow}
        return counts

    async def free(self, request: web.Request) -> web.Response:
        return web.json_response(self.availability(request.match_info["code"]))

    async def zones(self, _: web.Request) -> web.Response:
        common = {"district": DISTRICT, "street": "Phố Hàng Bông", "rate_area": "core", "kind": "kerb"}
        features = [
            {"type": "Feature", "properties": {"code": code, **common, **zone, "availability": self.availability(code)}}
            for code, zone in ZONES.items()
        ]
        return web.json_response({"type": "FeatureCollection", "features": features})

    async def districts(self, _: web.Request) -> web.Response:
        feature = {"type": "Feature", "properties": {"code": DISTRICT, "name": "Hoàn Kiếm"}}
        return web.json_response({"type": "FeatureCollection", "features": [feature]})

    async def history(self, request: web.Request) -> web.Response:
        client, now = request.headers["Authorization"], self.now()
        mine = [self.document(s, now) for s in self.sessions.values() if s["client"] == client]
        return web.json_response({"sessions": mine})

    async def consistency(self, _: web.Request) -> web.Response:
        return web.json_response({"divergences": 0, "as_of": rfc3339(self.now()), "checks": []})

    def application(self) -> web.Application:
        application = web.Application()
        application.add_routes(
            [
                web.get("/healthz", self.health),
                web.get("/v1/zones", self.zones),
                web.get("/v1/districts", self.districts),
                web.get("/v1/zones/{code}/availability", self.free),
                web.get("/v1/sessions", self.history),
                web.get("/v1/admin/consistency", self.consistency),
                web.get("/v1/reports/{name}", self.report),
                web.post("/v1/sessions", self.post),
                web.post("/v1/sessions/{id}/{action}", self.post),
                web.post("/v1/enforcement/checks", self.post),
            ]
        )
        return application


@contextmanager
def serving(service: FakeService) -> Iterator[str]:
    """The address at which the service answers, from a thread of its own."""
    loop, ready, address = asyncio.new_event_loop(), threading.Event(), []

    async def start() -> web.AppRunner:
        runner = web.AppRunner(service.application())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        return runner

    def run() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(start())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()

"""What districts took in and gave back, as planners read it, is what the ledger says, to the đồng."""

from collections import defaultdict
from datetime import datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import jobs
from app.resources import Resources
from billing import given_back, ledger, payments
from billing.gateways import Refund
from billing.ledger import Posting
from billing.payments import New
from tests.app.test_refunds import ask as request_refund
from tests.app.test_refunds import decide, void
from tests.app.test_reports import ask, rows, span, stop
from tests.app.test_reports import park as start
from tests.app.test_wallet_lines import books
from tests.conftest import HANOI, Client, SteppedClock, clear

__all__ = ["books"]
ZONES = ("HK-001", "HK-002", "BD-001")  # of two districts
# Revenue and tax by district and Hanoi day: what was charged, and (below 0) what was given back.
BOOKED = """
SELECT split_part(max(a.code) FILTER (WHERE a.kind = 'revenue'), '/', 2), t.at, (-sum(e.amount))::bigint
  FROM ledger_transaction t JOIN ledger_entry e ON e.transaction_id = t.id JOIN ledger_account a ON a.id = e.account_id
 WHERE a.kind IN ('revenue', 'vat') GROUP BY t.id
"""


def of_ledger(books: psycopg.Connection) -> dict[str, int]:
    """Revenue and tax by district."""
    found: dict[str, int] = defaultdict(int)
    for district, _, amount in books.execute(BOOKED):
        found[district] += amount
    return {district: amount for district, amount in found.items() if amount}


def given_by_day(books: psycopg.Connection) -> dict[tuple[str, str], int]:
    """What the ledger gave back, by district and Hanoi day."""
    found: dict[tuple[str, str], int] = defaultdict(int)
    for district, at, amount in books.execute(BOOKED):
        if amount < 0:
            found[district, at.astimezone(HANOI).date().isoformat()] -= amount
    return dict(found)


def close(resources: Resources) -> None:
    """Charge what is over and past every late stop."""
    jobs.release(resources)
    jobs.close(resources)


def amounts(found: list[dict], name: str) -> dict[str, int]:
    """By district."""
    sums: dict[str, int] = defaultdict(int)
    for row in found:
        sums[row["district"]] += row[name]["amount"]
    return {district: amount for district, amount in sums.items() if amount}


def pages(client: Client, **more: object) -> list[dict]:
    """All rows of a report of revenue, page by page."""
    answer = ask(client, "revenue", **more)
    assert answer.status_code == 200, answer.json
    found = answer.json["rows"]
    while "Link" in answer.headers:
        answer = client.get(answer.headers["Link"].split(">")[0][1:], role="planner")
        found += answer.json["rows"]
    return found


def test_refund_counts_in_the_bucket_in_which_it_was_given_back(
    client: Client, clock: SteppedClock, books: psycopg.Connection
):
    clock.at("2026-10-14T22:30")
    session = start(client, minutes=60)
    clock.advance(minutes=60)
    clock.at("2026-10-14T23:50")
    close(client.application.extensions["iparking"])
    asked = request_refund(client, session).json
    clock.at("2026-10-15T00:10")
    decide(client, asked, amount=10_000)
    wanted = span("2026-10-14T22:00:00", "2026-10-15T02:00:00") | {"bucket": "1h", "zone": "HK-001"}
    shown = [
        (row["from"][11:16], row["sessions"], *(row[name]["amount"] for name in ("revenue", "refunded", "net")))
        for row in rows(client, "revenue", vehicle_class="car", **wanted)
    ]
    fee = shown[1][2]
    assert fee > 0 and shown == [
        ("22:00", 0, 0, 0, 0), ("23:00", 1, fee, 0, fee), ("00:00", 0, 0, 10_000, -10_000), ("01:00", 0, 0, 0, 0),
    ]  # fmt: skip
    elsewhere = {"zone": "HK-002"}, {"vehicle_class": "motorbike"}, {"district": "001", "zone": None}
    for more in elsewhere:
        assert amounts(rows(client, "revenue", **(wanted | more)), "refunded") == {}
    lines = ask(client, "revenue", accept="text/csv", vehicle_class="car", **wanted).text.splitlines()
    assert lines[0].endswith(",refunded_amount,refunded_currency,net_amount,net_currency")
    assert lines[3].endswith(",0,VND,10000,VND,-10000,VND")


def test_every_way_back_is_subtracted(client: Client, clock: SteppedClock, books: psycopg.Connection):
    """A refund to the wallet, a void, and money that somebody gave back on the gateway's page."""
    sessions = [start(client, f"30A-000.0{n}", minutes=60) for n in range(3)]
    clock.advance(minutes=30)
    for session in sessions:
        stop(client, session)
    decide(client, request_refund(client, sessions[0]).json, amount=4_321)
    void(client, sessions[1])
    new = payments.new_id(clock.now())
    payments.create(books, [New(new, "driver", "session", sessions[2]["id"], "card", 9_000, str(new), clock.now())])
    ledger.post(books, [Posting("payment", str(new), clock.now(), {"clearing/stripe": 9_000, "bank": -9_000})])
    paid = payments.find(books, new)
    given_back.book(books, paid, Refund("re_1", 9_000, "pending"), "stripe", clock.now())
    found = rows(client, "revenue", by="district")
    assert amounts(found, "revenue") == {"002": 90_000}
    assert amounts(found, "refunded") == {"002": 4_321 + 30_000 + 9_000}
    assert amounts(found, "net") == of_ledger(books) == {"002": 90_000 - 43_321}


def test_rejected_and_undecided_refunds_give_nothing_back(client: Client, clock: SteppedClock):
    sessions = [start(client, f"30A-000.0{n}", minutes=60) for n in range(2)]
    clock.advance(minutes=30)
    for session in sessions:
        stop(client, session)
    asked = [request_refund(client, session).json for session in sessions]
    decide(client, asked[0], "reject", reason="x")
    assert amounts(rows(client, "revenue"), "refunded") == {}


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.integers(0, 11), st.sampled_from([None, 30, 90])),
        st.tuples(st.just("wait"), st.integers(1, 400)),
        st.tuples(st.just("stop"), st.integers(0, 11)),
        st.tuples(st.just("refund"), st.integers(0, 11), st.integers(1, 60_000)),
        st.tuples(st.just("void"), st.integers(0, 11)),
    ),
    min_size=3,
    max_size=14,
)


class Town:
    """Vehicles that come and go, and operators who give money back."""

    def __init__(self, client: Client, clock: SteppedClock, resources: Resources) -> None:
        self.client, self.clock, self.resources, self.sessions = client, clock, resources, {}

    def start(self, number: int, minutes: int | None) -> None:
        plate, zone = f"30A-000.{number:02}", ZONES[number % len(ZONES)]
        answer = start(self.client, plate, zone, minutes=minutes)
        if "id" in answer:
            self.sessions[number] = answer

    def wait(self, minutes: int) -> None:
        self.clock.advance(minutes=minutes)
        close(self.resources)

    def stop(self, number: int) -> None:
        if number in self.sessions:
            stop(self.client, self.sessions[number])

    def refund(self, number: int, amount: int) -> None:
        asked = self._ask(number)
        if asked:
            decide(self.client, asked, amount=amount)

    def _ask(self, number: int) -> dict | None:
        answer = request_refund(self.client, self.sessions[number]) if number in self.sessions else None
        return answer.json if answer is not None and answer.status_code == 201 else None

    def void(self, number: int) -> None:
        if number in self.sessions:
            void(self.client, self.sessions[number])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS, begin=st.sampled_from(["2026-10-14T05:40", "2026-10-14T22:50", "2026-10-31T23:00"]))
def test_net_of_all_is_what_the_ledger_has_by_district(client, clock, resources, books, actions, begin):
    clear(books)
    clock.at(begin)
    began = clock.now()
    town = Town(client, clock, resources)
    for verb, *values in actions:
        getattr(town, verb)(*values)
    for _ in range(2):
        clock.advance(hours=24)  # the longest stay is over, and charged
        close(resources)
    wanted = {"from": began.isoformat(), "to": (clock.now() + timedelta(hours=1)).isoformat(), "district": None}
    for bucket, by in (("1d", "zone"), ("1h", "district")):
        found = pages(client, **wanted, bucket=bucket, by=by)
        assert amounts(found, "net") == of_ledger(books)
        for row in found:
            assert row["net"]["amount"] == row["revenue"]["amount"] - row["refunded"]["amount"]
        days: dict[tuple[str, str], int] = defaultdict(int)
        for row in found:
            if row["refunded"]["amount"]:
                day = datetime.fromisoformat(row["from"]).astimezone(HANOI).date().isoformat()
                days[row["district"], day] += row["refunded"]["amount"]
        assert days == given_by_day(books)


@pytest.mark.parametrize("by", ["zone", "district"])
def test_pages_hold_the_same_as_the_whole(client: Client, clock: SteppedClock, by: str):
    session = start(client, minutes=60)
    clock.advance(minutes=30)
    stop(client, session)
    void(client, session)
    whole = rows(client, "revenue", by=by, bucket="1h")
    found = pages(client, by=by, bucket="1h", limit=97)
    assert len(found) > 97 and found == whole and sum(row["refunded"]["amount"] for row in whole) == 30_000

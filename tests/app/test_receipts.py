"""Receipts over HTTP and by their job: one for each charge, numbered without a gap, never another once it is issued."""

import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from pypdf import PdfReader

from app import create_app, receipts
from app.resources import Resources
from billing import ledger, vat
from billing.ledger import Posting
from tests.conftest import Client, SteppedClock
from zones import sessions

KERB, OTHER_KERB = "HK-001", "BD-001"  # districts 002 and 001


@pytest.fixture
def database(resources: Resources) -> Iterator[psycopg.Connection]:
    """As the tables' owner."""
    assert resources.settings.owner_url is not None
    with psycopg.connect(resources.settings.owner_url, autocommit=True, options="-c timezone=UTC") as connection:
        yield connection


def plates(count: int) -> list[str]:
    return [f"30A-{n:03}.00" for n in range(1, count + 1)]


def begin(client: Client, plate: str = "30A-123.45", zone: str = KERB, role: str = "driver", **more: object) -> str:
    body = {"zone": zone, "plate": plate, "vehicle_class": "car", "payment_method": "wallet"} | more
    started = client.post("/v1/sessions", json=body, role=role)
    assert started.status_code == 201, started.json
    return started.json["id"]


def end(client: Client, session: str, role: str = "driver") -> int:
    stopped = client.post(f"/v1/sessions/{session}/stop", role=role)
    assert stopped.status_code == 200, stopped.json
    return stopped.json["fee"]["amount"]


def park(client: Client, clock: SteppedClock, plate: str = "30A-123.45", **more: object) -> str:
    session = begin(client, plate, **more)
    clock.advance(minutes=20)
    end(client, session, str(more.get("role", "driver")))
    return session


def of_session(client: Client, session: str, role: str = "driver"):
    return client.get(f"/v1/sessions/{session}/receipt", role=role)


def history(client: Client, role: str = "driver", **query: object):
    return client.get("/v1/receipts", query_string=query, role=role)


def numbers(database: psycopg.Connection) -> dict[str, list[int]]:
    """The numbers of each district's series, in the order of the charges."""
    rows = database.execute("SELECT district, array_agg(number ORDER BY id) FROM receipt GROUP BY district").fetchall()
    return dict(rows)


def test_receipt_is_there_as_soon_as_the_session_is_charged(client: Client, resources: Resources, clock: SteppedClock):
    clock.at("2026-10-14T13:05:00")
    session = begin(client)
    clock.advance(minutes=140)
    fee = end(client, session)
    found = of_session(client, session)
    assert found.status_code == 200
    said = found.json
    assert said["number"] == "2026-002-0000001" and said["kind"] == "receipt" and said["corrects"] is None
    assert said["einvoice"] == {"sign": "1C26MAC", "number": 1}
    assert said["session"] == session and said["plate"] == "30A-12•••"
    assert said["zone"]["code"] == KERB and said["district"] == {"code": "002", "name": "Hoàn Kiếm"}
    assert (said["from"], said["to"]) == ("2026-10-14T13:05:00.000+07:00", "2026-10-14T15:25:00.000+07:00")
    assert sum(line["amount"] for line in said["lines"]) == said["total"]["amount"] == fee
    (tax,) = said["vat"]
    assert tax["rate"] == "8%" and tax["net"]["amount"] + tax["amount"]["amount"] == fee
    assert receipts.issue(resources) == 0, "it is issued already"
    assert client.get(f"/v1/receipts/{said['id']}", role="driver").json == said == of_session(client, session).json


def test_job_numbers_by_district_in_the_order_of_time(
    client: Client, resources: Resources, clock: SteppedClock, database: psycopg.Connection
):
    for n, plate in enumerate(plates(6)):
        park(client, clock, plate, zone=(KERB, OTHER_KERB)[n % 2])
    assert receipts.issue(resources) == 6 and receipts.issue(resources) == 0
    assert numbers(database) == {"001": [1, 2, 3], "002": [1, 2, 3]}
    assert database.execute("SELECT bool_and(issued_at >= charged_at) FROM receipt").fetchone() == (True,)


def test_receipts_are_what_the_ledger_holds(
    client: Client, resources: Resources, clock: SteppedClock, database: psycopg.Connection
):
    for n, plate in enumerate(plates(5)):
        park(client, clock, plate, zone=(KERB, OTHER_KERB)[n % 2], payment_method=("wallet", "cash")[n % 2])
    receipts.issue(resources)
    by_receipts = "SELECT district, sum(amount - vat)::bigint FROM receipt GROUP BY district ORDER BY 1"
    by_ledger = """
        SELECT split_part(a.code, '/', 2), -sum(e.amount)::bigint
          FROM ledger_entry e JOIN ledger_account a ON a.id = e.account_id
         WHERE a.kind = 'revenue' GROUP BY 1 ORDER BY 1"""
    found = database.execute(by_receipts).fetchall()
    assert len(found) == 2 and found == database.execute(by_ledger).fetchall()
    (tax,) = database.execute("SELECT sum(vat)::bigint FROM receipt").fetchone()
    assert tax == -ledger.balance(database, "vat") > 0


def test_many_issuers_at_once_leave_no_gap_and_issue_nothing_twice(
    client: Client, resources: Resources, clock: SteppedClock, database: psycopg.Connection
):
    ended = [UUID(park(client, clock, plate)) for plate in plates(24)]
    with ThreadPoolExecutor(8) as threads:
        jobs = [threads.submit(receipts.issue, resources) for _ in range(4)]
        asked = [threads.submit(receipts.of_session, resources, session, "driver") for session in ended[::2]]
        issued = sum(job.result() for job in jobs)
        assert {one.result().session_id for one in asked} == set(ended[::2])
    assert issued <= 24
    (found,) = numbers(database).values()
    assert sorted(found) == list(range(1, 25))
    assert database.execute("SELECT count(*), max(code_number) FROM einvoice").fetchone() == (24, 24)


def test_what_a_crash_left_is_issued_next(
    client: Client,
    resources: Resources,
    clock: SteppedClock,
    database: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
):
    for plate in plates(5):
        park(client, clock, plate)
    monkeypatch.setattr(receipts, "BATCH", 2)
    issue, calls = receipts.store.issue, []

    def die_in_the_second_batch(*args: object) -> int:
        calls.append(args)
        if len(calls) > 2:
            raise psycopg.OperationalError("the server closed the connection")
        return issue(*args)

    with monkeypatch.context() as patched:
        patched.setattr(receipts.store, "issue", die_in_the_second_batch)
        with pytest.raises(psycopg.OperationalError):
            receipts.issue(resources)
    assert receipts.issue(resources) == 3
    assert numbers(database) == {"002": [1, 2, 3, 4, 5]}


def test_a_charge_that_comes_late_is_found_by_the_next_round_or_the_sweep(
    client: Client, resources: Resources, clock: SteppedClock
):
    first, second, third = (begin(client, plate) for plate in plates(3))
    clock.advance(minutes=20)
    charged_at = clock.now()
    end(client, first)
    clock.advance(seconds=50)
    assert receipts.issue(resources) == 1
    clock.instant = charged_at  # a process that was a little slow
    end(client, second)
    clock.advance(seconds=50)
    assert receipts.issue(resources) == 1
    clock.advance(hours=1)
    receipts.issue(resources)
    clock.instant = charged_at  # one that was stopped for an hour
    end(client, third)
    clock.advance(hours=1)
    assert receipts.issue(resources) == 0
    assert receipts.sweep(resources) == 1


def test_a_receipt_is_nobody_else_s(client: Client, clock: SteppedClock):
    session = park(client, clock, role="driver-1")
    receipt = of_session(client, session, "driver-1").json["id"]
    assert of_session(client, session, "driver-2").status_code == 404
    assert client.get(f"/v1/receipts/{receipt}", role="driver-2").json["code"] == "not_found"
    assert client.get(f"/v1/receipts/{receipt}.pdf", role="driver-2").status_code == 404
    assert client.get(f"/v1/receipts/{receipt}", role="planner").status_code == 403
    assert history(client, "driver-2").json == {"receipts": []}


def test_pages_go_from_the_newest_to_the_oldest(client: Client, resources: Resources, clock: SteppedClock):
    ended = [park(client, clock, plate) for plate in plates(5)]
    receipts.issue(resources)
    found, page = [], history(client, limit=2)
    while True:
        found += [receipt["session"] for receipt in page.json["receipts"]]
        if "Link" not in page.headers:
            break
        page = client.get(re.search("<(.*)>", page.headers["Link"])[1], role="driver")
    assert found == ended[::-1]


@pytest.mark.parametrize(
    "path", ["/v1/receipts/x", "/v1/receipts/x.pdf", "/v1/sessions/x/receipt", "/v1/receipts?limit=0"]
)
def test_bad_parameters_are_refused(client: Client, path: str):
    answer = client.get(path, role="driver")
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_parameter")


def give_back(database: psycopg.Connection, session: str, at: datetime, gross: int, reference: str) -> UUID:
    """Book a refund of a part, to the wallet."""
    net = vat.net(gross, 800)
    entries = {"revenue/002/iparking": net, "vat": gross - net, "wallet/driver": -gross}
    return ledger.post(database, [Posting("refund", f"{session}/{reference}", at, entries)])[0]


def test_money_given_back_has_a_credit_note_on_its_receipt(
    client: Client, resources: Resources, clock: SteppedClock, database: psycopg.Connection
):
    session = park(client, clock)
    clock.advance(seconds=1)
    give_back(database, session, clock.now(), 10_000, "1")
    give_back(database, session, clock.now(), 5_000, "2")
    assert receipts.issue(resources) == 3, "the receipt first, though nobody asked for it"
    second, first, receipt = history(client).json["receipts"]
    assert [one["number"] for one in (receipt, first, second)] == [f"2026-002-000000{n}" for n in (1, 2, 3)]
    assert first["kind"] == "credit_note" and first["corrects"] == receipt["number"]
    assert {one["total"]["amount"] for one in (first, second)} == {-10_000, -5_000}
    assert all(
        one["net"]["amount"] + one["vat"][0]["amount"]["amount"] == one["total"]["amount"] for one in (first, second)
    )
    assert first["zone"] == receipt["zone"] and first["lines"] == []
    assert of_session(client, session).json == receipt
    paper = client.get(f"/v1/receipts/{first['id']}.pdf", role="driver")
    assert receipt["number"] in PdfReader(io.BytesIO(paper.data)).pages[0].extract_text()


def test_a_charge_that_is_reversed_has_a_credit_note_of_all_of_it(
    client: Client, resources: Resources, clock: SteppedClock, database: psycopg.Connection
):
    session = park(client, clock, payment_method="cash")
    charge = UUID(of_session(client, session).json["id"])
    clock.advance(seconds=1)
    ledger.reverse(database, charge, "mistake-1", clock.now())
    assert receipts.issue(resources) == 1
    note, receipt = history(client).json["receipts"]
    assert note["total"]["amount"] == -receipt["total"]["amount"] and note["corrects"] == receipt["number"]
    assert database.execute("SELECT sum(amount), sum(vat) FROM receipt").fetchone() == (0, 0)
    assert ledger.balance(database, "vat") == ledger.balance(database, "revenue/002/iparking") == 0


def test_other_transactions_have_none(resources: Resources, clock: SteppedClock, database: psycopg.Connection):
    at = clock.now()
    topup = ledger.post(database, [Posting("topup", "1", at, {"clearing/stripe": 1_000, "wallet/driver": -1_000})])[0]
    ledger.reverse(database, topup, "2", at)
    ledger.post(database, [Posting("refund", "a-withdrawal", at, {"wallet/driver": 500, "clearing/stripe": -500})])
    assert receipts.issue(resources) == 0


def test_before_the_charge_there_is_no_receipt(client: Client):
    session = begin(client)
    answer = of_session(client, session)
    assert answer.status_code == 404
    assert answer.json["detail"] == "the session is not charged yet; its receipt is there once it is"
    assert of_session(client, "01990000-0000-7000-8000-000000000000").json["title"] == "No such session"


def test_a_free_session_has_none(client: Client, clock: SteppedClock, database: psycopg.Connection):
    session_id = sessions.new_id(clock.now())
    database.execute(
        "INSERT INTO parking_session (id, plate, vehicle_class, client, zone_code, admission, started_at, over_at, "
        "ended_at, ended_by, received_at, payment_method, rate_version, fee) "
        "VALUES (%s, '30A-123.45', 'car', 'driver', 'HK-001', 'advisory', %s, %s, %s, 'driver', %s, 'wallet', 'v', 0)",
        (session_id, *[clock.now()] * 4),
    )
    assert of_session(client, str(session_id)).json["detail"] == "the session was free: nothing was charged"


def test_later_names_change_no_receipt(client: Client, clock: SteppedClock, database: psycopg.Connection):
    session = park(client, clock)
    before = of_session(client, session).get_data()
    (name,) = database.execute(
        "UPDATE zone SET name = name || ' (mới)' WHERE code = %s RETURNING name", (KERB,)
    ).fetchone()
    try:
        assert of_session(client, session).get_data() == before
        other = park(client, clock, "30A-002.00")
        assert of_session(client, other).json["zone"]["name"] == name
    finally:
        database.execute("UPDATE zone SET name = replace(name, ' (mới)', '') WHERE code = %s", (KERB,))


@pytest.mark.parametrize(
    "statement", ["UPDATE receipt SET amount = amount + 1", "DELETE FROM receipt", "TRUNCATE receipt, einvoice",
                  "DELETE FROM einvoice", "UPDATE einvoice SET state = 'accepted'"]
)  # fmt: skip
def test_the_database_refuses_to_change_one(
    client: Client, clock: SteppedClock, database: psycopg.Connection, statement: str
):
    of_session(client, park(client, clock))
    with pytest.raises((psycopg.errors.RestrictViolation, psycopg.errors.CheckViolation)):
        database.execute(statement)


def test_a_new_year_has_new_numbers_and_its_own_tax(
    client: Client, resources: Resources, clock: SteppedClock, database: psycopg.Connection
):
    clock.at("2026-12-31T23:30:00")
    old = park(client, clock, "30A-001.00")
    at_new_year = begin(client, "30A-002.00")
    receipts.issue(resources)
    clock.at("2027-01-01T00:00:00")
    end(client, at_new_year)
    said = [of_session(client, session).json for session in (old, at_new_year)]
    assert [one["number"] for one in said] == ["2026-002-0000001", "2027-002-0000001"]
    assert [one["vat"][0]["rate"] for one in said] == ["8%", "10%"]
    assert said[1]["einvoice"]["sign"] == "1C27MAC"


def test_a_clock_that_goes_back_dates_no_number_before_the_one_ahead_of_it(
    client: Client, resources: Resources, clock: SteppedClock, database: psycopg.Connection
):
    one, other = begin(client, "30A-001.00"), begin(client, "30A-002.00")
    clock.advance(minutes=5)
    end(client, one)
    of_session(client, one)
    clock.advance(minutes=-1)
    end(client, other)
    of_session(client, other)
    dated = database.execute("SELECT issued_at FROM receipt ORDER BY number").fetchall()
    assert dated == sorted(dated) and len(dated) == 2


def test_pdf_by_its_address_and_by_accept(client: Client, clock: SteppedClock):
    receipt = of_session(client, park(client, clock)).json
    paper = client.get(f"/v1/receipts/{receipt['id']}.pdf", role="driver")
    assert paper.status_code == 200 and paper.mimetype == "application/pdf"
    assert f"{receipt['number']}-vi.pdf" in paper.headers["Content-Disposition"]
    wanted = {"Accept": "application/pdf"}
    for path in (f"/v1/receipts/{receipt['id']}", f"/v1/sessions/{receipt['session']}/receipt"):
        assert client.get(path, headers=wanted, role="driver").data == paper.data
    english = client.get(f"/v1/receipts/{receipt['id']}.pdf?lang=en", role="driver")
    assert "PARKING RECEIPT" in PdfReader(io.BytesIO(english.data)).pages[0].extract_text()
    assert client.get(f"/v1/receipts/{receipt['id']}.pdf?lang=fr", role="driver").status_code == 400
    again = client.get(
        f"/v1/receipts/{receipt['id']}.pdf", headers={"If-None-Match": paper.headers["ETag"]}, role="driver"
    )
    assert (again.status_code, again.data) == (304, b"")


def test_without_the_font_json_is_still_served(
    client: Client, resources: Resources, clock: SteppedClock, tmp_path: Path
):
    receipt = of_session(client, park(client, clock)).json
    app = create_app(resources.settings, replace(resources, settings=replace(resources.settings, font_folder=tmp_path)))
    app.test_client_class = Client
    bare = app.test_client()
    answer = bare.get(f"/v1/receipts/{receipt['id']}.pdf", role="driver")
    assert (answer.status_code, answer.json["code"]) == (503, "pdf_unavailable")
    assert "fonts-dejavu-core" in answer.json["detail"]
    assert bare.get(f"/v1/receipts/{receipt['id']}", role="driver").json == receipt

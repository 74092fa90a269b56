"""The service connects as a role that owns nothing: it can neither change what is booked, nor the schema."""

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from app.resources import Resources
from billing import ledger
from tests.billing.money import NOW, book, name
from tests.conftest import Client
from zones import partitions

ROLE = "iparking_service"


@pytest.fixture
def service(resources: Resources) -> psycopg.Connection:
    """A connection of the service's own."""
    connection = resources.connections.get()
    if connection.info.user != ROLE:
        pytest.skip("through a PgBouncer the tests have one role")
    return connection


LEDGER = ("ledger_entry", "ledger_transaction", "ledger_account")
FORBIDDEN = [
    *(f"DELETE FROM {table}" for table in (*LEDGER, "parking_session")),
    *(f"TRUNCATE {table} CASCADE" for table in (*LEDGER, "parking_session", "wallet", "hold", "payment")),
    "UPDATE ledger_entry SET amount = amount",
    "UPDATE ledger_transaction SET at = at",
    "UPDATE ledger_account SET code = code",
    "UPDATE parking_session SET fee = 0",
    "UPDATE receipt SET number = number",
    "DELETE FROM audit_log",
    "UPDATE rate_line SET price = 0",
    "UPDATE vat_rate SET basis_points = 0",
    "UPDATE city_share_rate SET basis_points = 0",
    "UPDATE city_share_day SET share = 0",
    "DELETE FROM city_share_day",
    "UPDATE zone SET rate_area = 'core'",
    "DELETE FROM alembic_version",
    "CREATE TABLE another (id int)",
    "DROP TABLE ledger_entry",
    "ALTER TABLE ledger_entry DISABLE TRIGGER ledger_entry_balanced",
    "DROP TRIGGER ledger_entry_balanced ON ledger_entry",
    "CREATE OR REPLACE FUNCTION vat_net(g bigint, p integer) RETURNS bigint LANGUAGE sql AS 'SELECT 0'",
    "SET session_replication_role = replica",
    "ALTER TABLE parking_session DETACH PARTITION parking_session_default",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_service_lacks_the_right(service: psycopg.Connection, statement: str):
    with pytest.raises(InsufficientPrivilege):
        service.execute(statement)  # type: ignore[arg-type]


def test_service_owns_nothing_and_no_table_is_forgotten(service: psycopg.Connection):
    owned = "SELECT count(*) FROM pg_class WHERE relowner = current_user::regrole"
    assert service.execute(owned).fetchone() == (0,)
    unread = """SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
        AND NOT has_table_privilege(oid, 'SELECT')"""
    assert service.execute(unread).fetchall() == []


def test_service_books_and_parks(service: psycopg.Connection, client: Client):
    owner = name()
    transaction = book(service, {"bank": 5, f"wallet/{owner}": -5})
    ledger.reverse(service, transaction, name("r"), NOW)
    body = {"zone": "HK-001", "plate": "30A-123.45", "vehicle_class": "car", "payment_method": "wallet"}
    session = client.post("/v1/sessions", json=body, role="driver", key="k").json
    assert client.post(f"/v1/sessions/{session['id']}/stop", json={}, role="driver").status_code == 200


def test_months_are_made_with_the_owners_rights(service: psycopg.Connection):
    made = partitions.make_ahead(service, NOW.replace(year=2031), 0)
    assert made == ["parking_session_2031_10"]
    row = service.execute("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = %s", made).fetchone()
    assert row is not None and row[0] != ROLE
    assert service.execute(f"SELECT count(*) FROM {made[0]}").fetchone() == (0,)  # type: ignore[arg-type]

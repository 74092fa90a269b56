"""The cards that drivers have left with the gateway: one each, by the gateway's names. We never see a number."""

from datetime import datetime
from typing import NamedTuple

import psycopg

from billing.errors import NoCard
from billing.gateways import Card


class Kept(NamedTuple):
    """A client's card at the gateway."""

    customer: str
    payment_method: str


def keep(connection: psycopg.Connection, client: str, card: Card, at: datetime) -> None:
    """Keep a card in place of the one before."""
    connection.execute(
        "INSERT INTO card (client, customer, payment_method, kept_at) VALUES (%s, %s, %s, %s) "
        "ON CONFLICT (client) DO UPDATE "
        "SET customer = EXCLUDED.customer, payment_method = EXCLUDED.payment_method, kept_at = EXCLUDED.kept_at",
        (client, card.customer, card.payment_method, at),
    )


def of(connection: psycopg.Connection, client: str) -> Kept:
    """The card of a client. Raises NoCard."""
    row = connection.execute("SELECT customer, payment_method FROM card WHERE client = %s", (client,)).fetchone()
    if row is None:
        raise NoCard("no card is kept for you: add one first")
    return Kept(*row)

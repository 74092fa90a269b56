"""Reconciliation wired up: which gateways there are here, their lists, and the night's job."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import NamedTuple

from app.cards import GATEWAY, real_now
from app.config import Settings
from app.resources import Resources, make_resources
from app.stack import Stack, find_database
from billing.errors import GatewayUnavailable, MethodUnavailable
from billing.reconcile import List, Result, lists, reconcile
from billing.reconcile.days import HANOI, span_of

log = logging.getLogger(__name__)
# Gateways list a day's last movements some time after midnight.
NIGHT = time(3)


class Files(NamedTuple):
    """A bank's statement and VNPay's list, where somebody has them."""

    statement: Path | None = None
    vnpay: Path | None = None


NO_FILES = Files()


def run(resources: Resources, day: date, files: Files = NO_FILES) -> Result:
    """Reconcile a day of Hanoi.

    Raises GatewayUnavailable, ImportRefused, WrongDay and MethodUnavailable, and nothing was compared.
    """
    with opened_lists(resources, day, files) as read:
        return reconcile(resources.connections.get(), day, read, resources.card_gateway, resources.clock.now())


@contextmanager
def opened_lists(resources: Resources, day: date, files: Files) -> Iterator[Sequence[List]]:
    """The lists of all gateways of which there is one, read whole, with no transaction open."""
    with ExitStack() as stack:
        yield [stack.enter_context(one) for one in _lists(resources, day, files)]


def _lists(resources: Resources, day: date, files: Files) -> Iterator[List]:
    cards = resources.card_gateway
    if cards is not None:
        yield lists.of_cards(cards, GATEWAY, day, real_now())
    elif _has_bookings(resources, GATEWAY, day):
        raise MethodUnavailable(f"{GATEWAY} has bookings on {day} and is not set up here: its list cannot be read")
    if files.statement:
        yield from lists.of_statement(files.statement, day)
    else:
        yield from (lists.of_credits("vietqr", day), lists.of_credits("bank", day))
    yield lists.of_vnpay(files.vnpay, day) if files.vnpay else lists.of_credits("vnpay", day)
    yield lists.of_shifts(day)


def _has_bookings(resources: Resources, gateway: str, day: date) -> bool:
    query = (
        "SELECT FROM ledger_transaction t JOIN ledger_entry e ON e.transaction_id = t.id "
        "JOIN ledger_account a ON a.id = e.account_id WHERE a.code = %s AND t.at >= %s AND t.at < %s LIMIT 1"
    )
    return resources.connections.get().execute(query, (f"clearing/{gateway}", *span_of(day))).rowcount == 1


@contextmanager
def opened(database: str) -> Iterator[Resources]:
    """The service's resources on a database of the private server, or of IPARKING_DATABASE_URL's, for a command; the
    rails are those of the environment."""
    with Stack() as stack:
        url = find_database(stack, database)
        given = {"IPARKING_DATABASE_URL": url, "IPARKING_REDIS_URL": stack.redis_url}
        resources = make_resources(Settings.from_environment({**os.environ, **given}))
        try:
            yield resources
        finally:
            resources.close()


# --- every night ------------------------------------------------------------------------------------------------------
def nightly(resources: Resources) -> int:
    """Reconcile the day before, and once more the one before it, whose late lines have come; the number of days.

    A gateway that is away is asked again by the next round. Files that were given for a day before count as they were.
    """
    done = 0
    for day in due(resources):
        try:
            run(resources, day)
        except (GatewayUnavailable, MethodUnavailable) as error:
            log.warning("%s is reconciled later: %s", day, error)
        else:
            done += 1
    return done


def due(resources: Resources) -> list[date]:
    """The days that were not reconciled since this night began; none before it does."""
    now = resources.clock.now().astimezone(HANOI)
    night = datetime.combine(now.date(), NIGHT, HANOI)
    if now < night:
        return []
    days = [now.date() - timedelta(days=n) for n in (1, 2)]
    query = "SELECT day FROM reconciliation WHERE day = ANY(%s) AND compared_at >= %s"
    done = {row[0] for row in resources.connections.get().execute(query, (days, night))}
    return [day for day in days if day not in done]

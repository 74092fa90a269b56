"""Periodic work, in a process of its own: give back places, close what is over, heal copies, issue receipts, and more.

Answers never wait for a job: an expired session is expired the instant its time is over, and a missing copy is read
from PostgreSQL. Cadence is real time, whatever the business clock does.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from app import archiving, card_jobs, idempotency, parking, receipts, webhooks
from app import reconcile as money
from app.background import Background
from app.config import Settings
from app.errors import Unavailable
from app.resources import Resources, make_resources
from billing import city_share, ledger, transfers
from zones import occupancy, partitions, sessions
from zones.occupancy import CopiesAway

log = logging.getLogger(__name__)
CLOSE_BATCH = 500
PARTITIONS_AHEAD = 3


@dataclass(frozen=True, slots=True)
class Job:
    """One verb and how often it runs (real seconds)."""

    run: Callable[[Resources], int]
    every: float


def release(resources: Resources) -> int:
    """Give back the places of advisory sessions whose time is over; the counts that changed."""
    counts = sessions.release_over(resources.connections.get(), resources.clock.now())
    resources.push(*counts)
    return len(counts)


def close(resources: Resources) -> int:
    """Close what is over and past every late stop; the number closed."""
    now, closed = resources.clock.now(), 0
    while ids := sessions.ready_to_close(resources.connections.get(), now, CLOSE_BATCH):
        closed += parking.close(resources, ids, now, "expiry")
    return closed


def reconcile(resources: Resources) -> int:
    """Put right the copies in Redis; the number that were wrong. Redis away is for the next round."""
    try:
        return occupancy.reconcile(resources.connections.get(), resources.copies)
    except CopiesAway:
        return 0


def make_partitions(resources: Resources) -> int:
    """Make the months ahead, and those of sessions that had none; the number made."""
    connection = resources.connections.get()
    made = partitions.make_ahead(connection, resources.clock.now(), PARTITIONS_AHEAD)
    left = partitions.left_in_default(connection)
    if left:
        log.warning("%d sessions stand in parking_session_default: too many to move while the service runs", left)
    return len(made)


def expire_holds(resources: Resources) -> int:
    """Give back wallet money that was put aside for longer than any session may last; the number of holds."""
    return ledger.expire_holds(resources.connections.get(), resources.clock.now(), CLOSE_BATCH)


def expire_payments(resources: Resources) -> int:
    """Note which payments at banks and VNPay nobody made in time; their number."""
    return transfers.expire(resources.connections.get(), resources.clock.now(), CLOSE_BATCH)


def share_with_city(resources: Resources) -> int:
    """Book the city's share of the days that are over; their number."""
    return city_share.book(resources.connections.get(), resources.clock.now())


def forget_keys(resources: Resources) -> int:
    """Delete idempotency keys that are no longer remembered."""
    return idempotency.forget(resources.connections.get(), resources.clock.now())


JOBS = {
    "release": Job(release, every=1),
    "reconcile": Job(reconcile, every=2),
    "close": Job(close, every=5),
    "expire_holds": Job(expire_holds, every=60),
    "look_at_cards": Job(Background(card_jobs.look), every=1),
    "settle_cards": Job(Background(card_jobs.settle, threads=4), every=1),
    "collect": Job(card_jobs.collect, every=60),
    "refund": Job(card_jobs.refund, every=5),
    "handle_webhooks": Job(Background(webhooks.handle), every=1),
    "forget_webhooks": Job(webhooks.forget, every=3600),
    "expire_payments": Job(expire_payments, every=60),
    "issue_receipts": Job(receipts.issue, every=2),
    "send_einvoices": Job(receipts.send_einvoices, every=2),
    "make_partitions": Job(make_partitions, every=600),
    "forget_keys": Job(forget_keys, every=600),
    "sweep_receipts": Job(receipts.sweep, every=3600),
    "reconcile_money": Job(Background(money.nightly), every=600),
    "share_with_city": Job(Background(share_with_city), every=600),
    "archive": Job(archiving.begin, every=3600),
}


def run_due(resources: Resources, due: dict[str, float], now: float) -> None:
    """Run each job whose time has come (`now` is a monotonic second) and set its next one.

    A failure waits for that, whatever it is: a bug in one job must not keep the others from their work.
    """
    for name, job in JOBS.items():
        if now < due.get(name, 0.0):
            continue
        due[name] = now + job.every
        try:
            done = job.run(resources)
            log.debug("%s: %d", name, done)
        except (psycopg.Error, SQLAlchemyError, Unavailable) as error:
            log.warning("%s failed, again in %g s: %s", name, job.every, error)
        except Exception:
            log.exception("%s failed, again in %g s", name, job.every)


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    resources = make_resources(Settings.from_environment())
    resources.watch()
    due: dict[str, float] = {}
    while not stopped.is_set():
        run_due(resources, due, time.monotonic())
        stopped.wait(max(0.0, min(due.values()) - time.monotonic()))
    resources.close()


if __name__ == "__main__":
    main()

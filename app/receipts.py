"""Receipts: `billing` knows what was charged, `zones` where and when; here they become papers, and e-invoices are sent.

A job issues them in the order of time, seconds after the charge; a driver who asks sooner gets his at once, by the same
function. Neither is on the path of a stop.
"""

import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import psycopg

from app.resources import Resources
from billing import einvoices, vat
from billing.einvoices import store as invoices
from billing.errors import NoRate, ProviderUnavailable, UnknownReceipt
from billing.receipts import charges, content, store
from billing.receipts.charges import PARKING, Charge
from billing.receipts.store import Draft, Receipt
from zones import plates, sessions, stays
from zones.stays import Stay

log = logging.getLogger(__name__)
BATCH = 200
# Real seconds: the other jobs wait for this one.
LONGEST_ROUND = 0.25
# A charge is visible at most so long after its instant (real time): locks and statements have their time-outs. A
# process that was stopped in the middle of one takes longer; the sweep looks further back.
LATEST_CHARGE = timedelta(seconds=60)
SWEPT = timedelta(days=2)


def issue(resources: Resources) -> int:
    """Issue what has no receipt yet, for LONGEST_ROUND, on from where the last round came; the number issued."""
    connection = resources.connections.get()
    settled = charges.first_id_at(resources.clock.now() - LATEST_CHARGE * max(1.0, resources.clock.speed))
    issued, reached = _issue_from(resources, store.progress(connection))
    store.advance(connection, settled if reached is None else min(reached, settled))
    return issued


def sweep(resources: Resources) -> int:
    """Issue what `issue` passed by in the last days, for LONGEST_ROUND; the number issued."""
    return _issue_from(resources, charges.first_id_at(resources.clock.now() - SWEPT))[0]


def _issue_from(resources: Resources, position: UUID) -> tuple[int, UUID | None]:
    """Issue from a transaction on: the number issued, and the last one that was reached (None: the end)."""
    connection, until, issued = resources.connections.get(), time.monotonic() + LONGEST_ROUND, 0
    while batch := charges.pending(connection, position, BATCH):
        issued += _issue(resources, connection, batch)
        position = batch[-1].id
        if time.monotonic() >= until:
            return issued, position
    return issued, None


def _issue(resources: Resources, connection: psycopg.Connection, batch: Sequence[Charge]) -> int:
    """Issue these charges, then the refunds among them, which name their receipts."""
    now, rates = resources.clock.now(), vat.load(connection)
    parked = [charge for charge in batch if charge.kind == PARKING]
    found = stays.finished(connection, {charge.session_id: charge.district for charge in parked})
    drafts = [_draft(resources, charge, found.get(charge.session_id), rates) for charge in parked]
    issued = store.issue(connection, filter(None, drafts), now)
    refunds = [charge for charge in batch if charge.kind != PARKING and charge.gross]
    charged = store.by_ids(connection, [charge.of for charge in refunds if charge.of]) if refunds else {}
    notes = [_note(charge, charged.get(charge.of) if charge.of else None) for charge in refunds]
    return issued + store.issue(connection, filter(None, notes), now)


def _draft(resources: Resources, charge: Charge, stay: Stay | None, rates: vat.VatTable) -> Draft | None:
    """What the receipt of a charge will say; None, and a line for the operator, where that cannot be known."""
    if stay is None:
        log.error("no receipt for charge %s: session %s is not there", charge.id, charge.session_id)
        return None
    try:
        rate = resources.catalogue.rates.version(stay.rate_version)
        basis_points = rates.at(charge.at).basis_points
    except NoRate as error:
        log.error("no receipt for charge %s: %s", charge.id, error)
        return None
    told = _told(charge, stay, keeps_unused=rate.refund == "none")
    return Draft(charge, content.of_charge(charge, told, rate, basis_points, resources.settings.seller))


def _told(charge: Charge, stay: Stay, keeps_unused: bool) -> content.Stay:
    """The stay as a receipt tells it: of the plate not all."""
    return content.Stay(
        session_id=stay.id,
        zone=stay.zone,
        zone_name=stay.zone_name,
        street=stay.street,
        district=charge.district,
        district_name=stay.district_name,
        plate=plates.masked(stay.plate),
        vehicle_class=stay.vehicle_class,
        started_at=stay.started_at,
        ended_at=stay.ended_at,
        charged_until=(keeps_unused and stay.ends_at) or stay.ended_at,
        payment_method=stay.payment_method,
        rate_version=stay.rate_version,
    )


def _note(refund: Charge, charged: Receipt | None) -> Draft | None:
    """What a credit note will say; None, and a line for the operator, where its receipt is missing."""
    if charged is None:
        log.error("no credit note for refund %s: what it gives back has no receipt", refund.id)
        return None
    return Draft(refund._replace(client=charged.client), content.of_refund(refund, charged.content))


def of_session(resources: Resources, session_id: UUID, client: str) -> Receipt:
    """The receipt of one of the client's sessions, issued now where the job has not come to it.

    Raises UnknownSession; UnknownReceipt where the session goes on, or owed nothing.
    """
    connection = resources.connections.get()
    found = store.of_session(connection, session_id, client)
    if found is not None:
        return found
    session = sessions.find(connection, session_id, client, resources.clock.now())
    charge = charges.of_session(connection, session_id)
    if charge is None:
        raise UnknownReceipt(_why_none(session.state))
    _issue(resources, connection, [charge])
    found = store.of_session(connection, session_id, client)
    if found is None:
        raise UnknownReceipt("the receipt cannot be made; the operator is told")
    return found


def _why_none(state: str) -> str:
    if state == "ended":
        return "the session was free: nothing was charged"
    return "the session is not charged yet; its receipt is there once it is"


def send_einvoices(resources: Resources) -> int:
    """Send e-invoices whose time has come, for LONGEST_ROUND; the number that the provider answered.

    The first one that gets no answer ends the round: the other jobs wait meanwhile. Nothing is sent while no provider
    is set, or the seller is not known.
    """
    seller, provider = resources.settings.seller, resources.einvoices
    if seller is None or provider is None:
        return 0
    connection, until, answered = resources.connections.get(), time.monotonic() + LONGEST_ROUND, 0
    while time.monotonic() < until:
        invoice = invoices.take(connection, seller, resources.clock.now())
        if invoice is None or not _send(resources, connection, provider, invoice):
            break
        answered += 1
    return answered


def _send(
    resources: Resources, connection: psycopg.Connection, provider: einvoices.Provider, invoice: invoices.Taken
) -> bool:
    """Hand in one invoice and note the answer; whether there was one."""
    try:
        answer = provider.submit(invoice.id, invoice.name, invoice.document)
    except ProviderUnavailable as error:
        log.warning("e-invoice %s is tried again: %s", invoice.name, error)
        invoices.note_failure(connection, invoice.id, str(error))
        return False
    if answer.reference is None:
        log.error("e-invoice %s is refused: %s", invoice.name, answer.reason)
    invoices.settle(connection, invoice.id, answer, resources.clock.now())
    return True

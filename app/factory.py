"""Makes the Flask application: its resources, its blueprints, its errors, its document."""

from flask import Flask

from app import errors
from app.api import (
    attendants,
    cards,
    documents,
    enforcement,
    monitoring,
    notices,
    operations,
    payments,
    permits,
    quotes,
    receipts,
    refunds,
    reports,
    sessions,
    wallet,
    webhooks,
    withdrawals,
    zones,
)
from app.availability import Map
from app.config import Settings
from app.fast_path import FastPath
from app.resources import Resources, make_resources

BLUEPRINTS = (
    monitoring.monitoring,
    zones.zones,
    quotes.quotes,
    sessions.sessions,
    receipts.receipts,
    wallet.wallet,
    cards.cards,
    payments.payments,
    withdrawals.withdrawals,
    withdrawals.decisions,
    refunds.refunds,
    refunds.decisions,
    attendants.attendants,
    attendants.floats,
    permits.permits,
    enforcement.enforcement,
    reports.reports,
    webhooks.webhooks,
    notices.notices,
    operations.operations,
)


def create_app(settings: Settings, resources: Resources | None = None) -> Flask:
    """The application. `resources` replaces what would be made from the settings (tests bring a clock of their own)."""
    app = Flask("app", static_folder=None)
    held = resources or make_resources(settings)
    app.extensions["iparking"] = held
    app.extensions["iparking_map"] = Map(held)
    app.config.update(MAX_CONTENT_LENGTH=settings.max_body_bytes, **documents.OPENAPI)
    app.url_map.strict_slashes = False
    api = documents.Api(app)
    errors.register(app)  # after flask-smorest, whose own handler it replaces
    monitoring.measure(app)
    for blueprint in BLUEPRINTS:
        api.register_blueprint(blueprint)
    documents.register(app, api)
    app.wsgi_app = FastPath(app, held)  # type: ignore[method-assign]
    held.watch()
    return app

"""The web and the wiring: `create_app` makes the Flask application from its settings.

What it needs is loaded when it is called: the command line lives in this package too, and is to start at once.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from app.config import Settings
    from app.resources import Resources


def create_app(settings: "Settings", resources: "Resources | None" = None) -> "Flask":
    """The application. `resources` replaces what would be made from the settings (tests bring a clock of their own)."""
    from app import factory

    return factory.create_app(settings, resources)

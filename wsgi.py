"""What a WSGI server loads: `granian --interface wsgi wsgi:application`."""

from app import create_app
from app.config import Settings

application = create_app(Settings.from_environment())

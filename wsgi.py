"""What a WSGI server loads: `granian --interface wsgi wsgi:application`."""

import gc

from app import create_app
from app.config import Settings

application = create_app(Settings.from_environment())
# What was made so far lives as long as the process: the collector need not look through it again and again.
gc.collect()
gc.freeze()

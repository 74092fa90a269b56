"""Examples are checked for what they say, not for how long a busy machine takes over them."""

from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

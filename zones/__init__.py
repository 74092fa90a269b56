"""Where vehicles are: zones, plates, sessions, counts, checks."""

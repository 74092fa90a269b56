"""Verbs of the command line that are too large for app/cli.py, one file a group."""

"""The shipped city: outlines of the nine districts and the zones (ODbL, see README.md and NOTICE)."""

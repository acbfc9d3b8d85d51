"""Arbitrary bytes for the server; see ``targets.py``."""

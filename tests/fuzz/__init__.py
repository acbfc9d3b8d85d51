"""The server, given any bytes; see ``targets.py``."""

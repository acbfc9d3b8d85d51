"""Push messages from Django to browsers over websockets, served by Twisted.

Importing this package imports nothing else: no reactor, no Redis client, no Django.
"""

__version__ = "0.1.0"

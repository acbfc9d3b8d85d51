"""One client from its handshake to its release, and the server that all sessions share.

Knows everything above it through interfaces. It must not know Autobahn, ``twisted.web`` or Django.
"""

"""One client from its handshake to its release, and the server that all sessions share.

It knows the rooms above it, and its transports through an interface. It must not know Autobahn,
``twisted.web`` or Django.
"""

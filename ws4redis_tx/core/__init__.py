"""The vocabulary and the rules: names, messages, handshakes, identities, origins, limits.

It knows only the standard library: no reactor, no Redis client, no websocket library, no Django.
"""

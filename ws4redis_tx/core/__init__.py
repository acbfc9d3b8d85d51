"""The vocabulary and the rules: names, messages, handshakes, identities, origins, limits.

Knows the standard library alone: no reactor, no Redis client, no websocket library, no Django.
"""

"""What a client's bytes mean: one module for each protocol spoken over a session.

Knows facilities, rights and the broker. It must not know how bytes travel, nor keep a client.
"""

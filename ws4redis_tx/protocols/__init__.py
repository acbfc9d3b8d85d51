"""The meaning of a client's bytes: one module for each protocol that a session can speak.

It knows facilities, rights and the broker. It must not know how bytes travel, nor keep a client.
"""

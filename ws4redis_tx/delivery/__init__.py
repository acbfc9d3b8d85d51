"""From a publication to the bytes that each client is sent, in order and within bounds.

This room is pure: it knows neither sockets nor Redis nor the clients' identities.
"""

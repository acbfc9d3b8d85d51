"""Histories: the scripts that keep and read them, and what somebody has missed.

It knows the names and forms in Redis. It must not know connections, nor who asks.
"""

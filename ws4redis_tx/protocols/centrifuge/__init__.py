"""Centrifuge's client protocol: its messages, its commands, and what a client has.

Knows the broker, and what a session offers. Must not know any transport, nor Redis, nor Django.
"""

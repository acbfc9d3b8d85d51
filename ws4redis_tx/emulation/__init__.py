"""Centrifuge's client protocol over HTTP: responses without end, and POSTs for what a client sends.

It knows sessions, the protocol's messages and the broker. It must not know websockets.
"""

"""Centrifuge's client protocol: its messages, and a client's commands. Knows the broker, and no
transport.
"""

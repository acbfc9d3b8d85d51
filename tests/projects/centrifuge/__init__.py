"""Recorded conversations of the reference server of Centrifuge's client protocol, the program that
plays them, and the site that it is played against.

``centrifuge-check --help`` tells how to play them against any server.
"""

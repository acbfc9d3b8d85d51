"""Knows who is present, as Redis keeps it: the scripts, and the commands that call them.

It must not know when they are called, who listens, or what a session is.
"""

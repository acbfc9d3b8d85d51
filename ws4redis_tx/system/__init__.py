"""The operating system around a process: its command line, signals, limits, systemd, the pidfile.

Knows processes and what they are told by name. It must not know what they serve.
"""

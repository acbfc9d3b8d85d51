"""The operating system around a process: its command line, signals, limits, systemd, the pidfile.

Knows processes and the configuration. It must not import what serves: no reactor, no websocket.
"""

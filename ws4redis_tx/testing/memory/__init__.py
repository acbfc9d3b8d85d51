"""Redis in memory: its keys, its histories, and what is in flight to and from it.

Knows the forms in which histories are read and published. Must not know sockets, nor who asks.
"""

"""Knows who is present on which channel of this server, and tells Redis of it: once for each coming
and going, and once in a while that this server is alive. It sees to the clients of servers that are
alive no more. It must not know scripts, sockets, or what clients are sent.
"""

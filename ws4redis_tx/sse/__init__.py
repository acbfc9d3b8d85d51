"""Server-sent events: a transport for clients that only listen, over an HTTP response without end.

It knows sessions and Twisted's transports. It must not know websockets, nor what a message means.
"""

"""Django's side: authorization, system checks, signals, and the site on the server's own port.

Knows Django and the public names. It must not know sockets, frames or Redis' protocol.
"""

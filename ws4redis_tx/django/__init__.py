"""Django's side: who a visitor is, system checks, signals, the site on the server's own port.

Knows Django and the public names. It must not know sockets, frames or Redis' protocol.
"""

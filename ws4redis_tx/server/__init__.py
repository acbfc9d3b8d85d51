"""The running service: Twisted, Autobahn and txredisapi, in the reactor thread.

Knows ``ws4redis_tx.core`` and nothing of Django.
"""

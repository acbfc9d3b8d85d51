"""One connection to Redis: the endpoint, log-in, protocol, back-off, and Redis' refusals.

The one place that knows txredisapi (``protocol``). It must not know what is asked or published.
"""

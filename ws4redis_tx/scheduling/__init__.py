"""When something happens: timeouts, periodic sweeps, queues, Deferreds that several wait for.

Knows Twisted's clock and Deferreds. It must not know what it schedules.
"""

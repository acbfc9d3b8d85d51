"""When something happens: timeouts, periodic sweeps, queues, waiting for Deferreds and events.

Knows Twisted's clock and Deferreds. It must not know what it schedules.
"""

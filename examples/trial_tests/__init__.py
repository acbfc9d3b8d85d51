"""Tests of a user's own code, with every helper of ``ws4redis_tx.testing`` that works in memory.

Run them with ``python -m twisted.trial examples/trial_tests``, or with pytest. They need no Redis
and open no socket.
"""

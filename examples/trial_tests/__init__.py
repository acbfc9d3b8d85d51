"""Tests of a user's own code, which use every in-memory helper of ``ws4redis_tx.testing``.

Run them with ``python -m twisted.trial examples/trial_tests``, or with pytest. They need no Redis
and open no socket.
"""

"""The parts of a publisher: data and templates that become messages, the transaction that a message
waits for, and messages that are kept.

Knows Django's templates, encoders and databases. It must not know how a message reaches Redis.
"""

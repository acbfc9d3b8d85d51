"""The parts of a publisher: data and templates that become messages, the transaction that a message
waits for, messages that are kept, and the signal that tells of them.

Knows Django's templates, encoders and databases. It must not know how a message reaches Redis.
"""

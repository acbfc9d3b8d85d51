"""Messages as bytes, in JSON and in protobuf.

Knows the form of each message, and a publication. Must not know what a command does, nor who sends
it.
"""

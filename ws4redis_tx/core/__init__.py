"""The rules: values in, values out.

Nothing here knows a reactor, a Redis client, a websocket library or Django; every
collaborator is an argument.
"""

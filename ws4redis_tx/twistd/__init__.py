"""``twistd ws4redis``: its options, the process, its workers and the embedded Redis.

Knows processes, sockets and signals. It must not know what travels over a websocket.
"""

"""``twistd ws4redis``: options, the process, its workers, the embedded Redis.

Knows processes, sockets and signals. It must not know what travels over a websocket.
"""

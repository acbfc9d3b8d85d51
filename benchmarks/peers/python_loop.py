"""A loop over ``socket.send``: the minimal cost of a fan-out in Python.

``python -m benchmarks.peers.python_loop PORT REDIS_PORT``. Each client gets a 101, and from then on
all messages published on one channel. There is no authorization, no queue for clients that do not
read, and no pings.
"""

from __future__ import annotations

import select
import socket
import sys
from collections.abc import Callable

import hiredis

from ws4redis_tx.websocket.frames import server_frame

CHANNEL = b"broadcast:load"
# The client does not check the key.
ACCEPT = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def listen(port: int) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", port), backlog=2048)
    listener.setblocking(False)
    return listener


def answer(client: socket.socket) -> bool:
    """Answer the handshake, which arrives in one piece here. Return whether the client sent one."""
    if not client.recv(65536).endswith(b"\r\n\r\n"):
        return False
    client.send(ACCEPT)
    return True


def serve(port: int, redis_port: int) -> None:
    listener = listen(port)
    redis = socket.create_connection(("127.0.0.1", redis_port))
    redis.sendall(b"SUBSCRIBE %s\r\n" % CHANNEL)
    replies = hiredis.Reader()
    while not replies.gets():  # until the subscription is active
        replies.feed(redis.recv(65536))
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    sends: dict[int, Callable[[bytes], int]] = {}
    poll.register(listener, select.EPOLLIN)
    poll.register(redis, select.EPOLLIN)
    print("ready", flush=True)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == redis.fileno():
                replies.feed(redis.recv(65536))
                while reply := replies.gets():
                    if reply[0] == b"message":
                        frame = server_frame(reply[2])
                        for send in sends.values():
                            send(frame)
            elif descriptor == listener.fileno():
                client, _ = listener.accept()
                client.setblocking(False)
                sockets[client.fileno()] = client
                poll.register(client, select.EPOLLIN)
            elif descriptor not in sends and answer(sockets[descriptor]):
                sends[descriptor] = sockets[descriptor].send
            else:
                poll.unregister(descriptor)
                sends.pop(descriptor, None)
                sockets.pop(descriptor).close()


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))

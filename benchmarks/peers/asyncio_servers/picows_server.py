"""picows with redis.asyncio: ``python picows_server.py PORT REDIS_PORT``."""

from picows import WSListener, WSMsgType, ws_create_server
from subscription import BACKLOG, PATH, published, run

transports = set()


class Listener(WSListener):
    def on_ws_connected(self, transport):
        transports.add(transport)

    def on_ws_disconnected(self, transport):
        transports.discard(transport)


async def serve(port, redis_port):
    def listener(request):
        return Listener() if request.path == PATH.encode() else None

    await ws_create_server(listener, "127.0.0.1", port, backlog=BACKLOG)
    async for message in published(redis_port):
        for transport in transports:
            transport.send(WSMsgType.TEXT, message)


run(serve)

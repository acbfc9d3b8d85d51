"""Tornado with redis.asyncio: ``python tornado_server.py PORT REDIS_PORT``."""

from subscription import BACKLOG, PATH, published, run
from tornado.web import Application
from tornado.websocket import WebSocketClosedError, WebSocketHandler

websockets = set()


class Listener(WebSocketHandler):
    def open(self):
        websockets.add(self)

    def on_close(self):
        websockets.discard(self)


async def serve(port, redis_port):
    Application([(PATH, Listener)]).listen(port, "127.0.0.1", backlog=BACKLOG)
    async for message in published(redis_port):
        for websocket in tuple(websockets):
            try:
                websocket.write_message(message)
            except WebSocketClosedError:
                websockets.discard(websocket)


run(serve)

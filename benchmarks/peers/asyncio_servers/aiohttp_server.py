"""aiohttp with redis.asyncio: ``python aiohttp_server.py PORT REDIS_PORT``."""

from aiohttp import WSMsgType, web
from subscription import BACKLOG, PATH, published, run

websockets = set()


async def listen(request):
    websocket = web.WebSocketResponse(compress=False)
    await websocket.prepare(request)
    websockets.add(websocket)
    try:
        async for _ in websocket:
            pass
    finally:
        websockets.discard(websocket)
    return websocket


async def serve(port, redis_port):
    application = web.Application()
    application.router.add_get(PATH, listen)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=BACKLOG).start()
    async for message in published(redis_port):
        for websocket in tuple(websockets):  # some may leave while a send waits
            try:
                await websocket.send_frame(message, WSMsgType.TEXT)
            except ConnectionError:
                websockets.discard(websocket)


run(serve)

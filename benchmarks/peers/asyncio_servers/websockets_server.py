"""websockets and its ``broadcast`` with redis.asyncio: ``python websockets_server.py PORT
REDIS_PORT``.
"""

from http import HTTPStatus

from subscription import BACKLOG, PATH, published, run
from websockets.asyncio import server

connections = set()


async def listen(connection):
    connections.add(connection)
    try:
        await connection.wait_closed()
    finally:
        connections.remove(connection)


def route(connection, request):
    return None if request.path == PATH else connection.respond(HTTPStatus.NOT_FOUND, "")


async def serve(port, redis_port):
    await server.serve(
        listen, "127.0.0.1", port, compression=None, process_request=route, backlog=BACKLOG
    )
    async for message in published(redis_port):
        server.broadcast(connections, message, text=True)


run(serve)

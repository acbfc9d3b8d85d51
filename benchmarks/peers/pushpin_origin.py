"""The website behind pushpin: it accepts each websocket and subscribes it to the channel that its
path names. ``python -m benchmarks.peers.pushpin_origin PORT``

pushpin posts it the events of each websocket (WebSocket-over-HTTP), and takes the answer's lines
that start with ``c:`` as commands to itself (GRIP).
"""

from __future__ import annotations

import asyncio
import json
import sys

_HEAD = (
    "HTTP/1.1 200 OK\r\n"
    "Content-Type: application/websocket-events\r\n"
    'Sec-WebSocket-Extensions: grip; message-prefix=""\r\n'
    "Content-Length: {length}\r\n\r\n"
)
_OPEN = "OPEN\r\n"


def answer(path: str, events: str) -> bytes:
    """Return the response to a request with ``events``."""
    body = ""
    if events.startswith(_OPEN):
        command = json.dumps({"type": "subscribe", "channel": path.rpartition("/")[2]})
        body = f"{_OPEN}TEXT {len(command) + 2:x}\r\nc:{command}\r\n"
    return (_HEAD.format(length=len(body)) + body).encode()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            request, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in fields if line)
            events = await reader.readexactly(int(headers.get("content-length", "0")))
            writer.write(answer(request.split(" ")[1], events.decode()))
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main(port: int) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=2048)
    print("ready")
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))

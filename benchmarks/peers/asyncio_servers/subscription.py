"""What the servers in this folder have in common: Redis, and their start."""

import sys

import uvloop
from redis.asyncio import Redis

PATH = "/ws/load"
CHANNEL = "broadcast:load"
# The most clients that may connect at the same time.
BACKLOG = 2048


def run(serve):
    """Run ``serve(port, redis_port)`` on uvloop. The program's arguments are the two ports."""
    uvloop.run(serve(*map(int, sys.argv[1:])))


async def published(redis_port):
    """Yield the messages of the channel as bytes. The server should already be listening, because
    this prints ``ready`` as soon as the subscription is active.
    """
    pubsub = Redis(host="127.0.0.1", port=redis_port).pubsub()
    await pubsub.subscribe(CHANNEL)
    async for event in pubsub.listen():
        if event["type"] == "message":
            yield event["data"]
        else:
            print("ready", flush=True)

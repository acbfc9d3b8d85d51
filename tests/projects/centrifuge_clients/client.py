"""A client of the package centrifuge-python, driven as ``client.js`` is."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from centrifuge import (
    CentrifugeError,
    Client,
    ClientEventHandler,
    ReplyError,
    StreamPosition,
    SubscriptionEventHandler,
)

options = json.loads(sys.argv[1])
waiting: dict[str, asyncio.Future[str]] = {}


def say(event: str, **values: Any) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


def encode(data: Any) -> Any:
    return json.dumps(data).encode() if options["protobuf"] else data


def decode(data: Any) -> Any:
    if not options["protobuf"] or not data:
        return data
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="replace")


def described(info: Any) -> Any:
    if info is None:
        return None
    return {"user": info.user, "client": info.client, "chan": decode(info.chan_info)}


def publication(pub: Any) -> dict[str, Any]:
    # The oldest versions show no tags.
    tags = dict(getattr(pub, "tags", None) or {})
    return {
        "data": decode(pub.data),
        "offset": pub.offset or 0,
        "info": described(pub.info),
        "tags": tags,
    }


def position(ctx: Any) -> dict[str, Any]:
    stream = ctx.stream_position
    return {
        "recovered": ctx.recovered,
        "wasRecovering": ctx.was_recovering,
        "recoverable": ctx.recoverable,
        "position": stream and {"offset": stream.offset, "epoch": stream.epoch},
    }


async def ask(channel: str = "") -> str:
    waiting[channel] = asyncio.get_running_loop().create_future()
    say("token", channel=channel)
    return await waiting[channel]


class Events(ClientEventHandler):
    async def on_connecting(self, ctx: Any) -> None:
        say("connecting", code=ctx.code)

    async def on_connected(self, ctx: Any) -> None:
        say("connected", client=ctx.client)

    async def on_disconnected(self, ctx: Any) -> None:
        say("disconnected", code=ctx.code)

    async def on_error(self, ctx: Any) -> None:
        say("error", code=ctx.code, text=str(ctx.error))

    async def on_subscribed(self, ctx: Any) -> None:
        say("subscribed", channel=ctx.channel, **position(ctx))

    async def on_unsubscribed(self, ctx: Any) -> None:
        say("unsubscribed", channel=ctx.channel)

    async def on_publication(self, ctx: Any) -> None:
        say("publication", channel=ctx.channel, **publication(ctx.pub))

    async def on_join(self, ctx: Any) -> None:
        say("join", channel=ctx.channel, info=described(ctx.info))

    async def on_leave(self, ctx: Any) -> None:
        say("leave", channel=ctx.channel, info=described(ctx.info))


class SubscriptionEvents(SubscriptionEventHandler):
    def __init__(self, channel: str) -> None:
        self.channel = channel

    async def on_subscribing(self, ctx: Any) -> None:
        say("subscribing", channel=self.channel, code=ctx.code)

    async def on_subscribed(self, ctx: Any) -> None:
        say("subscribed", channel=self.channel, **position(ctx))

    async def on_unsubscribed(self, ctx: Any) -> None:
        say("unsubscribed", channel=self.channel, code=ctx.code)

    async def on_publication(self, ctx: Any) -> None:
        say("publication", channel=self.channel, **publication(ctx.pub))

    async def on_join(self, ctx: Any) -> None:
        say("join", channel=self.channel, info=described(ctx.info))

    async def on_leave(self, ctx: Any) -> None:
        say("leave", channel=self.channel, info=described(ctx.info))

    async def on_error(self, ctx: Any) -> None:
        say("error", channel=self.channel, code=ctx.code)


class Driver:
    def __init__(self) -> None:
        more = {"get_token": ask} if options["tokens"] else {}
        self.client = Client(
            options["endpoint"],
            events=Events(),
            use_protobuf=options["protobuf"],
            headers={"Cookie": options["cookie"]} if options["cookie"] else {},
            min_reconnect_delay=0.02,
            max_reconnect_delay=0.1,
            **more,
        )

    async def connect(self) -> None:
        await self.client.connect()

    async def disconnect(self) -> None:
        await self.client.disconnect()

    async def subscribe(self, channel: str, tokens: bool = False) -> None:
        subscription = self.client.get_subscription(channel)
        if subscription is None:
            more = {"get_token": ask} if tokens else {}
            subscription = self.client.new_subscription(
                channel,
                events=SubscriptionEvents(channel),
                join_leave=True,
                min_resubscribe_delay=0.02,
                max_resubscribe_delay=0.1,
                **more,
            )
        await subscription.subscribe()

    async def unsubscribe(self, channel: str) -> None:
        await self.client.get_subscription(channel).unsubscribe()

    async def token(self, channel: str, token: str) -> None:
        waiting[channel].set_result(token)

    async def publish(self, channel: str, data: Any) -> dict[str, Any]:
        await self.client.publish(channel, encode(data))
        return {}

    async def history(
        self, channel: str, limit: int, since: Any = None, reverse: bool = False
    ) -> dict[str, Any]:
        found = await self.client.history(
            channel, limit=limit, since=since and StreamPosition(**since), reverse=reverse
        )
        publications = [publication(each) for each in found.publications]
        return {"publications": publications, "offset": found.offset, "epoch": found.epoch}

    async def presence(self, channel: str) -> dict[str, Any]:
        found = await self.client.presence(channel)
        return {"clients": {id: described(info) for id, info in found.clients.items()}}

    async def presence_stats(self, channel: str) -> dict[str, Any]:
        found = await self.client.presence_stats(channel)
        return {"clients": found.num_clients, "users": found.num_users}

    async def run(self, do: str, id: int = 0, **values: Any) -> None:
        try:
            answer = await getattr(self, do)(**values)
        except ReplyError as error:
            answer = {"error": error.code}
        except CentrifugeError as error:
            answer = {"error": repr(error)}
        if id:
            say("answer", id=id, **answer)


async def main() -> None:
    driver = Driver()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    running = set()
    while line := await reader.readline():
        running.add(asyncio.ensure_future(driver.run(**json.loads(line))))


asyncio.run(main())

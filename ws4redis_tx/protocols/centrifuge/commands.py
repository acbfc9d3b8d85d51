"""The commands that a connected client sends, one function each.

Each takes the connection, the command's number and its request, and answers by ``reply``. It raises
``CommandError`` for an error, and ``Ends`` to end the connection.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import BrokerUnavailable, HookFailed, MessageRefused
from ws4redis_tx.core.messages import ClientMessage
from ws4redis_tx.core.positions import MOST, Wanted
from ws4redis_tx.protocols.centrifuge import errors
from ws4redis_tx.protocols.centrifuge.errors import CommandError, Ends
from ws4redis_tx.protocols.centrifuge.names import Name
from ws4redis_tx.protocols.centrifuge.opening import connect
from ws4redis_tx.protocols.centrifuge.presence import describe_client
from ws4redis_tx.protocols.centrifuge.rights import ask_for, need
from ws4redis_tx.protocols.centrifuge.subscription import (
    Subscription,
    begin,
    fits,
    history_for,
)
from ws4redis_tx.protocols.centrifuge.wire.codec import describe, epoch_text
from ws4redis_tx.protocols.centrifuge.wire.schema import Values

if TYPE_CHECKING:
    from ws4redis_tx.protocols.centrifuge.connection import Connection

Command = Callable[["Connection", int, Values], Any]


def _name(connection: Connection, request: Values) -> Name | Deferred[Name]:
    channel = request.get("channel", "")
    if not channel:
        raise Ends(errors.BAD)
    return connection.protocol.read_name(connection, channel)


def _subscribe(connection: Connection, number: int, request: Values) -> Deferred[None] | None:
    """Most subscriptions are answered at once, and many come in a frame."""
    name = _name(connection, request)
    if not isinstance(name, Name):  # asking for a Deferred takes ten times as long
        return name.addCallback(partial(_ask_to_subscribe, connection, number, request))
    return _ask_to_subscribe(connection, number, request, name)


def _ask_to_subscribe(
    connection: Connection, number: int, request: Values, name: Name
) -> Deferred[None] | None:
    if request.get("type"):
        raise CommandError(errors.NOT_AVAILABLE)
    asked = ask_for(connection, name, request)
    if asked is not None:
        return asked.addCallback(lambda _: _start(connection, number, request, name))
    return _start(connection, number, request, name)


def _start(
    connection: Connection, number: int, request: Values, name: Name
) -> Deferred[None] | None:
    subscription = begin(connection, name, request)
    try:
        answer = subscription.start(request)
    except BaseException:
        connection.remove(subscription)
        raise
    if not isinstance(answer, dict):
        return answer.addCallbacks(
            partial(_subscribed, subscription, number), partial(_not_subscribed, subscription)
        )
    _subscribed(subscription, number, answer)
    return None


def _not_subscribed(subscription: Subscription, failure: Failure) -> Failure:
    subscription.connection.remove(subscription)
    return failure


def _subscribed(subscription: Subscription, number: int, answer: Values) -> None:
    if not subscription.stands:
        raise CommandError(errors.DENIED)  # it was taken away meanwhile
    connection = subscription.connection
    if subscription.expires is not None:
        answer = answer | connection.protocol.tokens.lifetime(subscription.expires)
    connection.reply(number, "subscribe", answer)
    subscription.go_live()


@inlineCallbacks
def _unsubscribe(connection: Connection, number: int, request: Values) -> Any:
    if not request.get("channel"):
        raise Ends(errors.BAD)
    subscription = connection.subscriptions.get(request["channel"])
    if subscription is not None:
        if subscription.published:  # it comes before the answer
            yield connection.broker.fence([subscription.channel])
        connection.remove(subscription)
        if connection.protocol.has_presence(subscription.name):
            # Its own leave must have come and gone when it subscribes again.
            yield connection.protocol.occupancy.settled()
            with suppress(BrokerUnavailable):
                yield connection.broker.fence()
    connection.reply(number, "unsubscribe", {})


@inlineCallbacks
def _publish(connection: Connection, number: int, request: Values) -> Any:
    name = yield _name(connection, request)
    if "data" not in request:
        raise CommandError(errors.BAD_REQUEST)
    yield need(connection, name, "publish")
    channel = connection.protocol.channel_of(name, connection)
    data = yield _judged(connection, channel, request["data"])
    if data is None:
        connection.reply(number, "publish", {})
        return
    history = history_for(connection, name)
    seconds = connection.config.expire
    lasting = max(seconds, history.seconds) if history else seconds
    quota, peer = connection.protocol.quota, connection.handshake.peer
    kept = history.size + 1 if history else 1
    if lasting and not quota.admits(peer, [channel], len(data), lasting, kept):
        if history:
            raise CommandError(errors.TOO_MANY)
        seconds = 0
    chosen = connection.subscriptions.get(name.text)
    info = describe_client(connection, chosen.info if chosen is not None else b"")
    if chosen is not None:
        chosen.published = True
    yield connection.broker.publish([channel], data, seconds, None, history, info=info)
    connection.reply(number, "publish", {})


def _judged(connection: Connection, channel: bytes, data: bytes) -> Any:
    """The data to publish, as the hooks return it; ``None``: nothing; or a Deferred."""
    if not connection.session.observed:
        return data
    message = ClientMessage(data, channel.decode(errors="replace"))
    judged = connection.session.judge(message)
    return data if judged is None else judged.addErrback(_refused)


def _refused(failure: Any) -> None:
    failure.trap(MessageRefused)
    refusal = failure.value
    if isinstance(refusal, HookFailed):
        raise CommandError(errors.INTERNAL) from None
    raise CommandError(errors.DENIED._replace(message=refusal.reason)) from None


@inlineCallbacks
def _history(connection: Connection, number: int, request: Values) -> Any:
    name = yield _name(connection, request)
    history = history_for(connection, name)
    if history is None:
        raise CommandError(errors.NOT_AVAILABLE)
    yield need(connection, name, "subscribe")
    limit, since = request.get("limit", 0), request.get("since")
    most = MOST if limit < 0 else min(limit, MOST)
    offset = max(0, since.get("offset", 0)) if since is not None else 0
    reverse = bool(request.get("reverse"))
    if reverse and since is not None and not offset:
        raise CommandError(errors.BAD_REQUEST)
    channel = connection.protocol.channel_of(name, connection)
    wanted = Wanted(channel, history.size, after=0 if reverse else offset, most=max(1, most))
    if reverse:
        wanted = Wanted(channel, history.size, before=offset or 1 << 53, most=max(1, most))
    stream = yield connection.broker.stream(wanted, alone=True)
    if since is not None and not fits(stream, since.get("epoch", "")):
        raise CommandError(errors.UNRECOVERABLE)
    found = stream.between(wanted) if most else []
    format = connection.codec.format
    publications = [describe(each, format) for each in (found[::-1] if reverse else found)]
    answer = {"epoch": epoch_text(stream.epoch), "offset": stream.top}
    connection.reply(number, "history", {"publications": publications, **answer})


@inlineCallbacks
def _presence(connection: Connection, number: int, request: Values) -> Any:
    present = yield _present(connection, request)
    connection.reply(number, "presence", {"presence": present})


@inlineCallbacks
def _presence_stats(connection: Connection, number: int, request: Values) -> Any:
    present = yield _present(connection, request)
    users = {info.get("user", "") for info in present.values()}
    answer = {"num_clients": len(present), "num_users": len(users)}
    connection.reply(number, "presence_stats", answer)


@inlineCallbacks
def _present(connection: Connection, request: Values) -> Any:
    name = yield _name(connection, request)
    if not connection.protocol.has_presence(name):
        raise CommandError(errors.NOT_AVAILABLE)
    yield need(connection, name, "subscribe")
    channel = connection.protocol.channel_of(name, connection)
    return (yield connection.protocol.present(channel))


def _send(connection: Connection, number: int, request: Values) -> None:
    raise Ends(errors.NOT_AVAILABLE_HERE)


@inlineCallbacks
def _rpc(connection: Connection, number: int, request: Values) -> Any:
    function = connection.protocol.rpc
    if function is None:
        raise CommandError(errors.NOT_AVAILABLE)
    data = request.get("data")
    try:
        value = None if data is None else json.loads(data)
    except ValueError:
        value = data  # of a protobuf client, which may send any bytes
    answer = yield connection.protocol.call(connection, function, request.get("method", ""), value)
    connection.reply(number, "rpc", {"data": json.dumps(answer, separators=(",", ":")).encode()})


def _ping(connection: Connection, number: int, request: Values) -> None:
    raise Ends(errors.BAD)


def _refresh(connection: Connection, number: int, request: Values) -> Any:
    if not request.get("token"):
        raise Ends(errors.BAD)
    return connection.protocol.tokens.refresh(connection, number, request["token"])


@inlineCallbacks
def _sub_refresh(connection: Connection, number: int, request: Values) -> Any:
    if not request.get("channel"):
        connection.protocol.note(
            "sub_refresh",
            "A client was disconnected: its sub_refresh named no channel. centrifuge-python before "
            "0.5.1 does this",
        )
    name = yield _name(connection, request)
    if not request.get("token"):
        raise CommandError(errors.BAD_REQUEST)
    subscription = connection.subscriptions.get(name.text)
    if subscription is None:
        raise CommandError(errors.DENIED)
    tokens = connection.protocol.tokens
    tokens.sub_refresh(connection, number, subscription, request["token"])


COMMANDS: Mapping[str, Command] = {
    "connect": connect,
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "publish": _publish,
    "presence": _presence,
    "presence_stats": _presence_stats,
    "history": _history,
    "ping": _ping,
    "send": _send,
    "rpc": _rpc,
    "refresh": _refresh,
    "sub_refresh": _sub_refresh,
}
"""In the order in which one of several in a command counts."""

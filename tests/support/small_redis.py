"""The real broker, connected through fake wires to a small Redis that speaks RESP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hiredis
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.support.stories import Authorizer, Message, Pipe, Redis, of_websockets
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.redis import scripts as publishing
from ws4redis_tx.redis.broker import RedisBroker
from ws4redis_tx.service import make_factory

ADDRESS = RedisAddress(path="/redis.sock")


class Reactor(Clock):
    """A clock, and the attempts to connect."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts: list[Any] = []

    def connectUNIX(self, path: str, factory: Any, *options: object, **more: object) -> Any:  # noqa: N802
        factory.doStart()
        self.attempts.append(factory)
        return self

    def disconnect(self) -> None:
        """Give up the attempt. Nothing needs to be done."""


class Wire(StringTransport):
    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def write(self, data: bytes) -> None:
        self._connection.sent(data)

    def abortConnection(self) -> None:
        self._connection.reactor.callLater(0, self._connection.lose)

    loseConnection = abortConnection


class Connection(Pipe):
    """Redis' end of a connection; requests are its commands, answers bytes."""

    kind = ""

    def __init__(self, redis: SmallRedis, reactor: Reactor) -> None:
        super().__init__()
        self.redis = redis
        self.reactor = reactor
        self.up = True
        self.channels: set[bytes] = set()
        self.protocol: Any = None
        self._reader = hiredis.Reader()
        self.transport = Wire(self)

    def sent(self, data: bytes) -> None:
        if not self.up:
            return
        self._reader.feed(data)
        while (command := self._reader.gets()) is not False:
            self.requests.append(command)
            if not self.kind:
                self.kind = "pubsub" if command[0] == b"SUBSCRIBE" else "commands"

    def execute(self) -> bool:
        if not self.requests:
            return False
        self.answers.append((self.redis.answer(self, self.requests.popleft()), None))
        return True

    def arrive(self) -> bool:
        if not self.answers:
            return False
        data, _ = self.answers.popleft()
        size = self.redis.rate or len(data) // 2 + 1
        for start in range(0, len(data), size):
            if start and self.redis.rate:
                self.reactor.advance(1)
            if not self.up or self.protocol is None:
                break
            self.protocol.dataReceived(data[start : start + size])
        return True

    def arrive_together(self) -> None:
        data = b"".join(each for each, _ in self.answers)
        self.answers.clear()
        if data:
            self.protocol.dataReceived(data)

    def die(self) -> None:
        """Go silent: nothing arrives any more, at either end."""
        if self.up:
            self.up = False
            self.redis.connection_lost(self.kind)
            for _, message in self.answers:
                if message is not None:
                    self.redis.lose(message)
            self.answers.clear()
            self.requests.clear()

    def lose(self) -> None:
        if self.protocol is not None:
            self.die()
            protocol, self.protocol = self.protocol, None
            protocol.connectionLost(Failure(ConnectionLost()))


class SmallRedis(Redis):
    """Answers the broker's commands."""

    def __init__(self) -> None:
        super().__init__()
        self.connections: list[Connection] = []
        self.rate = 0
        """Bytes a second of each connection; 0: any number."""
        self.busy = False
        self.scripts_disabled = False
        self._moment = 1_000_000_000_000
        self._stamps: dict[Message, bytes] = {}
        self._set: set[tuple[bytes, bytes]] = set()
        self.send = self._send

    def of_kind(self, kind: str) -> Connection | None:
        living = [each for each in self.connections if each.protocol and each.kind == kind]
        return living[-1] if living else None

    def publish(self, channel: bytes, payload: bytes, *, persist: bool) -> int:
        receivers = super().publish(channel, payload, persist=persist)
        self._stamps[self.history[-1]] = b"%d" % self._now()
        return receivers

    def set_clock(self, seconds: int) -> None:
        """Set it forward, or back."""
        self._moment += 1_000_000 * seconds

    def answer(self, connection: Connection, command: list[bytes]) -> bytes:
        name, *arguments = command
        if self.busy:
            return b"-BUSY Redis is busy running a script.\r\n"
        if name == b"EVAL" and self.scripts_disabled:
            return b"-ERR unknown command 'EVAL'\r\n"
        if name == b"EVAL":
            return self._scripts[arguments[0]](self, *arguments[2:])
        method: Callable[..., bytes] = getattr(self, f"_{name.decode().lower()}")
        if name in (b"SUBSCRIBE", b"UNSUBSCRIBE", b"PING"):
            return method(connection, *arguments)
        return method(*arguments)

    def _now(self) -> int:
        self._moment += 1
        return self._moment

    def _send(self, message: Message) -> None:
        connection = self.of_kind("pubsub")
        assert connection is not None
        data = _array(b"message", message.channel, message.payload)
        connection.answers.append((data, message))

    def _subscribe(self, connection: Connection, channel: bytes) -> bytes:
        self.subscribed.add(channel)
        return b"*3\r\n" + _bulk(b"subscribe") + _bulk(channel) + b":1\r\n"

    def _unsubscribe(self, connection: Connection, channel: bytes) -> bytes:
        self.subscribed.discard(channel)
        return b"*3\r\n" + _bulk(b"unsubscribe") + _bulk(channel) + b":1\r\n"

    def _ping(self, connection: Connection) -> bytes:
        return _array(b"pong", b"")

    def _mget(self, *names: bytes) -> bytes:
        found = [self.keys.get(name) for name in names]
        return _array(*(None if message is None else message.payload for message in found))

    def _plain(self) -> bytes:
        return b":1\r\n"

    def _publishing(self, *arguments: bytes) -> bytes:
        *keys, payload, _ = arguments
        channels, stamps = keys[::2], keys[1::2]
        assert stamps == [b"at:" + channel for channel in channels]
        counts = [self.publish(channel, payload, persist=True) for channel in channels]
        return b"*%d\r\n" % len(counts) + b"".join(b":%d\r\n" % count for count in counts)

    def _setex(self, channel: bytes, expire: bytes, payload: bytes) -> bytes:
        self._set.add((channel, payload))  # persisted when it is published, a moment later
        return b"+OK\r\n"

    def _publish(self, channel: bytes, payload: bytes) -> bytes:
        persist = (channel, payload) in self._set
        self._set.discard((channel, payload))
        receivers = self.publish(channel, payload, persist=persist)
        self._stamps[self.history[-1]] = b""
        return b":%d\r\n" % receivers

    def _strlen(self, channel: bytes) -> bytes:
        message = self.keys.get(channel)
        return b":%d\r\n" % (0 if message is None else len(message.payload))

    def _time(self) -> bytes:
        seconds, micros = divmod(self._now(), 1_000_000)
        return _array(b"%d" % seconds, b"%d" % micros)

    def _finding(self, *names: bytes) -> bytes:
        answer = b"*%d\r\n" % (2 + len(names)) + _bulk(b"%d" % self._moment) + _bulk(b"one")
        for message in self.recall(names[::2]):
            if message is None:
                answer += b":-1\r\n$0\r\n\r\n"
            else:
                answer += b":%d\r\n" % len(message.payload)
                answer += _bulk(self._stamps[message])
        return answer

    def _reading(self, *arguments: bytes) -> bytes:
        count = len(arguments) // 4
        values: list[bytes | None] = []
        for channel, stamp in zip(
            arguments[: 2 * count : 2], arguments[2 * count :: 2], strict=True
        ):
            message = self.keys[channel]
            newer = self._stamps[message] != stamp
            if newer:
                self.recalled = {each for each in self.recalled if each.channel != channel}
            values.append(None if newer else message.payload)
        return _array(*values)

    def _probing(self, channel: bytes) -> bytes:
        moment = b"%d:one" % self._now()
        connection = self.of_kind("pubsub")
        if connection is not None and channel in self.subscribed:
            connection.answers.append((_array(b"message", channel, moment), None))
        return b":1\r\n"

    _scripts = {
        b"return redis.call('TIME')": _plain,
        publishing.PUBLISH: _publishing,
        publishing.FIND: _finding,
        publishing.READ: _reading,
        publishing.PROBE: _probing,
    }


def _bulk(value: bytes | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value)


def _array(*values: bytes | None) -> bytes:
    return b"*%d\r\n" % len(values) + b"".join(map(_bulk, values))


class RedisWorld:
    """A broker and a factory over a small Redis; the broker starts up available."""

    def __init__(self, authorizer: Any = None, clock: Reactor | None = None) -> None:
        self.redis = SmallRedis()
        self.clock = clock or Reactor()
        self.broker = RedisBroker(ADDRESS, "", self.clock)
        self.factory = make_factory(
            ServerConfig(redis=ADDRESS),
            broker=self.broker,
            authorizer=authorizer or Authorizer(),
            reactor=self.clock,
        )
        self._nothing = Connection(self.redis, self.clock)
        self.broker.startService()
        while not self.broker.available:
            self.recover()
            for pipe in (self.commands, self.pubsub):
                pipe.execute()
                pipe.arrive()
            self.clock.advance(0)

    @property
    def pubsub(self) -> Connection:
        return self.redis.of_kind("pubsub") or self._nothing

    @property
    def commands(self) -> Connection:
        return self.redis.of_kind("commands") or self._nothing

    @property
    def deaf(self) -> bool:
        return self.pubsub is not self._nothing and not self.pubsub.up

    def lose_pubsub(self) -> None:
        self.pubsub.lose()

    def lose_commands(self) -> None:
        self.commands.lose()

    def deafen(self) -> None:
        if self.pubsub is not self._nothing:
            self.pubsub.die()

    def freeze_commands(self) -> None:
        if self.commands is not self._nothing:
            self.commands.die()

    def recover(self) -> None:
        """Let the next attempt to connect succeed, or advance the clock until there is one."""
        if self.clock.attempts:
            connection = Connection(self.redis, self.clock)
            connection.protocol = self.clock.attempts.pop(0).buildProtocol(None)
            self.redis.connections.append(connection)
            connection.protocol.makeConnection(connection.transport)
        elif not self.broker.available:
            self.clock.advance(0.5)

    def refuse(self) -> None:
        if self.clock.attempts:
            failure = Failure(ConnectionRefusedError())
            self.clock.attempts.pop(0).clientConnectionFailed(self.clock, failure)

    def remembered(self) -> dict[str, object]:
        return {
            "listeners": of_websockets(self.broker.hub.channels),
            "subscriptions": of_websockets(self.redis.subscribed),
            "awaited": self.broker._dispatcher.table.subscribing,
            "notes": len(self.broker._notes),
            "websockets": self.factory.session_server.sessions,
        }

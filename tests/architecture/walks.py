"""Five walks through the package, as the interpreter takes them.

``python -m tests.architecture.walks`` prints the modules of this package that each walk enters, in
the order in which it first enters them.

A module in parentheses is called and returns: it calls no other module on this walk. The others
pass control on, and a reader has to keep them in mind.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.architecture.imports import modules, room_of

PACKAGE = "ws4redis_tx"
KEY = "k" * 32


@dataclass
class Walk:
    """The modules that were entered, and the subset that called another one."""

    name: str
    entered: dict[str, None] = field(default_factory=dict)
    leads_on: set[str] = field(default_factory=set)
    own: tuple[str, ...] = ()
    """The rooms that the walk is about, if it also passes through others."""
    publishes: bool = False
    """Whether it passes through the thread of the publishers' reactor. That thread may be busy with
    something else during other walks.
    """

    @property
    def road(self) -> list[str]:
        """The modules that pass control on, and the last one."""
        last = next(reversed(self.entered), "")
        return [name for name in self.entered if name in self.leads_on or name == last]

    def __str__(self) -> str:
        names = [name if name in self.road else f"({name})" for name in self.entered]
        return (
            f"{self.name}: {len(self.road)} modules pass control on, {len(self.entered)} are "
            f"entered{self._in_own_rooms()}\n    {' → '.join(names)}\n"
        )

    def _in_own_rooms(self) -> str:
        if not self.own:
            return ""
        number = sum(room_of(name) in self.own for name in self.entered)
        return f", {number} of them in {', '.join(self.own)}"

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Record the calls within, also in threads that are started there."""
        lock = threading.Lock()

        def note(frame: Any, event: str, _: object) -> None:
            if event != "call":
                return
            module = _module_of(frame)
            if module is None:
                return
            with lock:
                self.entered[module] = None
                caller = frame.f_back
                while caller is not None and _module_of(caller) is None:
                    caller = caller.f_back
                came_from = None if caller is None else _module_of(caller)
                if came_from is not None and came_from != module:
                    self.leads_on.add(came_from)

        self._set_profile(note)
        try:
            yield
        finally:
            self._set_profile(None)

    def _set_profile(self, function: Callable[..., None] | None) -> None:
        sys.setprofile(function)
        threading.setprofile(function)
        if self.publishes:
            _in_reactor(lambda: sys.setprofile(function))


def _module_of(frame: Any) -> str | None:
    name: str = frame.f_globals.get("__name__", "")
    if not name.startswith(f"{PACKAGE}.") or name.startswith(f"{PACKAGE}.testing"):
        return None
    return name.removeprefix(f"{PACKAGE}.")


def _in_reactor(function: Callable[[], object]) -> Any:
    """Do it in the thread of the publishers' reactor, if it is running."""
    from ws4redis_tx.threads import reactor_thread

    thread = reactor_thread._process.thread
    if thread is None:
        return None
    done = threading.Event()
    result: list[object] = []

    def call() -> None:
        result.append(function())
        done.set()

    thread.reactor.callFromThread(call)
    done.wait(20)
    return result


def publish() -> Walk:
    """From a view's publisher to the bytes that go to Redis."""
    from django.test import override_settings

    from ws4redis_tx.publisher import RedisPublisher
    from ws4redis_tx.testing import RedisProcess

    redis, walk = RedisProcess(), Walk("publish → Redis", publishes=True)
    try:
        with override_settings(WS4REDIS_CONNECTION=redis.url):
            RedisPublisher(facility="f", broadcast=True).publish_message("connects")
            with walk.taken():
                RedisPublisher(facility="f", broadcast=True).publish_message("hello")
    finally:
        redis.stop()
    return walk


def message() -> Walk:
    """From the bytes of one read from Redis to the sockets of two clients."""
    import socket

    from twisted.internet import reactor, tcp
    from twisted.internet.protocol import Protocol
    from twisted.internet.testing import MemoryReactorClock

    from ws4redis_tx.core.limits import CLOSE
    from ws4redis_tx.core.redis_address import RedisAddress
    from ws4redis_tx.delivery.feed import Feed
    from ws4redis_tx.delivery.outbox import Outbox
    from ws4redis_tx.redis.broker import RedisBroker
    from ws4redis_tx.redis.wire.protocol import PubSubProtocol
    from ws4redis_tx.scheduling.immediate_writer import immediate_writer
    from ws4redis_tx.websocket.frames import PLAIN

    walk = Walk("Redis → socket")
    broker = RedisBroker(RedisAddress(), "", MemoryReactorClock())
    redis = PubSubProtocol(broker._dispatcher.receive)
    ends = []
    for _ in range(2):
        ours, theirs = socket.socketpair()
        ends += [ours, theirs]
        transport = tcp.Connection(ours, Protocol(), reactor)
        transport.connected = True
        writer = immediate_writer(transport)
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        theirs.recv(99)
        feed = Feed(Outbox(writer, PLAIN, _Owner(), 1 << 20, CLOSE))
        feed.go_live()
        broker.hub.add(b"broadcast:f", feed)
    with walk.taken():
        redis.dataReceived(b"*3\r\n$7\r\nmessage\r\n$11\r\nbroadcast:f\r\n$2\r\nhi\r\n")
    assert ends[1].recv(9) == ends[3].recv(9) == b"\x81\x02hi"
    for end in ends:
        end.close()
    return walk


class _Owner:
    def overflow(self) -> None:
        raise AssertionError("nothing waits here")

    def grew(self, size: int) -> None:
        raise AssertionError("nothing waits here")


def connection() -> Walk:
    """A client from its first byte to its release, over the real broker on fake wires."""
    from tests.support.small_redis import RedisWorld
    from tests.support.stories import Story

    walk = Walk("handshake → live → release", own=("websocket", "sessions", "protocols", "doors"))
    story = Story(RedisWorld())
    story.heal()
    story.open(frozenset({"broadcast"}), None, False)
    with walk.taken():
        story.open(frozenset({"user"}), None, False)
        story.leave(1)
        story.calm_down()
    return walk


def logout() -> Walk:
    """From Django's signal to the close frame of the user's websocket."""
    from types import SimpleNamespace

    from django.contrib.sessions.backends.db import SessionStore
    from django.test import override_settings

    from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
    from ws4redis_tx.core.names import control_channel
    from ws4redis_tx.django.receivers import logged_out
    from ws4redis_tx.testing import RedisProcess, connect, make_memory_factory

    class Authorizer:
        def authorize(self, handshake: Any, rights: Any) -> Admission:
            identity = Identity(KEY, "john", (), "1")
            return Admission(identity, tuple(rights), PlainRequest(handshake.path_info, identity))

    walk, redis = Walk("logout → closed", publishes=True), RedisProcess()
    factory = make_memory_factory(authorizer=Authorizer())
    client = connect(factory, "ws://localhost/ws/f?subscribe-user")
    client.answers_pings = False  # nor the close frame, where the walk ends
    request = SimpleNamespace(session=SessionStore(KEY))
    told: list[bytes] = []
    try:
        with override_settings(WS4REDIS_CONNECTION=redis.url, WS4REDIS_REVOKE=True):
            logged_out(sender=None, request=request)  # connects
            with walk.taken():
                logged_out(sender=None, request=request)
        told.append(_revocation())
        with walk.taken():
            factory.broker.publish([control_channel("", "revoke")], told[0], 0)
    finally:
        redis.stop()
    assert client.close_code == 1008
    return walk


def _revocation() -> bytes:
    from ws4redis_tx.revocation.messages import LOGOUT, Revocation, digest

    return Revocation(LOGOUT, "session", (digest(KEY),)).payload


def option(name: str = "max_pending") -> Walk:
    """From an option of ``twistd`` to its use: the modules that spell it, in the configuration and
    where its field is read.
    """
    walk = Walk(f"--{name.replace('_', '-')} → its use")
    spellings = {name, name.replace("_", "-"), f"WS4REDIS_{name.upper()}"}
    for module, path in modules().items():
        wanted = (
            spellings
            if module.startswith(("config.", "twistd.", "django."))
            else {f"config.{name}"}
        )
        if any(re.search(rf"{spelling}(?![\w-])", path.read_text()) for spelling in wanted):
            walk.entered[module] = None
    walk.leads_on = set(walk.entered)
    return walk


WALKS = (publish, message, connection, logout, option)

if __name__ == "__main__":
    from tests.support.django import set_up_django

    set_up_django()
    print("\n".join(str(take()) for take in WALKS), end="")

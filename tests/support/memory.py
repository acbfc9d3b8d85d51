"""A server in memory: the real protocol on a fake wire, with a clock that the test advances."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import ANONYMOUS, Admission, PlainRequest
from ws4redis_tx.subscriber import RedisSubscriber
from ws4redis_tx.testing import MemoryBroker, MemoryClient, connect, make_memory_factory

CHANNEL = b"broadcast:foobar"
URL = "ws://localhost/ws/foobar"


class ReactorClock(Clock):
    """A clock that, like a reactor, leaves for the next ``advance`` what begins during this one."""

    def advance(self, amount: float) -> None:
        self.rightNow += amount
        due = [call for call in self.calls if call.getTime() <= self.rightNow]
        for call in due:
            if call in self.calls:  # else another one has cancelled it
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)


class AllowAll:
    """An authorizer that grants every requested right at once."""

    def authorize(self, handshake: Any, rights: Any) -> Admission:
        return Admission(ANONYMOUS, tuple(rights), PlainRequest(handshake.path_info, ANONYMOUS))


class Waiting(AllowAll):
    """An authorizer that answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Deferred[Admission]] = []

    def authorize(self, handshake: Any, rights: Any) -> Any:
        waiting: Deferred[Admission] = Deferred()
        self.asked.append(waiting)
        answer = super().authorize(handshake, rights)
        return waiting.addCallback(lambda _: answer)


class SlowBroker(MemoryBroker):
    """A broker that answers when the test says so."""

    def __init__(self, *slow: str) -> None:
        super().__init__()
        self.slow = set(slow)
        self.waiting: dict[str, list[Deferred[Any]]] = {name: [] for name in slow}

    def _later(self, name: str, answer: Deferred[Any]) -> Deferred[Any]:
        if name not in self.slow:
            return answer
        waiting: Deferred[Any] = Deferred()
        self.waiting[name].append(waiting)
        return waiting.addCallback(lambda _: answer)

    def listen(self, *args: Any) -> Deferred[None]:
        return self._later("listen", super().listen(*args))

    def publish(self, *args: Any, **options: Any) -> Deferred[int]:
        return self._later("publish", super().publish(*args, **options))

    def stream(self, *args: Any, **options: Any) -> Deferred[Any]:
        return self._later("stream", super().stream(*args, **options))

    def missed(self, *args: Any, **options: Any) -> Deferred[Any]:
        return self._later("missed", super().missed(*args, **options))

    def get(self, *args: Any) -> Deferred[Any]:
        return self._later("get", super().get(*args))

    def fence(self, *args: Any) -> Deferred[None]:
        return self._later("fence", super().fence(*args))

    def answer(self, name: str) -> None:
        waiting, self.waiting[name] = self.waiting[name], []
        for each in waiting:
            each.callback(None)


class Counting(RedisSubscriber):
    """Counts its releases."""

    released: list[RedisSubscriber] = []

    def release(self) -> None:
        self.released.append(self)
        super().release()


class WebSocketTests(SynchronousTestCase):
    def setUp(self) -> None:
        Counting.released = []
        self.clock = Clock()
        self.use()

    def use(
        self,
        broker: MemoryBroker | None = None,
        authorizer: Any = None,
        subscriber: Any = Counting,
        hooks: Any = None,
        **config: Any,
    ) -> None:
        self.broker = broker or MemoryBroker()
        self.factory = make_memory_factory(
            ServerConfig(**config),
            broker=self.broker,
            authorizer=authorizer or AllowAll(),
            subscriber=subscriber,
            hooks=hooks,
            clock=self.clock,
        )

    def connect(self, flags: str = "subscribe-broadcast", **options: Any) -> MemoryClient:
        return connect(self.factory, f"{URL}?{flags}", **options)

    def publish(self, payload: bytes, expire: int = 0) -> None:
        self.broker.publish([CHANNEL], payload, expire)

    def assert_nothing_left(self) -> None:
        self.assertEqual(list(self.broker.hub.channels), [])
        self.assertEqual(len(Counting.released), 1)

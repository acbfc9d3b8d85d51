"""A server in memory whose hooks write down every call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.memory import AllowAll
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
from ws4redis_tx.core.interfaces import Closing, NullHooks, Refusal
from ws4redis_tx.testing import MemoryBroker, MemoryClient, connect, make_memory_factory

CHANNEL = b"broadcast:foobar"


URL = "ws://localhost/ws/foobar"


BOTH = "subscribe-broadcast&publish-broadcast"


ALL = f"{BOTH}&echo"


class Noting(NullHooks):
    """Writes down every call."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.connections: list[Any] = []

    def connected(self, connection: Any) -> Any:
        self.connections.append(connection)
        self.told.append("connected")

    def refused(self, refusal: Refusal) -> Any:
        self.told.append(refusal)

    def message(self, connection: Any, message: bytes) -> Any:
        self.told.append(message)
        return message

    def closed(self, connection: Any, closing: Closing) -> Any:
        self.told.append(closing)

    @property
    def closing(self) -> Closing:
        (closing,) = [each for each in self.told if isinstance(each, Closing)]
        return closing


class Patient(Noting):
    """Each hook waits for the test's answer."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Deferred[Any]] = []

    def _wait(self, told: object) -> Deferred[Any]:
        waiting: Deferred[Any] = Deferred()
        self.waiting.append(waiting)
        return waiting.addCallback(lambda answer: told if answer is None else answer)

    def connected(self, connection: Any) -> Any:
        super().connected(connection)
        return self._wait(None)

    def message(self, connection: Any, message: bytes) -> Any:
        return self._wait(super().message(connection, message))

    def closed(self, connection: Any, closing: Closing) -> Any:
        super().closed(connection, closing)
        return self._wait(None)

    def answer(self, answer: Any = None) -> None:
        self.waiting.pop(0).callback(answer)


class Visitor(AllowAll):
    """An authorizer that knows everybody as John."""

    identity = Identity("the key", "john", ("staff",), "7")

    def authorize(self, handshake: Any, rights: Any) -> Admission:
        request = PlainRequest(handshake.path_info, self.identity)
        return Admission(self.identity, tuple(rights), request)


class HooksTestCase(SynchronousTestCase):
    def use(
        self,
        hooks: Any = None,
        broker: MemoryBroker | None = None,
        authorizer: Any = None,
        **config: Any,
    ) -> None:
        self.clock = Clock()
        self.hooks = hooks or Noting()
        self.broker = broker or MemoryBroker()
        self.factory = make_memory_factory(
            ServerConfig(**config),
            broker=self.broker,
            authorizer=authorizer or AllowAll(),
            hooks=self.hooks,
            clock=self.clock,
        )

    def saying(self, message: Callable[..., Any]) -> Noting:
        """Hooks with this ``message`` method."""
        hooks = Noting()
        hooks.message = message  # type: ignore[method-assign]
        return hooks

    def connect(self, flags: str = ALL) -> MemoryClient:
        return connect(self.factory, f"{URL}?{flags}")

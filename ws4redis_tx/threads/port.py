"""Redis as threads and coroutines see it. ``bridge.redis()`` is one, and tests replace it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ws4redis_tx.core.positions import NOT_KEPT, Kept

if TYPE_CHECKING:
    from ws4redis_tx.core.messages import PersistedMessage, Published

Instead = tuple[str, str]
"""The calls to use instead of a blocking one: on an event loop, and in the reactor thread."""

FORGET: Instead = ("await publisher.aforget()", "Commands.forget")
POSITION: Instead = ("await RedisPublisher.aposition()", "IHistory.now")
RENDER: Instead = ("await sync_to_async(render)(request, …)", "IHistory.stream")
PUBLISH: Instead = ("await publisher.apublish_message(…)", "ws4redis_tx.service.Publisher")


class IRedis(Protocol):
    """Redis for threads and coroutines: each call takes at most ``WS4REDIS_TIMEOUT`` seconds.

    Raises ``BrokerUnavailable``. In a thread that must not block, raises ``RuntimeError``, whose
    text names the call to use ``instead``.
    """

    def publish(
        self,
        channels: Sequence[bytes],
        message: bytes,
        expire: int,
        kept: Kept = NOT_KEPT,
        *,
        instead: Instead = PUBLISH,
    ) -> Published:
        """Persist, keep and publish, as ``IBroker.publish`` does."""

    async def apublish(
        self, channels: Sequence[bytes], message: bytes, expire: int, kept: Kept = NOT_KEPT
    ) -> Published:
        """``publish`` for a coroutine: blocks and holds no thread, and can be cancelled."""

    def get(self, channels: Sequence[bytes]) -> Sequence[PersistedMessage | None]:
        """The messages persisted for the channels, all read at the same moment."""

    def forget(self, channels: Sequence[bytes]) -> None:
        """Delete what is persisted and kept of the channels."""

    async def aforget(self, channels: Sequence[bytes]) -> None:
        """``forget`` for a coroutine."""

    def position(self, began: float | None = None) -> str:
        """The position of the present, or of the moment when ``time.monotonic()`` was ``began``;
        ``""`` where no history can be kept.
        """

    async def aposition(self) -> str:
        """The current position, for a coroutine."""

    def ask(self, command: str, *arguments: Any, instead: Instead) -> Any:
        """Ask by a command that changes nothing: who is present, by one of ``IPresence``; or
        ``stream_position``, with a channel and the time ``began``, as for ``position``. The answer
        is empty where there is nobody, or no history.
        """

    async def aask(self, command: str, *arguments: Any) -> Any:
        """``ask`` for a coroutine."""

    def put(self, key: bytes, value: bytes, seconds: int, *, instead: Instead) -> None:
        """Store ``value`` for ``seconds``, for one ``take``."""

    async def aput(self, key: bytes, value: bytes, seconds: int) -> None:
        """``put`` for a coroutine."""

    def take(self, key: bytes) -> bytes | None:
        """Remove and return the stored value, or ``None``. Only one caller gets it."""

    def send(
        self,
        channels: Sequence[bytes],
        message: bytes,
        patience: float,
        done: Callable[[Any], object],
        entries: Mapping[bytes, bytes] | None = None,
        seconds: int = 60,
    ) -> bool:
        """Publish without persisting, and call ``done`` in the reactor thread with the result or a
        ``Failure``.

        Blocks for at most ``patience`` seconds, and returns whether it was done by then. Otherwise
        it continues in the background. Callable from any thread.

        ``entries`` are added to the lists under their keys, which live for ``seconds``, for servers
        that do not listen yet. The message has one channel then.
        """

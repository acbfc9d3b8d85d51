"""Captures what Django code publishes, and to whom, without Redis and without the reactor thread.

It replaces the port ``bridge.redis()``, the only way from Django to Redis. So it works for all
publishers, whenever they were made, from any thread, sync or async.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, Unpack

from django.db import transaction

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.messages import PersistedMessage, Published
from ws4redis_tx.core.names import is_control_channel
from ws4redis_tx.core.positions import NOT_KEPT, Kept, position
from ws4redis_tx.testing.captured import CapturedMessage, Criteria, Wanted, captured_message
from ws4redis_tx.threads import bridge
from ws4redis_tx.threads.port import FORGET, POSITION


class CapturedMessages:
    """The messages that ``capture_messages`` has captured, in order."""

    def __init__(self) -> None:
        self.messages: list[CapturedMessage] = []
        self._persisted: dict[bytes, bytes] = {}
        self._faults: list[bool] = []
        self._lock = Lock()
        self._stamp = 1
        self._once: dict[Any, Published] = {}

    def assert_published(
        self,
        message: str | bytes | None = None,
        *,
        times: int | None = None,
        **criteria: Unpack[Criteria],
    ) -> CapturedMessage:
        """Return the first message that matches. Raise ``AssertionError`` if none does, or if the
        number of matches is not ``times``.
        """
        if times is not None and times < 1:
            raise ValueError(
                f"times={times!r} is less than 1. To expect no message, use "
                "assert_not_published(…)."
            )
        wanted = Wanted(message, criteria)
        found = self._find(wanted)
        if found and times in (None, len(found)):
            return found[0]
        count = "No message was" if not found else f"{len(found)} messages, not {times}, were"
        raise AssertionError(f"{count} published like this: {wanted}.{self._summary()}")

    def assert_not_published(
        self, message: str | bytes | None = None, **criteria: Unpack[Criteria]
    ) -> None:
        """Raise ``AssertionError`` if a message matches. Without arguments, any message does."""
        wanted = Wanted(message, criteria)
        if self._find(wanted):
            raise AssertionError(f"A message was published like this: {wanted}.{self._summary()}")

    def fail_next(self, count: int = 1, *, maybe_published: bool = False) -> None:
        """Make the next ``count`` calls fail with ``BrokerUnavailable``, as if Redis were down.

        With ``maybe_published`` the message is captured anyway: only the answer is lost.
        """
        self._faults += [maybe_published] * count

    def clear(self) -> None:
        """Forget all captured messages and everything that was persisted."""
        with self._lock:
            self.messages.clear()
            self._persisted.clear()
            self._once.clear()

    def _position(self) -> str:
        return str(position(self._stamp, birth=1))

    def _next_position(self) -> str:
        self._stamp += 1
        return self._position()

    def _keep(self, channels: Sequence[bytes], message: bytes, expire: int, position: str) -> None:
        prefix = django_settings.get_prefix()
        self.messages.append(captured_message(channels, message, expire, prefix, position))
        if expire:
            self._persisted |= dict.fromkeys(channels, message)

    def _persisted_on(self, channel: bytes) -> PersistedMessage | None:
        payload = self._persisted.get(channel)
        return None if payload is None else PersistedMessage(payload, channel)

    def _fault(self) -> BrokerUnavailable | None:
        if not self._faults:
            return None
        text = "The test called fail_next of capture_messages."
        return BrokerUnavailable(text, maybe_published=self._faults.pop(0))

    def _find(self, wanted: Wanted) -> list[CapturedMessage]:
        with self._lock:
            return [each for each in self.messages if wanted.matches(each)]

    def _summary(self) -> str:
        if self.messages:
            return "\nPublished were:" + "".join([f"\n  {each}" for each in self.messages])
        if not transaction.get_connection().run_on_commit:
            return "\nNothing was published."
        return (
            "\nNothing was published. Does your code publish on commit? A TestCase never commits: "
            "publish within self.captureOnCommitCallbacks(execute=True), or with pytest-django "
            "within django_capture_on_commit_callbacks(execute=True)."
        )


class _CapturingRedis:
    """An ``IRedis`` that captures messages, and keeps tickets in memory without expiry."""

    def __init__(self) -> None:
        self.captured = CapturedMessages()

    def publish(
        self,
        channels: Sequence[bytes],
        message: bytes,
        expire: int,
        kept: Kept = NOT_KEPT,
        *,
        instead: bridge.Instead = bridge.PUBLISH,
    ) -> Published:
        """Returns one receiver for each channel."""
        bridge.must_not_wait_on_event_loop(instead[0])
        return self._publish(channels, message, expire, kept)

    async def apublish(
        self, channels: Sequence[bytes], message: bytes, expire: int, kept: Kept = NOT_KEPT
    ) -> Published:
        return self._publish(channels, message, expire, kept)

    def _publish(
        self, channels: Sequence[bytes], message: bytes, expire: int, kept: Kept
    ) -> Published:
        once = kept.once and (kept.once, *channels)
        with self.captured._lock:
            if once in self.captured._once:
                return self.captured._once[once]
            fault = self.captured._fault()
            if fault is not None and not fault.maybe_published:
                raise fault
            position = self.captured._next_position() if kept.history else ""
            if not all(map(is_control_channel, channels)):
                self.captured._keep(channels, bytes(message), expire, position)
            published = Published(len(channels), position)
            if once:
                self.captured._once[once] = published
            if fault is not None:
                raise fault
            return published

    def forget(self, channels: Sequence[bytes]) -> None:
        bridge.must_not_wait_on_event_loop(FORGET[0])
        self._forget(channels)

    async def aforget(self, channels: Sequence[bytes]) -> None:
        self._forget(channels)

    def _forget(self, channels: Sequence[bytes]) -> None:
        with self.captured._lock:
            self._fail_if_told()
            for channel in channels:
                self.captured._persisted.pop(channel, None)

    def position(self, began: float | None = None) -> str:
        bridge.must_not_wait_on_event_loop(POSITION[0])
        with self.captured._lock:
            self._fail_if_told()
            return self.captured._position()

    async def aposition(self) -> str:
        with self.captured._lock:
            self._fail_if_told()
            return self.captured._position()

    def get(self, channels: Sequence[bytes]) -> list[PersistedMessage | None]:
        bridge.must_not_wait_on_event_loop()
        with self.captured._lock:
            self._fail_if_told()
            return [self.captured._persisted_on(channel) for channel in channels]

    def ask(self, command: str, *arguments: Any, instead: bridge.Instead) -> Any:
        """Nobody is present, since there is no server, and there is no history."""
        bridge.must_not_wait_on_event_loop(instead[0])
        return self._nobody()

    async def aask(self, command: str, *arguments: Any) -> Any:
        return self._nobody()

    def _nobody(self) -> Sequence[Any]:
        with self.captured._lock:
            self._fail_if_told()
            return ()

    def put(self, key: bytes, value: bytes, seconds: int, *, instead: bridge.Instead) -> None:
        bridge.must_not_wait_on_event_loop(instead[0])
        self._put(key, value)

    async def aput(self, key: bytes, value: bytes, seconds: int) -> None:
        self._put(key, value)

    def _put(self, key: bytes, value: bytes) -> None:
        with self.captured._lock:
            self._fail_if_told()
            self.captured._persisted[key] = value

    def take(self, key: bytes) -> bytes | None:
        bridge.must_not_wait_on_event_loop()
        with self.captured._lock:
            self._fail_if_told()
            return self.captured._persisted.pop(key, None)

    def send(
        self,
        channels: Sequence[bytes],
        message: bytes,
        patience: float,
        done: Callable[[Any], object],
        entries: Mapping[bytes, bytes] | None = None,
        seconds: int = 60,
    ) -> bool:
        """Drops revocations, since no server listens."""
        return True

    def _fail_if_told(self) -> None:
        fault = self.captured._fault()
        if fault is not None:
            raise fault


@contextmanager
def capture_messages() -> Iterator[CapturedMessages]:
    """Capture the messages of ``RedisPublisher`` instead of publishing them.

    A context manager that gives ``CapturedMessages``. For a whole test, use it in ``setUp``:
    ``self.published = self.enterContext(capture_messages())``. It is also a decorator, for tests
    that only need to publish nothing. ``fetch_message`` finds captured messages, tickets are valid
    until the end, and revocations such as logouts are dropped. If it is nested, the innermost one
    captures.
    """
    redis = _CapturingRedis()
    with bridge.replaced(redis):
        yield redis.captured

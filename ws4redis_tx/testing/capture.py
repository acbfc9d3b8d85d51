"""For tests of Django code that publishes: what was published, and to whom. Without a Redis, and
without the reactor's thread.

Takes the place of the port ``bridge.redis()``, the one way from Django to Redis. So it does not
matter when a publisher was made, from which thread it publishes, or whether it awaits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, Unpack

from django.db import transaction

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.messages import PersistedMessage
from ws4redis_tx.core.names import is_control_channel
from ws4redis_tx.testing.captured import CapturedMessage, Criteria, Wanted, captured_message
from ws4redis_tx.threads import bridge


class CapturedMessages:
    """What was published while ``capture_messages`` captured, in order."""

    def __init__(self) -> None:
        self.messages: list[CapturedMessage] = []
        self._persisted: dict[bytes, bytes] = {}
        self._faults: list[bool] = []
        self._lock = Lock()

    def assert_published(
        self,
        message: str | bytes | None = None,
        *,
        times: int | None = None,
        **criteria: Unpack[Criteria],
    ) -> CapturedMessage:
        """Return the first message like this; raise ``AssertionError`` if there is none, or if
        there are not as many as ``times``.
        """
        if times is not None and times < 1:
            raise ValueError(f"times={times!r}: use assert_not_published(…).")
        wanted = Wanted(message, criteria)
        found = self._find(wanted)
        if found and times in (None, len(found)):
            return found[0]
        count = "No message was" if not found else f"{len(found)} messages, not {times}, were"
        raise AssertionError(f"{count} published like this: {wanted}.{self._what_was()}")

    def assert_not_published(
        self, message: str | bytes | None = None, **criteria: Unpack[Criteria]
    ) -> None:
        """Raise ``AssertionError`` if there is a message like this; any, if nothing is said."""
        wanted = Wanted(message, criteria)
        if self._find(wanted):
            raise AssertionError(f"A message was published like this: {wanted}.{self._what_was()}")

    def fail_next(self, count: int = 1, *, maybe_published: bool = False) -> None:
        """Have the next ``count`` calls fail with ``BrokerUnavailable``, as when Redis is away.

        With ``maybe_published`` the message is captured all the same: only the answer is lost.
        """
        self._faults += [maybe_published] * count

    def clear(self) -> None:
        """Forget what was captured, and what of it was persisted."""
        with self._lock:
            self.messages.clear()
            self._persisted.clear()

    def _keep(self, channels: Sequence[bytes], message: bytes, expire: int) -> None:
        self.messages.append(
            captured_message(channels, message, expire, django_settings.get_prefix())
        )
        if expire:
            self._persisted |= dict.fromkeys(channels, message)

    def _persisted_on(self, channel: bytes) -> PersistedMessage | None:
        payload = self._persisted.get(channel)
        return None if payload is None else PersistedMessage(payload, channel)

    def _fault(self) -> BrokerUnavailable | None:
        if not self._faults:
            return None
        text = "fail_next of capture_messages said so."
        return BrokerUnavailable(text, maybe_published=self._faults.pop(0))

    def _find(self, wanted: Wanted) -> list[CapturedMessage]:
        with self._lock:
            return [each for each in self.messages if wanted.fits(each)]

    def _what_was(self) -> str:
        if self.messages:
            return "\nPublished were:" + "".join([f"\n  {each}" for each in self.messages])
        if not transaction.get_connection().run_on_commit:
            return "\nNothing was published."
        return (
            "\nNothing was published. Is it to be published on commit? A TestCase never commits: "
            "publish within self.captureOnCommitCallbacks(execute=True)."
        )


class _NoRedis:
    """An ``IRedis`` that captures, and keeps tickets until the end."""

    def __init__(self) -> None:
        self.captured = CapturedMessages()

    def publish(
        self,
        channels: Sequence[bytes],
        message: bytes,
        expire: int,
        *,
        instead: bridge.Instead = bridge.PUBLISH,
    ) -> int:
        """Counts one server for each channel."""
        bridge.must_not_wait_on_event_loop(instead[0])
        with self.captured._lock:
            fault = self.captured._fault()
            if fault is not None and not fault.maybe_published:
                raise fault
            if not all(map(is_control_channel, channels)):
                self.captured._keep(channels, bytes(message), expire)
            if fault is not None:
                raise fault
            return len(channels)

    def get(self, channels: Sequence[bytes]) -> list[PersistedMessage | None]:
        bridge.must_not_wait_on_event_loop()
        with self.captured._lock:
            self._fail_if_told()
            return [self.captured._persisted_on(channel) for channel in channels]

    def put(self, key: bytes, value: bytes, seconds: int, *, instead: bridge.Instead) -> None:
        bridge.must_not_wait_on_event_loop(instead[0])
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
    ) -> bool:
        """Tells servers that somebody lost something: there are none."""
        return True

    def _fail_if_told(self) -> None:
        fault = self.captured._fault()
        if fault is not None:
            raise fault


@contextmanager
def capture_messages() -> Iterator[CapturedMessages]:
    """Have ``RedisPublisher`` publish nowhere, and see what it would have.

    A context manager that gives ``CapturedMessages``; for a whole test, in ``setUp``:
    ``self.published = self.enterContext(capture_messages())``. Also a decorator, for tests that
    only want nothing to be published. ``fetch_message`` finds what was captured, tickets are good
    until the end, and logouts and the like are told to no server. Where it is nested, the innermost
    captures.
    """
    nowhere = _NoRedis()
    with bridge.replaced(nowhere):
        yield nowhere.captured

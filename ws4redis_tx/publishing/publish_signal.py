"""Sends the signal ``message_published``, and finds the code that published.

Nothing of this costs anything while nobody is connected to the signal.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Self

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.messages import Published
from ws4redis_tx.core.names import without_session_key
from ws4redis_tx.signals import message_published

_log = logging.getLogger(__name__)

# Code in these is never the user's. Below the others, an event loop or a thread begins.
_OURS = ("ws4redis_tx", "django", "asgiref", "contextlib", "functools", "debug_toolbar")
_BOTTOM = ("asyncio", "concurrent", "threading", "uvloop")


@dataclass(eq=False)
class Scheduled:
    """A publish that waits for a commit. ``publish`` is the function in Django's list."""

    channels: tuple[str, ...]
    size: int
    caller: str
    publish: Callable[[], None] = field(init=False, repr=False)
    ran: bool = False


on_scheduled: ContextVar[Callable[[Scheduled], object] | None] = ContextVar(
    "on_scheduled", default=None
)
"""Told of each publish of this context that is scheduled, before anything is committed. The signal
cannot tell of one that is never carried out, and it is sent only while somebody is connected.
"""

_scheduled: ContextVar[Scheduled | None] = ContextVar("_scheduled", default=None)


class Announcement:
    """A context in which something is published; a coroutine uses ``async with``. At its end the
    signal is sent, with ``published`` or with the error that leaves the context.

    ``with`` sends it in this thread. ``async with`` runs async receivers on the event loop, and
    others in a thread.
    """

    published = Published(0)

    def __init__(self, sender: type, channels: Sequence[bytes], payload: bytes) -> None:
        self._told: dict[str, Any] | None = None
        if message_published.has_listeners(sender):
            self._told = _described(channels, payload) | {"sender": sender}
            self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        told = self._outcome(error)
        if told:
            with _logging_errors():
                message_published.send_robust(**told)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        told = self._outcome(error)
        if told:
            with _logging_errors():
                await message_published.asend_robust(**told)

    def _outcome(self, error: BaseException | None) -> dict[str, Any] | None:
        """The signal's arguments; ``None`` if nobody is told: a publish that was cancelled has no
        answer.
        """
        if self._told is None or not (error is None or isinstance(error, Exception)):
            return None
        duration = time.monotonic() - self._began
        receivers = 0 if error else int(self.published)
        return self._told | {"receivers": receivers, "duration": duration, "error": error}


def schedule(
    sender: type, channels: Sequence[bytes], payload: bytes, publish: Callable[[], None]
) -> Callable[[], None]:
    """The function to call on commit: ``publish``, whose signal will name the present caller."""
    if not message_published.has_listeners(sender):
        return publish
    scheduled = Scheduled(_for_people(channels), len(payload), _caller())

    def publish_on_commit() -> None:
        scheduled.ran = True
        with _running(scheduled):
            publish()

    scheduled.publish = publish_on_commit
    listener = on_scheduled.get()
    if listener is not None:
        listener(scheduled)
    return publish_on_commit


@contextmanager
def _logging_errors() -> Iterator[None]:
    # Django handles the errors of receivers. This is one of calling them, as where asgiref finds
    # that a receiver's thread is the one that waits.
    try:
        yield
    except Exception:
        _log.exception("Some receivers of message_published were not called")


@contextmanager
def _running(scheduled: Scheduled) -> Iterator[None]:
    token = _scheduled.set(scheduled)
    try:
        yield
    finally:
        _scheduled.reset(token)


def _described(channels: Sequence[bytes], payload: bytes) -> dict[str, Any]:
    scheduled = _scheduled.get()
    _scheduled.set(None)  # a receiver may publish, too
    return {
        "channels": _for_people(channels),
        "size": len(payload),
        "caller": _caller() if scheduled is None else scheduled.caller,
        "on_commit": scheduled is not None,
    }


def _for_people(channels: Sequence[bytes]) -> tuple[str, ...]:
    prefix = django_settings.get_prefix()
    return tuple(without_session_key(prefix, each.decode(errors="replace")) for each in channels)


def _caller() -> str:
    """The innermost line outside of this package and of Django, as ``file:line``; ``""`` if there
    is none, as in a task that an event loop runs by itself.
    """
    frame = sys._getframe(1)
    while frame is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package in _BOTTOM:
            return ""
        if package not in _OURS:
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""

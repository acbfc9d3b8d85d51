"""A panel for django-debug-toolbar: ``"ws4redis_tx.panels.MessagesPanel"`` in its setting
``DEBUG_TOOLBAR_PANELS``. Nothing else here imports the toolbar.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

from debug_toolbar.panels import Panel
from django.db import connections

from ws4redis_tx.publishing.publish_signal import Scheduled, on_scheduled
from ws4redis_tx.signals import message_published

__all__ = ["MessagesPanel"]

# A context variable follows the request into its threads and tasks.
_messages: ContextVar[_Messages | None] = ContextVar("_messages", default=None)


class MessagesPanel(Panel):
    """Shows what a request published: to whom, its size, the receivers that Redis counted, the time
    that Redis took, and the line of code. Messages that wait for a commit at the end of the
    response, or whose transaction was rolled back, are shown as such.
    """

    title = "Websocket messages"
    template = "ws4redis_tx/messages_panel.html"
    is_async = True

    def __init__(self, toolbar: Any, get_response: Any) -> None:
        super().__init__(toolbar, get_response)
        self._messages = _Messages()

    @classmethod
    def ready(cls) -> None:
        message_published.connect(_remember, dispatch_uid=_remember)

    @property
    def nav_subtitle(self) -> str:
        states = [message["state"] for message in self.get_stats().get("messages", ())]
        counted = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
        return ", ".join(counted) or "none"

    def enable_instrumentation(self) -> None:
        _messages.set(self._messages)
        on_scheduled.set(self._messages.schedule)

    def disable_instrumentation(self) -> None:
        _messages.set(None)
        on_scheduled.set(None)

    def generate_stats(self, request: Any, response: Any) -> None:
        self.record_stats({"messages": list(self._messages.rows())})


def _remember(on_commit: bool, duration: float, error: Exception | None, **told: Any) -> None:
    """A receiver of ``message_published``."""
    messages = _messages.get()
    if messages is not None:
        state = "failed" if error else "published on commit" if on_commit else "published"
        row = _row(state, told["channels"], told["size"], told["caller"])
        row |= {"receivers": told["receivers"], "milliseconds": duration * 1000}
        messages.published.append(row | {"error": "" if error is None else str(error)})


class _Messages:
    """The messages of one request."""

    def __init__(self) -> None:
        self.published: list[dict[str, Any]] = []
        self._scheduled: list[tuple[Scheduled, Iterable[Any]]] = []

    def schedule(self, scheduled: Scheduled) -> None:
        # Another thread, in which the response ends, has other connections.
        self._scheduled.append((scheduled, connections.all(initialized_only=True)))

    def rows(self) -> Iterator[dict[str, Any]]:
        """All messages, as what the toolbar can store: in the order in which they were published,
        and then those that were not.
        """
        yield from self.published
        for scheduled, used in self._scheduled:
            if not scheduled.ran:
                state = "on commit, later" if _waits(scheduled, used) else "rolled back"
                yield _row(state, scheduled.channels, scheduled.size, scheduled.caller)


def _waits(scheduled: Scheduled, used: Iterable[Any]) -> bool:
    """Whether one of the connections still has the function in its list for the commit."""
    return any(
        function is scheduled.publish for each in used for _, function, *_ in each.run_on_commit
    )


def _row(state: str, channels: tuple[str, ...], size: int, caller: str) -> dict[str, Any]:
    folder = os.path.join(os.getcwd(), "")
    return {
        "state": state, "channels": channels, "size": size, "caller": caller.removeprefix(folder),
    }  # fmt: skip

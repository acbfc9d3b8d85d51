"""Messages and answers that a broker in memory has sent, in one order for all."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred

# The clock's sums are not exact.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Message:
    """A message to the listeners of a channel."""

    due: float
    channel: bytes
    payload: bytes
    persisted: bool


@dataclass(frozen=True)
class Answer:
    """The answer to a call. ``sent``: the call was carried out, even if the answer is lost."""

    due: float
    deferred: Deferred[Any]
    result: Any
    sent: bool


class InFlight:
    """A queue in which nothing overtakes.

    :param clock: measures ``delay``; without a clock, delayed ones wait for ``flush``.
    :param dispatch: called with the messages that arrive together.
    """

    def __init__(self, clock: Any, dispatch: Callable[[Sequence[Message]], object]) -> None:
        self.clock = clock
        self.delay = 0.0
        self._dispatch = dispatch
        self._queue: deque[Message | Answer] = deque()
        self._handing_over = False
        self._timer: Any = None

    @property
    def now(self) -> float:
        return 0.0 if self.clock is None else float(self.clock.seconds())

    def add(self, channel: bytes, payload: bytes, *, persisted: bool) -> None:
        """Send a message. It arrives with the first ``hand_over`` after it is due."""
        self._queue.append(Message(self._due(), channel, payload, persisted))

    def answer(self, result: Any, *, sent: bool = False) -> Deferred[Any]:
        """Fire with ``result``, behind all that was sent before."""
        answer: Deferred[Any] = Deferred()
        self._queue.append(Answer(self._due(), answer, result, sent))
        self.hand_over()
        return answer

    def hand_over(self) -> None:
        """Have everything arrive that is due. Listeners and callbacks may call anything."""
        self._hand_over(lambda: self.now + _ROUNDING)

    def flush(self) -> None:
        """Have everything arrive, and all that it sets off."""
        self._hand_over(lambda: math.inf)

    def lose(self) -> Sequence[Message | Answer]:
        """Return everything that is on its way; none of it arrives."""
        lost, self._queue = self._queue, deque()
        self._come_back()
        return lost

    def _due(self) -> float:
        return math.inf if self.clock is None and self.delay else self.now + self.delay

    def _hand_over(self, until: Callable[[], float]) -> None:
        if self._handing_over:
            return
        self._handing_over = True
        try:
            while self._queue and self._queue[0].due <= until():
                first = self._queue.popleft()
                if isinstance(first, Answer):
                    first.deferred.callback(first.result)
                else:
                    self._dispatch([first, *self._messages(until())])
        finally:
            self._handing_over = False
        self._come_back()

    def _messages(self, until: float) -> list[Message]:
        """The messages at the head of the queue, which come in one read."""
        messages: list[Message] = []
        while self._queue and self._queue[0].due <= until:
            head = self._queue[0]
            if isinstance(head, Answer):
                break
            messages.append(head)
            self._queue.popleft()
        return messages

    def _come_back(self) -> None:
        """Set the timer for the next one that is due."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._queue and self._queue[0].due < math.inf:
            self._timer = self.clock.callLater(
                max(0.0, self._queue[0].due - self.now), self.hand_over
            )

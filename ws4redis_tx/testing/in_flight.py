"""What is on its way between a broker in memory and who waits for it, in one order for all."""

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
    """To the listeners of a channel."""

    due: float
    channel: bytes
    payload: bytes
    persisted: bool


@dataclass(frozen=True)
class Answer:
    """To who asked. ``sent``: what was asked for is carried out, whether this arrives or not."""

    due: float
    deferred: Deferred[Any]
    result: Any
    sent: bool


class InFlight:
    """A queue in which nothing overtakes.

    :param clock: by which ``delay`` seconds pass; without one, what is delayed waits for ``flush``.
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
        """A message. It arrives with the next ``hand_over`` for which it is due."""
        self._queue.append(Message(self._due(), channel, payload, persisted))

    def answer(self, result: Any, *, sent: bool = False) -> Deferred[Any]:
        """Fire with ``result``, behind all that is under way."""
        answer: Deferred[Any] = Deferred()
        self._queue.append(Answer(self._due(), answer, result, sent))
        self.hand_over()
        return answer

    def hand_over(self) -> None:
        """Have arrive what is due. Who is called may call anything."""
        self._hand_over(lambda: self.now + _ROUNDING)

    def flush(self) -> None:
        """Have everything arrive, and what that sets off."""
        self._hand_over(lambda: math.inf)

    def lose(self) -> Sequence[Message | Answer]:
        """Have nothing of it arrive, and return it."""
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
        """Those at the head of the queue: they come in one read."""
        messages: list[Message] = []
        while self._queue and self._queue[0].due <= until:
            head = self._queue[0]
            if isinstance(head, Answer):
                break
            messages.append(head)
            self._queue.popleft()
        return messages

    def _come_back(self) -> None:
        """When the next one is due."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._queue and self._queue[0].due < math.inf:
            self._timer = self.clock.callLater(
                max(0.0, self._queue[0].due - self.now), self.hand_over
            )

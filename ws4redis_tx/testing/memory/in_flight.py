"""Messages and answers of a broker in memory that are in flight, in a single order."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred

# The clock adds floats, so its times are not exact.
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
    """The answer to a call. ``sent``: the call took effect, even if the answer is lost."""

    due: float
    deferred: Deferred[Any]
    result: Any
    sent: bool


class InFlight:
    """A FIFO queue.

    :param clock: measures ``delay``. Without a clock, delayed entries wait for ``flush``.
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

    @property
    def idle(self) -> bool:
        """Whether everything was delivered."""
        return not self._queue and not self._handing_over

    def add(self, channel: bytes, payload: bytes, *, persisted: bool = False) -> None:
        """Send a message. It arrives with the first ``hand_over`` after it is due."""
        self._queue.append(Message(self._due(), channel, payload, persisted))

    def answer(self, result: Any, *, sent: bool = False) -> Deferred[Any]:
        """Fire with ``result``, after everything that was sent before."""
        answer: Deferred[Any] = Deferred()
        self._queue.append(Answer(self._due(), answer, result, sent))
        self.hand_over()
        return answer

    def hand_over(self) -> None:
        """Deliver everything that is due. Listeners and callbacks may call any method."""
        self._hand_over(lambda: self.now + _ROUNDING)

    def flush(self) -> None:
        """Deliver everything, and everything that this causes."""
        self._hand_over(lambda: math.inf)

    def lose(self) -> Sequence[Message | Answer]:
        """Remove and return everything in flight."""
        lost, self._queue = self._queue, deque()
        self._schedule()
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
        self._schedule()

    def _messages(self, until: float) -> list[Message]:
        """Take the due messages at the head of the queue, which arrive in the same read."""
        messages: list[Message] = []
        while self._queue and self._queue[0].due <= until:
            head = self._queue[0]
            if isinstance(head, Answer):
                break
            messages.append(head)
            self._queue.popleft()
        return messages

    def _schedule(self) -> None:
        """Set the timer for the next entry."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._queue and self._queue[0].due < math.inf:
            self._timer = self.clock.callLater(
                max(0.0, self._queue[0].due - self.now), self.hand_over
            )

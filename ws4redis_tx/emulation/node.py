"""One process among those that serve a site: it hands the POSTs that it gets for the streams of
another process over to that one.

The messages between two processes, over the control channels that bear their names, begin with a
version; those of another one are skipped.

    1 post FROM NUMBER DIGEST LF DATA    for the stream with that digest
    1 took NUMBER                        it was handed over
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.interfaces import IBroker
from ws4redis_tx.core.messages import Publication
from ws4redis_tx.core.names import control_channel
from ws4redis_tx.scheduling.waiters import Waiters

_log = Logger()

TAKEN_WITHIN = 1.5
"""Seconds for another process to take a POST. The client has its answer within 2 s."""

_NAME = re.compile(r"[0-9a-f]{16}")
_POST = re.compile(rb"1 post ([0-9a-f]{16}) (\d{1,18}) ([0-9a-f]{64})\n", re.DOTALL)
_TOOK = re.compile(rb"1 took (\d{1,18})")


class Node:
    """
    :param take: called with a stream's digest and the data for it.
    """

    def __init__(
        self,
        prefix: str,
        broker: IBroker,
        reactor: Any,
        take: Callable[[str, bytes], object],
    ) -> None:
        self.name = secrets.token_hex(8)
        self._prefix = prefix
        self._broker = broker
        self._reactor = reactor
        self._take = take
        self._numbers = count(1)
        self._passed_on: dict[int, Deferred[bool]] = {}
        self._listens = False
        self._asked = False
        self._waiters: Waiters[None] = Waiters()

    def _channel(self, name: str) -> bytes:
        return control_channel(self._prefix, f"node:{name}")

    def listen(self) -> Deferred[None]:
        """Fire when the POSTs that others get are heard. Idempotent; a failure is not final."""
        if self._listens:
            return succeed(None)
        waiting = self._waiters.wait()
        if not self._asked:
            self._asked = True
            listening = self._broker.listen(self._channel(self.name), self)
            listening.addCallbacks(self._listening, self._not_listening)
        return waiting

    def _listening(self, _: None) -> None:
        self._listens = True
        self._waiters.fire(None)

    def _not_listening(self, failure: Failure) -> None:
        self._asked = False
        self._waiters.fail(failure)

    def stop(self) -> None:
        """Hear nothing any more, until the next ``listen``. Idempotent."""
        if self._asked:
            self._asked = self._listens = False
            self._broker.unlisten(self._channel(self.name), self)

    def pass_on(self, name: str, digest: str, data: bytes) -> Deferred[bool]:
        """Fire with whether the process called ``name`` has taken the data, in bounded time."""
        if name == self.name:
            self._take(digest, data)
            return succeed(True)
        if not _NAME.fullmatch(name):
            return succeed(False)
        number = next(self._numbers)
        taken: Deferred[bool] = Deferred()
        self._passed_on[number] = taken
        timer = self._reactor.callLater(TAKEN_WITHIN, self._tell, number, False)

        def over(result: bool) -> bool:
            if timer.active():
                timer.cancel()
            return result

        self._send(name, number, digest, data).addErrback(self._failed, number)
        return taken.addCallback(over)

    @inlineCallbacks
    def _send(self, name: str, number: int, digest: str, data: bytes) -> Any:
        yield self.listen()
        head = f"1 post {self.name} {number} {digest}\n".encode()
        receivers = yield self._broker.publish([self._channel(name)], head + data, 0)
        if not receivers:
            self._tell(number, False)

    def _failed(self, failure: Failure, number: int) -> None:
        self._tell(number, False)
        if not failure.check(BrokerUnavailable):
            _log.failure("A POST could not be passed on to another process", failure=failure)

    def _tell(self, number: int, result: bool) -> None:
        taken = self._passed_on.pop(number, None)
        if taken is not None:
            taken.callback(result)

    def deliver(self, publication: Publication) -> None:
        payload = publication.payload
        post, took = _POST.match(payload), _TOOK.fullmatch(payload)
        if post is not None:
            self._take(post[3].decode(), payload[post.end() :])
            answer = self._broker.publish(
                [self._channel(post[1].decode())], b"1 took " + post[2], 0
            )
            answer.addErrback(lambda failure: failure.trap(BrokerUnavailable))
        elif took is not None:
            self._tell(int(took[1]), True)

"""The control channel, on which servers hear of revocations. Knows nothing of websockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.interfaces import IBroker
from ws4redis_tx.core.messages import Publication
from ws4redis_tx.core.names import control_channel
from ws4redis_tx.revocation.messages import CONTROL_NAME, Revocation, read_revocation
from ws4redis_tx.revocation.void_tokens import KEPT_FOR, VOIDING, Voiding, read_voiding
from ws4redis_tx.scheduling.waiters import Waiters

_log = Logger()

_TRY_AGAIN = 5.0


def tell_servers(
    prefix: str, broker: IBroker, revocation: Revocation, void: Voiding | None
) -> Deferred[int]:
    """Publish a revocation, after the tokens that it makes ``void``: those whom it closes must not
    come back with them. Fire with the number of servers that were told, or fail with
    ``BrokerUnavailable``.
    """
    channel = control_channel(prefix, CONTROL_NAME)
    if void is not None:
        # A broker of an application's own may keep nothing for servers that are started later.
        record: Any = getattr(broker, "record", None)
        if record is None:
            told: Deferred[Any] = broker.publish([channel], void.payload, 0)
        else:
            told = record(channel, void.payload, void.entries(prefix), KEPT_FOR)
        told.addErrback(lambda _: None)  # the next message tells of the failure
    return broker.publish([channel], revocation.payload, 0)


class ControlChannel:
    """A listener from the time the broker is available, through outages, until ``stop``.

    :param heard: called with each ``Revocation``, and ``voided`` with each ``Voiding``.
    :param listening: called when it begins to listen: earlier messages were not heard. Fires when
        what can be known of them is known.
    """

    def __init__(
        self,
        prefix: str,
        broker: IBroker,
        reactor: Any,
        heard: Callable[[Revocation], None],
        listening: Callable[[], Deferred[None]],
        voided: Callable[[Voiding], None],
    ) -> None:
        self._name = control_channel(prefix, CONTROL_NAME)
        self._broker = broker
        self._reactor = reactor
        self._heard = heard
        self._voided = voided
        self._on_listening = listening
        self._running = False
        self._listening: Deferred[None] | None = None
        self._said_refused = False
        self._tried = False
        self._waiters: Waiters[None] = Waiters()

    def start(self) -> None:
        """Idempotent."""
        if not self._running:
            self._running = True
            self._listening = self._listen().addErrback(self._not_listening)

    def stop(self) -> None:
        """Idempotent; may be called by those who are told of something here."""
        if self._running:
            self._running = False
            if self._listening is not None:
                self._listening.cancel()
            self._broker.unlisten(self._name, self)

    def when_tried(self) -> Deferred[None]:
        """Fire when it listens, or was refused for now."""
        return succeed(None) if self._tried else self._waiters.wait()

    def deliver(self, publication: Publication) -> None:
        try:
            if publication.payload.startswith(VOIDING):
                self._voided(read_voiding(publication.payload))
                return
            revocation = read_revocation(publication.payload)
        except ValueError as error:
            _log.warn(
                "A message on {channel} was ignored: {problem}",
                channel=self._name.decode(),
                problem=str(error),
            )
        else:
            if revocation is not None:
                self._heard(revocation)

    @inlineCallbacks
    def _listen(self) -> Any:
        while self._running:
            yield self._broker.when_available()
            try:
                yield self._broker.listen(self._name, self)
            except BrokerUnavailable as error:
                self._say_refused(error)
                self._tell_waiters()
                if self._running:
                    yield deferLater(self._reactor, _TRY_AGAIN)
            else:
                yield self._on_listening()
                self._tell_waiters()
                return

    def _tell_waiters(self) -> None:
        self._tried = True
        self._waiters.fire(None)

    def _say_refused(self, error: BrokerUnavailable) -> None:
        if self._broker.available and not self._said_refused:
            self._said_refused = True
            _log.warn(
                "Revocations are not heard, and take effect at the next recheck only: {problem} "
                "Grant this Redis user &{channel} to mend it.",
                problem=str(error),
                channel=self._name.decode(),
            )

    def _not_listening(self, failure: Failure) -> None:
        if self._running:
            _log.failure("The control channel is not listened to", failure=failure)

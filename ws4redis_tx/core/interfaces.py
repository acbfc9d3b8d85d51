"""The seams: what the parts promise each other, whoever implements them.

They are ``typing.Protocol`` classes, so that a type checker holds them without a plugin. All
methods run in the reactor thread.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ws4redis_tx.core.messages import PersistedMessage, Publication

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from ws4redis_tx.core.admission import Admission
    from ws4redis_tx.core.handshake import Handshake


class IListener(Protocol):
    """Somebody who wants the messages of a channel. Hashed by identity.

    One whose attribute ``takes_joined`` is true is given messages that came together as one
    ``Joined``, which has their frames in one piece, and themselves as ``parts``.
    """

    def deliver(self, publication: Publication) -> None:
        """Take one ``Publication``, at once. Must not raise and must not block."""


class IWriter(Protocol):
    """Where the frames of one connection go. A Twisted transport is one."""

    def write(self, data: bytes) -> object:
        """Take all of it, in order. Must not raise; what has no way any more is dropped."""


class IBroker(Protocol):
    """The one door to Redis of a process."""

    @property
    def available(self) -> bool:
        """Whether messages can be published and received right now."""

    @property
    def generation(self) -> int:
        """Another one whenever the connection on which messages arrive was replaced."""

    def listen(self, channel: bytes, listener: IListener) -> Deferred[None]:
        """Fire when the subscription stands: what is published from then on is delivered, in
        Redis' order over all channels. The listener stays across outages, until ``unlisten``: what
        an outage swallowed and is persisted is delivered before the broker is ``available`` again.

        Fails with ``BrokerUnavailable`` when there is no connection or it is lost before the
        subscription stood; the listener is not registered then.
        """

    def unlisten(self, channel: bytes, listener: IListener) -> None:
        """No message of ``channel`` is delivered to ``listener`` any more. Never fails."""

    def publish(
        self,
        channels: Sequence[bytes],
        message: bytes,
        expire: int,
        sender: IListener | None = None,
    ) -> Deferred[int]:
        """Persist for ``expire`` seconds (``0``: do not) and publish on every channel.

        Atomic per channel, one round trip for all; calls reach Redis in the order they were made.
        ``sender``, if it listens there, does not get the message back. Fires with the sum of the
        receiver counts that Redis answers, or fails with ``BrokerUnavailable``.
        """

    def get(self, channel: bytes) -> Deferred[PersistedMessage | None]:
        """The message persisted for ``channel``, or ``BrokerUnavailable``."""

    def forget(self, listener: IListener) -> None:
        """Drop what is remembered of a listener that is gone, beside its channels."""

    def when_available(self) -> Deferred[None]:
        """Fire when messages can be published and received. May be cancelled."""

    def fileno(self) -> int | None:
        """The descriptor of the connection on which messages arrive, if there is one."""

    def fence(self) -> Deferred[None]:
        """Fire when every message that Redis published before this call was handed to its
        listeners. Fails with ``BrokerUnavailable`` when the connection was replaced meanwhile.
        """


class IAuthorizer(Protocol):
    """Who is it, and what may they do?"""

    def authorize(
        self, handshake: Handshake, rights: Sequence[str]
    ) -> Deferred[Admission] | Coroutine[Any, Any, Admission] | Admission:
        """Decide about the ``rights`` that a client asked for, in the order of its URL.

        Asked at the handshake, and again about the same one while the websocket is open; that may
        be cancelled. A credential that is good once is redeemed at the first time, and what the
        ``Admission`` has as ``redeemed`` is the handshake's from then on. Raises or fails with
        ``Denied`` to refuse; any other failure is answered with 500.
        """

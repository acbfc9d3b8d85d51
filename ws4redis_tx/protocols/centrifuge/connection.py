"""One client: its commands, one after the other, and what it has."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import ANONYMOUS, Admission, Identity
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.names import Namespace, namespace
from ws4redis_tx.delivery.multiplexed import MultiplexedFeed
from ws4redis_tx.protocols.centrifuge import errors
from ws4redis_tx.protocols.centrifuge.commands import COMMANDS
from ws4redis_tx.protocols.centrifuge.errors import CommandError, Disconnection, Ends
from ws4redis_tx.protocols.centrifuge.names import Name
from ws4redis_tx.protocols.centrifuge.subscription import Subscription
from ws4redis_tx.protocols.centrifuge.wire.answers import Answers
from ws4redis_tx.protocols.centrifuge.wire.codec import PushCodec
from ws4redis_tx.protocols.centrifuge.wire.schema import Malformed, Values
from ws4redis_tx.protocols.interfaces import ISession
from ws4redis_tx.revocation.packing import Packed, unpack
from ws4redis_tx.scheduling.deferreds import succeeded

if TYPE_CHECKING:
    from ws4redis_tx.protocols.centrifuge.protocol import CentrifugeProtocol

_LONGEST_ID = 1 << 32

MOST_BYTES = 64 * 1024
"""Of a frame of the client's."""


class Connection(Answers):
    """A session's ``state``. Small, as there is one for each client."""

    __slots__ = (
        "_handshake", "_packed", "_running", "_timers", "_waiting", "aliases", "answered",
        "asks_alone", "claimed", "client", "connected", "expires", "feed", "identity", "info",
        "known", "known_as", "over", "pinged", "protocol", "refused", "session", "stream",
        "subscriptions", "websocket_pings",
    )  # fmt: skip

    def __init__(
        self, protocol: CentrifugeProtocol, session: ISession, codec: PushCodec, feed: Any
    ) -> None:
        super().__init__(codec, session.outbox)
        self.protocol = protocol
        self.session = session
        # The handshake, packed when the first commands are done with.
        self._handshake: Handshake | None = session.handshake
        self._packed: Packed
        self.feed: MultiplexedFeed = feed
        self.client = str(uuid4())
        """The id by which others know this connection."""
        self.identity: Identity = ANONYMOUS
        self.info = b""
        """What a token says of the client: JSON, if anything."""
        self.expires: float | None = None
        """When its token expires, in seconds since the epoch."""
        self.claimed: Mapping[str, tuple[bytes, bytes]] = {}
        """For each channel to which the token subscribes it, its ``info`` and ``data``."""
        self.stream: Mapping[str, str] | None = None
        """What a stream's client must know to send more."""
        self.websocket_pings = "cf_ws_frame_ping_pong=true" in session.handshake.query
        """Whether it wants no pings of the protocol."""
        self.aliases: dict[str, Name] = {}
        """The meanings of names that an application brings."""
        self.known_as: tuple[int, Admission] | None = None
        """The answer to ``connect``, as ``ISession.authorize_facilities`` wants it, while the
        commands that came with it wait.
        """
        self.refused: dict[tuple[str, str], errors.Error] = {}
        """Facilities and rights that were refused to commands of this frame."""
        self.asks_alone = False
        """Whether the commands of this frame ask for their rights one by one."""
        self.subscriptions: dict[str, Subscription] = {}
        """By name, including those not answered yet."""
        self.known: Deferred[None] | None = None
        """Fires when hooks may be told of it, if there are any."""
        self.connected = False
        """Whether ``connect`` has come."""
        self.answered = False
        """Whether ``connect`` was answered."""
        self.over = False
        """Whether it was answered with an error: nothing is answered any more."""
        self.pinged = False
        # Commands, ``None`` for one that is malformed, and what waits for those before it.
        self._waiting: deque[Values | Deferred[None] | None] | None = None
        self._running = False
        self._timers: dict[str, Any] = {}
        seconds = self.config.centrifuge_connect_timeout
        self.set_timer("stale", seconds, self.disconnect, errors.STALE)

    @property
    def config(self) -> ServerConfig:
        return self.protocol.config

    @property
    def broker(self) -> Any:
        return self.protocol.broker

    @property
    def handshake(self) -> Handshake:
        """As if it were one of the classic protocol. Kept in little memory."""
        return self._handshake or unpack(self._packed)

    @handshake.setter
    def handshake(self, handshake: Handshake) -> None:
        self._handshake = handshake

    def _pack(self) -> None:
        if self._handshake is not None and self.answered:
            admitted = self.session.admitted
            packed = None if admitted is None else admitted.packed
            self._packed = packed or self.protocol.packer.pack(self._handshake)
            self._handshake = None

    @property
    def namespace(self) -> Namespace:
        return namespace(self.config.prefix, self.identity.tenant)

    def set_timer(self, name: str, seconds: float, function: Any, argument: Any) -> None:
        """Call ``function`` later, unless ``stop_timer`` is called or the client leaves first."""
        self.stop_timer(name)
        self._timers[name] = self.protocol.reactor.callLater(seconds, function, argument)

    def stop_timer(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None and timer.active():
            timer.cancel()

    # What the client sends

    def received(self, payload: bytes) -> Deferred[None] | None:
        """Take what a frame holds. Fires when all of it is done with; ``None``: it is."""
        if len(payload) > MOST_BYTES:
            self.session.close(1009, "A frame has at most 64 KiB.")
            return None
        if self._waiting is None:
            self._waiting = deque()
        waiting, before = self._waiting, len(self._waiting)
        try:
            for command in self.codec.format.read(payload):
                if command:
                    waiting.append(command)
                elif not self._take_pong():
                    waiting.append(None)
        except Malformed:
            waiting.append(None)
        more = len(waiting) - before - 1
        if more > 0 and not self.session.within_rate(messages=more):
            waiting.clear()
        if not self._running:
            self._run()
        if self._waiting is None:
            return None
        done: Deferred[None] = Deferred()
        waiting.append(done)
        return done

    def _run(self, _: object = None) -> None:
        """Carry out the commands that wait, one after the other."""
        self._running = True
        waiting = self._waiting
        while waiting:
            command = waiting.popleft()
            if command is not None and not isinstance(command, dict):
                self.flush()
                self.forget_answers()
                command.callback(None)
                continue
            if self.session.ended or self.outbox.closed or self.over:
                continue
            number, name = self._judge(command)
            if command is None or not name:
                self.flush()
                self.disconnect(errors.BAD)
                continue
            if name not in ("connect", "subscribe"):
                self.flush()  # before what the command may have sent at once
            try:
                answer = COMMANDS[name](self, number, command[name])
            except Exception:
                self._failed(Failure(), number, name)
                continue
            if answer is not None:
                answer.addErrback(self._failed, number, name)
                if not succeeded(answer):
                    self.flush()
                    answer.addCallback(self._run)
                    answer.addErrback(self.session.fail, "A client's command failed")
                    return
        self.flush()
        self._waiting, self._running = None, False
        self.forget_answers()
        self._pack()

    def forget_answers(self) -> None:
        """Forget the authorizer's answers to a frame, which hold no longer than the frame."""
        self.known_as, self.asks_alone = None, False
        if self.refused:
            self.refused = {}

    def _failed(self, failure: Failure, number: int, name: str) -> None:
        if isinstance(failure.value, Ends):
            self.flush()
            self.disconnect(failure.value.disconnection)
        else:
            self.refuse(number, self.error_for(name, failure))

    def error_for(self, name: str, failure: Failure) -> errors.Error:
        """The error with which a failed command is answered."""
        if isinstance(failure.value, CommandError):
            return failure.value.error
        if not isinstance(failure.value, BrokerUnavailable):
            self.protocol.failed(f"The command {name} of a client failed", failure)
        return errors.INTERNAL

    def _judge(self, command: Values | None) -> tuple[int, str]:
        """The number and the name of a command that may come now, or ``""``."""
        if not command:
            return 0, ""
        number, name = command.get("id", 0), "subscribe"
        if name not in command or len(command) > 2:
            name = next((each for each in COMMANDS if each in command), "")
        numbered = 0 < number < _LONGEST_ID or (name == "send" and not number)
        return number, name if numbered and self.connected != (name == "connect") else ""

    def waiting_subscribes(self) -> Iterator[Values]:
        """The requests of the commands ``subscribe`` that are waiting."""
        for each in self._waiting or ():
            if isinstance(each, dict) and "subscribe" in each:
                yield each["subscribe"]

    # What the server sends

    def refuse(self, number: int, error: errors.Error) -> None:
        self.reply(number, "error", error._asdict())

    def disconnect(self, ending: Disconnection) -> None:
        self.session.close(ending.code, ending.reason)

    # Pings

    def ping(self) -> None:
        if self.over or self.outbox.paused:
            return  # a client that is merely slow has not read the ping
        self.pinged = True
        if self.websocket_pings:
            self.session.transport.check_liveness()
        else:
            self.outbox.write_control(self.codec.message({}))

    def check_pong(self) -> None:
        """The time for an answer is over."""
        if self.websocket_pings:
            self.pinged = self.session.transport.silent
        if self.pinged and not self.outbox.paused:
            self.disconnect(errors.NO_PONG)

    def _take_pong(self) -> bool:
        """Return whether one was expected."""
        expected = self.pinged and not self.websocket_pings
        self.pinged = self.pinged and not expected
        return expected

    # Subscriptions

    def end(self, subscription: Subscription, ending: Disconnection) -> None:
        """Unsubscribe it, and tell the client, if its command was answered."""
        answered = subscription.live
        self.remove(subscription)
        if answered:
            self.push({"channel": subscription.name.text, "unsubscribe": ending._asdict()})

    def remove(self, subscription: Subscription) -> None:
        if subscription.stands:
            del self.subscriptions[subscription.name.text]
        subscription.stop()

    def revoked(self, facility: str) -> None:
        """The visitor has lost something there: end what has no token of its own."""
        for each in list(self.subscriptions.values()):
            if each.name.facility == facility and not each.own:
                self.end(each, errors.SERVER_UNSUBSCRIBE)

    def closed(self) -> None:
        """The session is over."""
        for name in list(self._timers):
            self.stop_timer(name)
        for each in list(self.subscriptions.values()):
            each.stop(lost=True)
        self.subscriptions.clear()

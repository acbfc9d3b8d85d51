"""One client: its commands, one after the other, and what it has."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.python.failure import Failure

from ws4redis_tx.core.admission import ANONYMOUS, Identity
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.names import Namespace, namespace
from ws4redis_tx.core.positions import Position
from ws4redis_tx.delivery.multiplexed import MultiplexedFeed
from ws4redis_tx.protocols.centrifuge import errors
from ws4redis_tx.protocols.centrifuge.commands import COMMANDS
from ws4redis_tx.protocols.centrifuge.errors import CommandError, Disconnection, Ends
from ws4redis_tx.protocols.centrifuge.names import Name, read_name
from ws4redis_tx.protocols.centrifuge.rights import Rights
from ws4redis_tx.protocols.centrifuge.subscription import Subscription
from ws4redis_tx.protocols.centrifuge.wire.codec import PushCodec
from ws4redis_tx.protocols.centrifuge.wire.schema import Malformed, Values
from ws4redis_tx.protocols.interfaces import ISession

if TYPE_CHECKING:
    from ws4redis_tx.protocols.centrifuge.protocol import CentrifugeProtocol

_LONGEST_ID = 1 << 32


class Connection:
    """A session's ``state``."""

    def __init__(
        self, protocol: CentrifugeProtocol, session: ISession, codec: PushCodec, feed: Any
    ) -> None:
        self.protocol = protocol
        self.session = session
        self.codec = codec
        self.feed: MultiplexedFeed = feed
        self.config, self.broker = protocol.config, protocol.broker
        self.handshake = replace(session.handshake, websocket_url=self.config.websocket_url)
        self.client = str(uuid4())
        """The id by which others know this connection."""
        self.identity: Identity = ANONYMOUS
        self.request: object = None
        self.info = b""
        """What a token says of the client: JSON, if anything."""
        self.expires: float | None = None
        """When the token ends that it came with, in seconds since the epoch."""
        self.claimed: Sequence[str] = ()
        """The names of channels that a token subscribes it to."""
        self.stream: Mapping[str, str] = {}
        """What a stream's client must know to send more."""
        self.websocket_pings = "cf_ws_frame_ping_pong=true" in self.handshake.query
        """Whether it wants no pings of the protocol."""
        self.rights = Rights(self)
        self.subscriptions: dict[str, Subscription] = {}
        """By their names, those that were asked for too."""
        self.connected = False
        """Whether ``connect`` has come."""
        self.answered = False
        """Whether ``connect`` was answered."""
        self.refused = False
        """Whether it was answered with an error: nothing is answered any more."""
        self.pinged = False
        self._pongs = 0  # that the client may still send
        # Commands, ``None`` for one that is malformed, and what waits for those before it.
        self._waiting: deque[Values | Deferred[None] | None] = deque()
        self._running = False
        self._timers: dict[str, Any] = {}
        self.set_timer("stale", self.config.centrifuge_connect_timeout, errors.STALE)
        self._forget = protocol.broker.on_lost(self._lost)

    @property
    def namespace(self) -> Namespace:
        return namespace(self.config.prefix, self.identity.tenant)

    def lifetime(self) -> Values:
        """How long its token lasts, as an answer says it."""
        return {} if self.expires is None else self.protocol.tokens.lifetime(self.expires)

    def set_timer(self, name: str, seconds: float, ending: Disconnection) -> None:
        """Disconnect in so many seconds, unless ``stop_timer`` is called before."""
        self.stop_timer(name)
        reactor = self.protocol.reactor
        self._timers[name] = reactor.callLater(seconds, self.disconnect, ending)

    def stop_timer(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None and timer.active():
            timer.cancel()

    # What the client sends

    def received(self, payload: bytes) -> Deferred[None]:
        """Take what a frame holds. Fires when all of it is done with."""
        try:
            for command in self.codec.format.read(payload):
                if command:
                    self._waiting.append(command)
                else:
                    self._pong()
        except Malformed:
            self._waiting.append(None)
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        if not self._running:
            self._run().addErrback(self.session.fail, "A client's command failed")
        return done

    @inlineCallbacks
    def _run(self) -> Any:
        self._running = True
        while self._waiting:
            each = self._waiting.popleft()
            if isinstance(each, Deferred):
                each.callback(None)
            elif not self.session.ended and not self.session.outbox.closed and not self.refused:
                try:
                    yield self._execute(each)
                except Ends as end:
                    self.disconnect(end.disconnection)
        self._running = False

    @inlineCallbacks
    def _execute(self, command: Values | None) -> Any:
        name = next((each for each in COMMANDS if command and each in command), "")
        if command is None or not name:
            raise Ends(errors.BAD)
        number = command.get("id", 0)
        if not (0 < number < _LONGEST_ID or (name == "send" and not number)):
            raise Ends(errors.BAD)
        if self.connected == (name == "connect"):
            raise Ends(errors.BAD)
        try:
            yield COMMANDS[name](self, number, command[name])
        except Ends:
            raise
        except Exception as error:
            self.refuse(number, self.error_for(name, error))

    def error_for(self, name: str, raised: Exception) -> errors.Error:
        """What a command is answered that has raised this just now."""
        if isinstance(raised, CommandError):
            return raised.error
        if not isinstance(raised, BrokerUnavailable):
            self.protocol.failed(f"The command {name} of a client failed", Failure())
        return errors.INTERNAL

    def rights_ahead(self, name: Name) -> Collection[str]:
        """The rights on the same facility that the commands need which are waiting."""
        found: set[str] = set()
        for each in self._waiting:
            request = each.get("subscribe") if isinstance(each, dict) else None
            if request is None or request.get("token"):
                break
            try:
                following = read_name(request.get("channel", ""))
            except CommandError:
                continue
            if following.facility == name.facility:
                found.add(f"subscribe-{following.audience}")
        return found

    # What it is sent

    def write(self, data: bytes) -> None:
        """Write in order with all else, also while the client does not read."""
        outbox = self.session.outbox
        if outbox.flows:
            outbox.write(data)
        else:
            outbox.replay([(b"", data)])

    def reply(self, number: int, name: str, result: Values) -> None:
        self.write(self.codec.message({"id": number, name: result}))

    def refuse(self, number: int, error: errors.Error) -> None:
        self.write(self.codec.message({"id": number, "error": error._asdict()}))

    def push(self, values: Values) -> None:
        self.write(self.codec.push(values))

    def disconnect(self, ending: Disconnection) -> None:
        self.session.close(ending.code, ending.reason)

    # Pings

    def ping(self) -> None:
        if self.refused or self.session.outbox.paused:
            return  # a client that is merely slow has not read the ping
        self.pinged = True
        if self.websocket_pings:
            self.session.transport.check_liveness()
        else:
            self.session.outbox.write_control(self.codec.message({}))

    def check_pong(self) -> None:
        """The time for an answer is over."""
        if self.websocket_pings:
            self.pinged = self.session.transport.silent
        if self.pinged and not self.session.outbox.paused:
            self.disconnect(errors.NO_PONG)

    def _pong(self) -> None:
        if not self.pinged or self.websocket_pings:
            self._waiting.append(None)
        else:
            self.pinged = False

    # Subscriptions

    def end(self, subscription: Subscription, ending: Disconnection) -> None:
        """Unsubscribe it, and tell the client."""
        self.remove(subscription)
        told = {"code": ending.code, "reason": ending.reason}
        self.push({"channel": subscription.name.text, "unsubscribe": told})

    def remove(self, subscription: Subscription) -> None:
        if self.subscriptions.get(subscription.name.text) is subscription:
            del self.subscriptions[subscription.name.text]
        subscription.stop()

    def lost(self, facility: str) -> None:
        """The visitor has lost a right on ``facility``."""
        for each in self._of(facility):
            self.end(each, errors.SERVER_UNSUBSCRIBE)

    def _of(self, facility: str) -> Iterable[Subscription]:
        subscriptions = list(self.subscriptions.values())
        return [each for each in subscriptions if each.name.facility == facility and not each.own]

    def _lost(self) -> None:
        """The connection to Redis is lost, and the feed has all that came over it."""
        since = self.broker.position
        fallen = [each for each in self.subscriptions.values() if each.fall_back()]
        if fallen and since is not None:
            caught: Any = self._catch_up(fallen, since)
            caught.addErrback(self.session.fail, "Catching up after an outage of Redis failed")

    @inlineCallbacks
    def _catch_up(self, subscriptions: list[Subscription], since: Position) -> Any:
        channels = [each.channel for each in subscriptions]
        while not self.session.ended:
            yield self.broker.when_available()
            try:
                missed = yield self.broker.missed(channels, since)
            except BrokerUnavailable:
                yield self.protocol.later()
                continue
            for each in subscriptions:
                each.catch_up(missed)
            return

    def closed(self) -> None:
        """The session is over."""
        self._forget()
        for name in list(self._timers):
            self.stop_timer(name)
        for each in list(self.subscriptions.values()):
            each.stop()
        self.subscriptions.clear()
        self.rights.withdraw()
        while self._waiting:
            each_waiting = self._waiting.popleft()
            if isinstance(each_waiting, Deferred):
                each_waiting.callback(None)

"""One subscription: from the command to its answer, through outages, to its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, inlineCallbacks

from ws4redis_tx.core.messages import Publication
from ws4redis_tx.core.positions import History, Missed, Position, Stream, Wanted, history_of
from ws4redis_tx.protocols.centrifuge.errors import (
    ALREADY_SUBSCRIBED,
    DENIED,
    INSUFFICIENT_STATE,
    LIMIT_EXCEEDED,
    UNRECOVERABLE,
    UNSUBSCRIBE_INSUFFICIENT,
    CommandError,
)
from ws4redis_tx.protocols.centrifuge.names import Name
from ws4redis_tx.protocols.centrifuge.presence import enter, leave
from ws4redis_tx.protocols.centrifuge.rights import MOST_CHANNELS
from ws4redis_tx.protocols.centrifuge.wire.codec import describe, epoch_text
from ws4redis_tx.protocols.centrifuge.wire.schema import Values
from ws4redis_tx.scheduling.deferreds import gather, succeeded

if TYPE_CHECKING:
    from ws4redis_tx.protocols.centrifuge.connection import Connection

_PLAIN_RECOVERY: Values = {"was_recovering": True}
"""The answer where there is no history."""

_ONLY_RECOVERED = 2  # of a request's ``flag``: rather an error than a subscription with a gap


class Subscription:
    """An ``ICatcher``: takes the channel's messages until the subscription is answered, and while
    it catches up after an outage.
    """

    __slots__ = (
        "_held", "_held_bytes", "_until", "catching", "channel", "connection", "expires", "history",
        "info", "live", "name", "own", "published", "right", "server_side", "shares_name", "sides",
        "timer",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        name: Name,
        channel: bytes,
        history: History | None,
        *,
        server_side: bool = False,
    ) -> None:
        self.connection = connection
        self.name = name
        self.channel = channel
        self.history = history
        self.server_side = server_side
        self.live = False
        """Whether it was answered, and has not been ended since."""
        self.catching = False
        """Whether it catches up after an outage."""
        self.shares_name = connection.protocol.give_name(channel, name.text)
        """Whether all who hear the channel know it by the same name."""
        self.published = False
        """Whether the client has published there."""
        self.own = False
        """Whether a token of its own is the right to it."""
        self.right: Any = None
        """What a token of its own gives."""
        self.info = b""
        """What a subscription token says of the client: JSON, if anything."""
        self.expires: float | None = None
        self.timer: Any = None
        # The side channel: joins, leaves and who published.
        self.sides: Sequence[bytes] = ()
        # Made for the first one.
        self._held: list[Publication] | None = None
        self._held_bytes = 0
        # The position up to which the client has everything.
        self._until: Position | None = None

    @property
    def stands(self) -> bool:
        """Whether it has not been removed."""
        return self.connection.subscriptions.get(self.name.text) is self

    def hold(self, publication: Publication) -> None:
        if self.live and not self.catching:
            self.connection.feed.pass_on(self._under_its_name(publication))
            return
        if self._held is None:
            self._held = []
        self._held.append(publication)
        self._held_bytes += publication.size
        self.connection.session.outbox.grew(publication.size)
        if self._held_bytes > self.connection.session.outbox.max_pending:
            self.connection.session.outbox.give_up()

    def start(self, request: Values) -> Values | Deferred[Values]:
        """Subscribe, and return the answer, now or later. Nothing of the channel has been sent by
        then; ``go_live`` follows at once. Fails with ``CommandError``.
        """
        connection = self.connection
        broker, feed = connection.broker, connection.feed
        listening: list[Deferred[None]] = []
        has_presence = connection.protocol.has_presence(self.name)
        if self.history is None or has_presence:
            self.sides = (connection.protocol.side_of(self.channel),)
            listening.append(broker.listen(self.sides[0], feed))
        listening.append(broker.listen(self.channel, feed))
        at_once = self.history is None and all(map(succeeded, listening))
        if not at_once or not self.shares_name or self.server_side:
            feed.catch(self.channel, self)  # before anything can arrive
            if has_presence:
                feed.catch(self.sides[0], self)
        if at_once:
            return _PLAIN_RECOVERY if request.get("recover") else {}
        return self._wait(listening, request)

    def _under_its_name(self, publication: Publication) -> Publication:
        """Others know the channel by another name, and share their pushes."""
        codec = self.connection.codec
        own = Publication(publication.channel, publication.payload)
        own.forms[codec] = codec.under(self.name.text, publication)
        return own

    @inlineCallbacks
    def _wait(self, listening: list[Deferred[None]], request: Values) -> Any:
        yield gather(listening)
        if self.history is None:
            return _PLAIN_RECOVERY if request.get("recover") else {}
        after = request.get("offset", 0) if request.get("recover") else 0
        wanted = Wanted(self.channel, self.history.size, after=_bounded(after))
        stream = yield self.connection.broker.stream(wanted)
        return self._answer(request, stream)

    def _answer(self, request: Values, stream: Stream) -> Values:
        assert self.history is not None
        answer: Values = {
            "recoverable": True,
            "positioned": True,
            "epoch": epoch_text(stream.epoch),
            "offset": stream.top,
        }
        self._drop_until(stream.until)
        if not request.get("recover"):
            return answer
        answer["was_recovering"] = True
        offset = request.get("offset", 0)
        missed = None
        if fits(stream, request.get("epoch", "")):
            missed = stream.after(_bounded(offset), self.history.size)
        if missed is None:
            if request.get("flag") == _ONLY_RECOVERED:
                raise CommandError(UNRECOVERABLE)
            return answer
        format = self.connection.codec.format
        answer["recovered"] = True
        answer["offset"] = offset
        answer["epoch"] = request.get("epoch") or answer["epoch"]
        answer["publications"] = [describe(each, format) for each in missed]
        return answer

    def _drop_until(self, until: Position) -> None:
        """Those up to ``until`` are in the history. One without a marker is in none."""
        self._until = until
        self._held = _later(self._held or (), until)

    def go_live(self) -> None:
        """Send what has arrived since, and let the feed have what comes."""
        held, self._held, self._held_bytes = self._held or (), None, 0
        if held:
            self.connection.flush()
        begins, self.live, self.catching = not self.live, True, False
        feed = self.connection.feed
        for channel in (self.channel, *self.sides) if self.shares_name else ():
            feed.release(channel)
        for each in held:
            feed.deliver(each)
        if begins:
            self.connection.session.subscribed(self.channel)
            enter(self)

    def fall_back(self) -> bool:
        """The connection to Redis is lost: hold what comes, until ``catch_up``. Return whether
        there is anything to catch up with, and nobody does already.
        """
        if not self.live or self.history is None or self.catching:
            return False
        self.catching = True
        self.connection.feed.catch(self.channel, self)
        return True

    def catch_up(self, missed: Missed) -> None:
        """Send the messages missed in an outage; end the subscription if they are not known."""
        connection = self.connection
        if not self.live:
            return
        if self.channel in missed.gaps:
            self._held = None
            if self.server_side:
                connection.disconnect(INSUFFICIENT_STATE)
            else:
                connection.end(self, UNSUBSCRIBE_INSUFFICIENT)
            return
        found = [each for each in missed.messages if each.channel == self.channel]
        assert self._until is not None  # it may be later than what the server had heard
        found = _later(found, self._until)
        self._drop_until(missed.until)
        self._held = [*found, *(self._held or ())]
        self.go_live()

    def take(self, claims: Any) -> None:
        """A subscription token is the right to it. Raises ``CommandError`` for one that is void."""
        right = self.connection.protocol.tokens.watch(self, claims)
        self._give_up_right()
        self.right = right
        self.own = True
        self.info, self.expires = claims.info, claims.expires

    def _give_up_right(self) -> None:
        if self.right is not None:
            self.connection.session.withdraw(self.right)
            self.right = None

    def stop(self, *, lost: bool = False) -> None:
        """Stop listening, because the client unsubscribed or its connection is ``lost``.
        Idempotent.
        """
        connection = self.connection
        if self.live:
            connection.session.unsubscribed(self.channel)
        self.live = False
        self._held = None
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
        self._give_up_right()
        if self.shares_name:
            connection.protocol.take_name(self.channel)
            self.shares_name = False
        for channel in (self.channel, *self.sides):
            connection.feed.release(channel)
            connection.broker.unlisten(channel, connection.feed)
        self.sides = ()
        leave(self, lost=lost)


def _later(found: Sequence[Publication], until: Position) -> list[Publication]:
    return [e for e in found if not e.marked or e.position is None or e.position > until]


def _bounded(offset: int) -> int:
    """Lua's numbers are exact up to 2^53."""
    return min(max(offset, 0), 1 << 53)


def fits(stream: Stream, epoch: str) -> bool:
    if not epoch:
        return True
    try:
        return stream.fits(int(epoch, 16)) if len(epoch) <= 16 else False
    except ValueError:
        return False


def history_for(connection: Connection, name: Name) -> History | None:
    rules = connection.config.history
    return history_of(rules, name.facility) if rules else None


def begin(
    connection: Connection, name: Name, request: Values, *, server_side: bool = False
) -> Subscription:
    """Make a subscription that was asked for. Raises ``CommandError``."""
    if connection.session.ended:
        raise CommandError(DENIED)  # nobody would end it
    if len(connection.subscriptions) >= MOST_CHANNELS:
        raise CommandError(LIMIT_EXCEEDED)
    claims = None
    if request.get("token"):
        claims = connection.protocol.tokens.subscription(connection, name, request["token"])
    channel = connection.protocol.channel_of(name, connection)
    if connection.aliases:  # two names may mean one channel
        others = connection.subscriptions.values()
        if any(each.channel == channel for each in others):
            raise CommandError(ALREADY_SUBSCRIBED)
    history = history_for(connection, name)
    subscription = Subscription(connection, name, channel, history, server_side=server_side)
    if claims is not None:
        subscription.take(claims)
    elif server_side and name.text in connection.claimed:
        subscription.own, (subscription.info, _) = True, connection.claimed[name.text]
    connection.subscriptions[name.text] = subscription
    return subscription

"""Websockets over a broker that delays every request and every answer independently.

The real protocol, factory, subscriber and delivery; only the broker is a script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hypothesis import given, settings
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.stories import (
    CALM,
    TROUBLE,
    Authorizer,
    Message,
    Pipe,
    Redis,
    Story,
    of_websockets,
    stories,
)
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.interfaces import IListener
from ws4redis_tx.core.messages import PersistedMessage, Publication
from ws4redis_tx.delivery.hub import EchoNotes, Hub
from ws4redis_tx.redis.channel_table import ChannelTable
from ws4redis_tx.scheduling.deferreds import gather
from ws4redis_tx.scheduling.waiters import Callbacks, Waiters
from ws4redis_tx.service import make_factory


class ScriptedPipe(Pipe):
    """Requests are functions that Redis runs; answers are functions that the test runs."""

    up = True

    def ask(self, question: Callable[[], Any]) -> Deferred[Any]:
        answered: Deferred[Any] = Deferred()
        self.requests.append((question, answered))
        return answered

    def execute(self) -> bool:
        if not self.requests:
            return False
        question, answered = self.requests.popleft()
        self.answers.append((question(), answered))
        return True

    def arrive(self) -> bool:
        if not self.answers:
            return False
        answer, answered = self.answers.popleft()
        answered.callback(answer)
        return True

    def lose(self) -> None:
        """Lose everything in flight, in both directions."""
        lost = [each for _, each in (*self.answers, *self.requests)]
        self.answers.clear()
        self.requests.clear()
        self.up = False
        for answered in lost:
            answered.errback(BrokerUnavailable("The connection was lost."))


def _raise() -> None:
    raise


class ScriptedBroker:
    """``IBroker`` to the letter. It recovers in one step, without any mistake: all channels are
    subscribed again, and the messages that an outage swallowed are dispatched in Redis' order.
    """

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        redis.send = self._sent
        self.hub = Hub(_raise)
        self.notes = EchoNotes()
        self.pubsub = ScriptedPipe()
        self.commands = ScriptedPipe()
        self.generation = 0
        self._table = ChannelTable(self.hub, self._subscribe, self._unsubscribe)
        self._available: Waiters[None] = Waiters()
        self._restored = Callbacks()

    @property
    def available(self) -> bool:
        return self.pubsub.up and self.commands.up

    def listen(self, channel: bytes, listener: IListener) -> Deferred[None]:
        if not self.pubsub.up:
            return fail(BrokerUnavailable("There is no connection."))
        return self._table.listen(channel, listener)

    def unlisten(self, channel: bytes, listener: IListener) -> None:
        self._table.unlisten(channel, listener)

    def _subscribe(self, channel: bytes) -> Deferred[None]:
        return self.pubsub.ask(lambda: self.redis.subscribed.add(channel))

    def _unsubscribe(self, channel: bytes) -> None:
        if self.pubsub.up:
            self.pubsub.ask(lambda: self.redis.subscribed.discard(channel)).addErrback(
                lambda _: None
            )

    def publish(
        self,
        channels: Sequence[bytes],
        message: bytes,
        expire: int,
        sender: IListener | None = None,
    ) -> Deferred[int]:
        if not self.commands.up:
            return fail(BrokerUnavailable("There is no connection."))
        noted = [channel for channel in channels if sender and self.hub.has(channel, sender)]
        for channel in noted:
            self.notes.note(channel, message, sender)

        def not_published(failure: Any) -> Any:
            for channel in noted:
                self.notes.drop(channel, message, sender)
            return failure

        def ask(channel: bytes) -> Deferred[int]:
            return self.commands.ask(
                lambda: self.redis.publish(channel, bytes(message), persist=bool(expire))
            )

        return gather(map(ask, channels)).addCallbacks(sum, not_published)

    def get(self, channel: bytes) -> Deferred[PersistedMessage | None]:
        if not self.commands.up:
            return fail(BrokerUnavailable("There is no connection."))

        def read() -> PersistedMessage | None:
            found = self.redis.keys.get(channel)
            return None if found is None else PersistedMessage(found.payload, channel)

        return self.commands.ask(read)

    def fence(self, channels: Iterable[bytes] | None = None) -> Deferred[None]:
        if not self.pubsub.up:
            return fail(BrokerUnavailable("There is no connection."))
        return self.pubsub.ask(lambda: None)

    def forget(self, listener: IListener) -> None:
        self.notes.forget(listener)

    def when_available(self) -> Deferred[None]:
        return succeed(None) if self.available else self._available.wait()

    def on_restored(self, callback: Callable[[], object]) -> Callable[[], None]:
        return self._restored.add(callback)

    def generation_of(self, channels: Iterable[bytes]) -> int:
        return self.generation

    def fileno(self) -> int | None:
        return None

    # Messages that Redis sends, or fails to send

    def _sent(self, message: Message) -> None:
        arrived: Deferred[Message] = Deferred()
        arrived.addCallbacks(self._dispatch, lambda _: self.redis.lose(message))
        self.pubsub.answers.append((message, arrived))

    def _dispatch(self, message: Message) -> None:
        # While a subscription is under way, messages still come from an earlier one.
        if message.channel not in self._table.subscribing:
            sender = self.notes.take(message.channel, message.payload)
            self.hub.dispatch(Publication(message.channel, message.payload, sender))

    def lose_pubsub(self) -> None:
        self.redis.connection_lost("pubsub")
        self.notes.clear()
        self.pubsub.lose()

    def lose_commands(self) -> None:
        self.redis.connection_lost("commands")
        self.commands.lose()

    def recover(self) -> None:
        if self.available:
            return
        self.commands.up = True
        replaced = not self.pubsub.up
        if replaced:
            self.pubsub.up = True
            self.generation += 1
            self.redis.subscribed = set(self.hub.channels)
            self.redis.recall(self.hub.channels)
            missed = self.redis.recalled & self.redis.lost
            self.redis.lost.clear()
            for message in sorted(missed, key=lambda message: message.number):
                self._dispatch(message)
        self._available.fire(None)
        if replaced:
            self._restored.call()


class ScriptedWorld:
    deaf = False

    def __init__(self) -> None:
        self.redis = Redis()
        self.broker = ScriptedBroker(self.redis)
        self.clock = Clock()
        self.factory = make_factory(
            ServerConfig(), broker=self.broker, authorizer=Authorizer(), reactor=self.clock
        )
        self.pubsub = self.broker.pubsub
        self.commands = self.broker.commands
        self.lose_pubsub = self.broker.lose_pubsub
        self.lose_commands = self.broker.lose_commands
        self.recover = self.broker.recover

    def remembered(self) -> dict[str, object]:
        return {
            "listeners": of_websockets(self.broker.hub.channels),
            "subscriptions": of_websockets(self.redis.subscribed),
            "notes": len(self.broker.notes),
            "websockets": self.factory.session_server.sessions,
        }


class AnyInterleavingTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=300)
    @given(stories(*CALM))
    def test_every_client_gets_all_in_order_once(self, steps: list[tuple[Any, ...]]) -> None:
        Story(ScriptedWorld()).take(steps)

    @settings(deadline=None, max_examples=300)
    @given(stories(*TROUBLE))
    def test_outages_cost_no_more_than_what_was_not_persisted(
        self, steps: list[tuple[Any, ...]]
    ) -> None:
        Story(ScriptedWorld()).take(steps)

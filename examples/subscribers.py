"""Three subscribers of an application's own, each a subclass of ``RedisSubscriber``.

Copy one into your site, fill in its marked method, and name it in the settings::

    WS4REDIS_SUBSCRIBER = "mysite.subscribers.TeamSubscriber"

The server makes one subscriber for each websocket and calls its methods in the reactor thread,
where whatever blocks makes every websocket wait. A query therefore goes into a worker thread
(``deferToThread``), and a method that waits for it returns a Deferred: ``inlineCallbacks`` makes
one of a generator that yields what it waits for.

While a method waits the client may leave. ``release()`` is called then, and the method goes on
afterwards all the same: it must not subscribe to anything any more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from django.db import close_old_connections
from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks
from twisted.internet.threads import deferToThread

from ws4redis_tx.publisher import RedisPublisher
from ws4redis_tx.redis_store import RedisMessage
from ws4redis_tx.subscriber import RedisSubscriber


def with_database(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call it as Django calls a view: an old database connection is not used, none is left open."""
    close_old_connections()
    try:
        return function(*arguments)
    finally:
        close_old_connections()


# 1. An audience besides broadcast, group, user and session


class TeamChannels:
    """The channels of teams, ``{prefix:}team:{name}:{facility}``, for whoever listens or publishes.

    ``_get_message_channels`` is where both sides turn an audience into names, so it is written
    once and mixed into both.
    """

    def _get_message_channels(
        self, request: Any = None, facility: str = "", teams: Iterable[str] = (), **audiences: Any
    ) -> list[str]:
        if isinstance(teams, str):
            raise TypeError(f"teams={teams!r} is not a list of names. Write teams=[{teams!r}].")
        channels: list[str] = super()._get_message_channels(  # type: ignore[misc]
            request=request, facility=facility, **audiences
        )
        start = f"{self.get_prefix()}team"  # type: ignore[attr-defined]
        return channels + [f"{start}:{team}:{facility}" for team in dict.fromkeys(teams)]


class TeamPublisher(TeamChannels, RedisPublisher):
    """For views: ``TeamPublisher(facility="news", teams=["red"]).publish_message("hello")``."""


class TeamSubscriber(TeamChannels, RedisSubscriber):
    """``ws://…/ws/news?subscribe-team`` hears what is published to the visitor's own teams.

    Without ``WS4REDIS_ALLOWED_CHANNELS`` everybody may ask for ``subscribe-team``, and gets the own
    teams only, whereas ``publish-team`` reaches others and has to be granted there.
    """

    # What a URL may ask for. The server ignores words that are in neither list.
    subscription_channels = [*RedisSubscriber.subscription_channels, "subscribe-team"]
    publish_channels = [*RedisSubscriber.publish_channels, "publish-team"]

    _released = False

    def teams_of(self, request: Any) -> Iterable[str]:
        """Fill this in. The names of the visitor's teams; called in a worker thread."""
        raise NotImplementedError

    @inlineCallbacks
    def set_pubsub_channels(self, request: Any, channels: Collection[str]) -> Any:
        """The handshake waits for the Deferred, so the client sees its websocket open when it is
        subscribed to its teams too. After 5 s it is refused.
        """
        yield super().set_pubsub_channels(request, channels)
        if "subscribe-team" not in channels and "publish-team" not in channels:
            return
        teams = yield deferToThread(with_database, self.teams_of, request)
        if self._released:
            return
        facility = request.path_info[len(self._connection.config.websocket_url) :]
        team_channels = self._get_message_channels(facility=facility, teams=teams)
        if "publish-team" in channels:
            self._publishers.update(team_channels)
        if "subscribe-team" in channels:
            yield self._subscription.subscribe(*team_channels)

    def release(self) -> Any:
        """The base class leaves every channel of ``self._subscription``, the teams' included."""
        self._released = True
        return super().release()


# 2. A filter on what clients publish


class NotAllowed(Exception):
    """What a client may not even try."""


class FilteringSubscriber(RedisSubscriber):
    """Drops what is not text or too long, and lets a check that may block alter or drop the rest,
    or close the client.

    What Django publishes does not pass here, only what websockets send.
    """

    longest = 500

    _websocket: Any = None

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._turn = DeferredLock()
        self._over = False

    def check(self, text: str) -> str | None:
        """Fill this in. What is to be published, or ``None`` for nothing; called in a worker
        thread. ``NotAllowed`` closes the client with 1008, any other exception with 1011, and
        nothing that it sent afterwards is published.
        """
        raise NotImplementedError

    def send_persisted_messages(self, websocket: Any) -> Any:
        """Only here the websocket is at hand; keep it to close it later."""
        self._websocket = websocket
        return super().send_persisted_messages(websocket)

    def publish_message(self, message: RedisMessage, expire: int | None = None) -> Deferred[Any]:
        """Called for each message a client sends; the next call does not wait for the Deferred.

        Threads finish in any order, so one message after the other is checked: the lock keeps a
        client's messages in the order in which they were sent.
        """
        return self._turn.run(self._check_and_publish, message, expire)

    @inlineCallbacks
    def _check_and_publish(self, message: RedisMessage, expire: int | None) -> Any:
        if self._over:
            return 0  # it was under way, or waited for its turn
        try:
            text = message.decode()
        except UnicodeDecodeError:
            return 0
        if len(text) > self.longest:
            return 0
        try:
            checked = yield deferToThread(with_database, self.check, text)
        except NotAllowed:
            self._over = True
            self._websocket.close(1008, "That is not allowed.")
            return 0
        except Exception:
            self._over = True
            raise
        if checked is None:
            return 0
        return (yield super().publish_message(RedisMessage(checked), expire))


# 3. A replay of something of the application's own


class WelcomingSubscriber(RedisSubscriber):
    """Begins with a welcome and the latest rows of a table; what is persisted follows, then what is
    live.

    A row that is also published may come twice: once as a row, once as the persisted or a live
    message. Put an id into both and let the page skip those it has.
    """

    welcome = "Welcome!"

    _request: Any = None

    def latest(self, request: Any) -> Iterable[str | bytes]:
        """Fill this in. The messages to begin with, oldest first; called in a worker thread, so
        make a list of a query here.
        """
        raise NotImplementedError

    def set_pubsub_channels(self, request: Any, channels: Collection[str]) -> Any:
        """Only here the request is at hand; keep what is needed later."""
        self._request = request
        return super().set_pubsub_channels(request, channels)

    @inlineCallbacks
    def send_persisted_messages(self, websocket: Any) -> Any:
        """Called when the websocket is open; live messages queue until the Deferred fires.

        When the connection to Redis breaks meanwhile it is called again from the start, and the
        client still gets everything once. If the client has left, ``send`` does nothing.
        """
        websocket.send(self.welcome)
        for row in (yield deferToThread(with_database, self.latest, self._request)):
            websocket.send(row)
        yield super().send_persisted_messages(websocket)

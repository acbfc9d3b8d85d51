"""Four custom subscribers, each a subclass of ``RedisSubscriber``.

Copy one into your site, implement its marked method, and name the class in the settings::

    WS4REDIS_SUBSCRIBER = "mysite.subscribers.TeamSubscriber"

The server makes one subscriber for each websocket and calls its methods in the reactor thread. A
method that blocks there makes every websocket wait. Run queries in a worker thread
(``deferToThread``), and return a Deferred from a method that waits for one. ``inlineCallbacks``
turns a generator that yields Deferreds into such a method.

A client may leave while a method waits. The server then calls ``release()``, but the method still
continues when its wait is over. From then on, it must not subscribe to anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from django.db import close_old_connections
from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks
from twisted.internet.threads import deferToThread

from ws4redis_tx.publisher import SELF, RedisPublisher
from ws4redis_tx.redis_store import RedisMessage
from ws4redis_tx.subscriber import RedisSubscriber


def with_database(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call it as Django calls a view: with no stale database connection, and leaving none open."""
    close_old_connections()
    try:
        return function(*arguments)
    finally:
        close_old_connections()


# 1. An audience in addition to broadcast, group, user and session


class TeamChannels:
    """The channels of teams, ``{prefix:}team:{name}:{facility}``.

    Publishers and subscribers both use ``_get_message_channels`` to turn an audience into channel
    names, so this class is mixed into both.
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
    """``ws://…/ws/news?subscribe-team`` receives the messages for the visitor's own teams.

    Without ``WS4REDIS_ALLOWED_CHANNELS``, everybody may ask for ``subscribe-team`` and gets only
    their own teams. ``publish-team`` reaches others, so that setting must grant it.
    """

    # The rights that a URL may ask for. The server refuses other words that
    # begin with subscribe or publish.
    subscription_channels = [*RedisSubscriber.subscription_channels, "subscribe-team"]
    publish_channels = [*RedisSubscriber.publish_channels, "publish-team"]

    _released = False

    def teams_of(self, request: Any) -> Iterable[str]:
        """Implement this: return the names of the visitor's teams. Called in a worker thread."""
        raise NotImplementedError

    @inlineCallbacks
    def set_pubsub_channels(self, request: Any, channels: Collection[str]) -> Any:
        """The handshake waits for the Deferred, so the client sees its websocket open only when it
        is subscribed to its teams too. After 5 s the handshake is refused.
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
        """The base class leaves every channel of ``self._subscription``, including the teams'."""
        self._released = True
        return super().release()


# 2. A filter on what clients publish


class NotAllowed(Exception):
    """The client sent something forbidden, and is closed for it."""


class FilteringSubscriber(RedisSubscriber):
    """Drops messages that are not text or are too long. For the rest, it runs a check that may
    block, and that can change or drop a message or close the client.

    Only messages from websockets pass through here, not those that Django publishes.
    """

    longest = 500

    _websocket: Any = None

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._turn = DeferredLock()
        self._over = False

    def check(self, text: str) -> str | None:
        """Implement this: return the text to publish, or ``None`` to publish nothing. Called in a
        worker thread. ``NotAllowed`` closes the client with 1008, and any other exception with
        1011. In both cases, nothing that the client sent afterwards is published.
        """
        raise NotImplementedError

    def send_persisted_messages(self, websocket: Any) -> Any:
        """Keep the websocket, which no other method gets, to close it later."""
        self._websocket = websocket
        return super().send_persisted_messages(websocket)

    def publish_message(self, message: RedisMessage, expire: int | None = None) -> Deferred[Any]:
        """Called for each message from the client; the next call does not wait for the Deferred.

        Threads finish in any order. The lock checks one message at a time, so a client's messages
        keep their order.
        """
        return self._turn.run(self._check_and_publish, message, expire)

    @inlineCallbacks
    def _check_and_publish(self, message: RedisMessage, expire: int | None) -> Any:
        if self._over:
            return 0  # this message was waiting when an earlier one closed the client
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


# 3. A replay of the application's own data


class WelcomingSubscriber(RedisSubscriber):
    """Sends a welcome and the latest rows of a table, then the persisted messages, then the live
    ones.

    A row that is also published may arrive twice: once as a row, and once as a persisted or live
    message. Put an id into both, and let the page skip rows that it already has.
    """

    welcome = "Welcome!"

    _request: Any = None

    def latest(self, request: Any) -> Iterable[str | bytes]:
        """Implement this: return the first messages, oldest first. Called in a worker thread, so
        evaluate a query here, for example with ``list()``.
        """
        raise NotImplementedError

    def set_pubsub_channels(self, request: Any, channels: Collection[str]) -> Any:
        """Keep the request, which no other method gets."""
        self._request = request
        return super().set_pubsub_channels(request, channels)

    @inlineCallbacks
    def send_persisted_messages(self, websocket: Any) -> Any:
        """Called when the websocket is open; live messages queue until the Deferred fires.

        If the connection to Redis breaks in the meantime, the server calls this again, and the
        client still gets everything only once. If the client has left, ``send`` does nothing.
        """
        websocket.send(self.welcome)
        for row in (yield deferToThread(with_database, self.latest, self._request)):
            websocket.send(row)
        yield super().send_persisted_messages(websocket)


# 4. Groups that the application keeps in the session


class SessionGroupsSubscriber(RedisSubscriber):
    """Takes groups of the application's own from the session, besides those of Django, as
    *django-websocket-redis* did. A view writes them::

        request.session["ws4redis:memberof"] = ["room-5"]

    and publishes with ``RedisPublisher(facility="chat", groups=["room-5"])``.

    The session is read when a websocket opens. A user who leaves such a group hears it until the
    websocket ends: call ``ws4redis_tx.disconnect(user=user)`` after that.
    """

    def is_own(self, name: str) -> bool:
        """Implement this: whether a name in the session is one of the application's own groups.

        A login writes Django's groups there too. Do not take them from there, or a user who has
        left one since would still hear it. Choose names that no group of Django's can have.
        """
        raise NotImplementedError

    def _get_message_channels(
        self, request: Any = None, facility: str = "", groups: Any = (), **audiences: Any
    ) -> list[str]:
        """The server asks for the channels of ``SELF`` if the right to groups was granted."""
        if SELF in groups:
            session = getattr(request, "session", {})
            written = session.get("ws4redis:memberof", ())
            groups = [*groups, *(name for name in written if self.is_own(name))]
        return super()._get_message_channels(
            request=request, facility=facility, groups=groups, **audiences
        )

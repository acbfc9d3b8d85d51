"""A server configured by Django's settings, with a real Redis, and Django in threads."""

from __future__ import annotations

import logging
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from tests.support import TIMEOUT
from tests.support.brokers import share_commands, start_broker
from tests.support.clients import exchange
from tests.support.django import cookies_of, in_thread, log_in, set_up_django
from tests.support.logs import log_lines
from tests.support.redis import RedisServer
from tests.support.servers import LISTEN, ServerTestCase, later
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx.redis.broker import RedisBroker
from ws4redis_tx.service import make_service

set_up_django()

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.test import Client, override_settings

from ws4redis_tx.config import django_settings
from ws4redis_tx.publisher import RedisPublisher

SUBSCRIBE_ALL = "subscribe-broadcast&subscribe-group&subscribe-user&subscribe-session"
PUBLISH_ALL = "publish-broadcast&publish-group&publish-user&publish-session"


class ContractTestCase(ServerTestCase):
    """A server in this process, configured by Django's settings, and publishers beside it."""

    broker: Any
    endpoints: tuple[str, ...] = LISTEN

    @inlineCallbacks
    def serve(self, **settings: Any) -> Any:
        """Fire with the service; ``settings`` hold until the test ends."""
        self.override(WS4REDIS_CONNECTION=str(self.redis.address), **settings)
        service = yield self.start_server(django_settings.server_config(self.endpoints))
        self.share(service.factory.broker)
        return service

    @inlineCallbacks
    def serve_centrifuge(self, **settings: Any) -> Any:
        """The same, for Centrifuge's protocol and with a Redis of its own."""
        self.redis = RedisServer()
        self.addCleanup(lambda: self.redis.stop())
        return (yield self.serve(WS4REDIS_CENTRIFUGE_URL="/connection/", **settings))

    @inlineCallbacks
    def lose_redis(self) -> Any:
        """Let publishers use a connection that is lost. Fires when it is."""
        redis = RedisServer()
        self.addCleanup(redis.stop)
        broker = start_broker(self, redis.address)
        self.share(broker)
        yield broker.when_available()
        redis.stop()
        while broker.commands.connected:
            yield later()
        self.override(WS4REDIS_TIMEOUT=0.5)

    def share(self, broker: RedisBroker) -> None:
        """Let publishers use this broker's connection, which leaves the reactor clean."""
        self.broker = broker
        share_commands(self, broker.commands)

    def override(self, **settings: Any) -> None:
        override = override_settings(**settings)
        override.enable()
        self.addCleanup(override.disable)

    @inlineCallbacks
    def log_in(self, username: str) -> Any:
        """Fire with the cookies of a browser that is logged in."""
        return cookies_of((yield log_in(username)))

    def publish(self, message: Any = "hi", expire: int | None = None, **audience: Any) -> Any:
        """Publish as a view does."""
        audience.setdefault("facility", "foobar")
        return in_thread(lambda: RedisPublisher(**audience).publish_message(message, expire))

    @inlineCallbacks
    def refusal(self, target: str = "/ws/foobar?subscribe-broadcast", **headers: Any) -> Any:
        """Fire with the status and bytes of the answer to a refused handshake."""
        headers.setdefault("Host", f"127.0.0.1:{self.port}")
        answer = yield exchange(self.port, handshake_bytes(target, **headers))
        return status_of(answer), answer

    def channels(self) -> set[str]:
        """The channels subscribed for websockets, without the server's own."""
        channels = [channel.decode() for channel in self.redis.command("PUBSUB", "CHANNELS")]
        return {channel for channel in channels if "ctl:" not in channel}

    def keys(self) -> set[str]:
        return {key.decode() for key in self.redis.command("KEYS", "*")}

    @inlineCallbacks
    def restart_redis(self, *meanwhile: Any) -> Any:
        """Restart Redis; fire with a client that was open throughout, and with the new Redis."""
        redis = RedisServer()
        self.addCleanup(lambda: redis.stop())
        self.redis = redis
        yield self.serve()
        client = yield self.open("foobar?subscribe-broadcast")
        redis.stop()
        yield self.broker.fence().addErrback(lambda _: None)
        redis = RedisServer(port=redis.port)
        for command in meanwhile:
            redis.command(*command)
        yield self.broker.when_available()
        return client, redis

    def log_lines(self) -> list[str]:
        """A list of all log lines from now on."""
        return log_lines(self)


ALL = "foobar?subscribe-user&subscribe-group&subscribe-session&subscribe-broadcast"


def override(test: TestCase, **values: Any) -> None:
    change = override_settings(WS4REDIS_REVOKE=True, **values)
    change.enable()
    test.addCleanup(change.disable)


class Ear:
    """Keeps the messages on the control channel."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def deliver(self, publication: Any) -> None:
        self.heard.append(publication.payload)


class DjangoTests(ServerTestCase):
    """Two users in a group, each with an open websocket, and Django's views in threads."""

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        override(self, WS4REDIS_CONNECTION=str(self.redis.address), **self.overrides())
        self.service = make_service(django_settings.server_config(listen=LISTEN))
        self.launch(self.service)
        yield self.service.when_ready()
        self.broker = self.service.factory.broker
        share_commands(self, self.broker.commands)
        yield in_thread(self.prepare)
        self.addCleanup(in_thread, self.tidy_up)
        self.ear = Ear()
        yield self.broker.listen(b"ctl:revoke", self.ear)
        self.ann = yield self.open(ALL, cookies=self.cookies["ann"])
        self.bob = yield self.open(ALL, cookies=self.cookies["bob"])

    def overrides(self) -> dict[str, Any]:
        return {}

    @override_settings(WS4REDIS_REVOKE=False)  # otherwise there would be a second recheck 2 s later
    def prepare(self) -> None:
        self.tidy_up()
        self.group = Group.objects.create(name="revoked testers")
        self.browsers: dict[str, Client] = {}
        self.cookies: dict[str, dict[str, str]] = {}
        for name in ("ann", "bob"):
            user = User.objects.create_user(name, password="secret")
            user.groups.add(self.group)
            self.browsers[name], self.cookies[name] = self.log_in(user)

    def log_in(self, user: Any) -> tuple[Client, dict[str, str]]:
        browser = Client(HTTP_HOST="127.0.0.1")
        browser.force_login(user)
        name = settings.SESSION_COOKIE_NAME
        return browser, {name: browser.cookies[name].value}

    @override_settings(WS4REDIS_REVOKE=False)
    def tidy_up(self) -> None:
        User.objects.filter(username__in=["ann", "bob", "anne", "new"]).delete()
        Group.objects.filter(name__startswith="revoked").delete()

    def user(self, name: str = "ann") -> Any:
        return User.objects.get(username=name)

    def key(self, name: str = "ann") -> str:
        return self.cookies[name][settings.SESSION_COOKIE_NAME]

    @inlineCallbacks
    def assert_closed(self, client: Any) -> Any:
        code = yield client.closed.addTimeout(TIMEOUT, reactor)
        self.assertEqual(code, 1008)

    @inlineCallbacks
    def assert_open(self, client: Any) -> Any:
        """Check that it still gets messages, after everything that was sent before."""
        self.redis.command("PUBLISH", "broadcast:foobar", "still here")
        self.assertEqual((yield client.next()), "still here")
        self.assertFalse(client.closed.called)

    @inlineCallbacks
    def assert_ends_ann_alone(self, change: Any, *arguments: Any) -> Any:
        yield in_thread(change, *arguments)
        yield self.assert_closed(self.ann)
        yield self.assert_open(self.bob)

    @inlineCallbacks
    def said(self, change: Any) -> Any:
        """Fire with the number of messages that ``change`` sends."""
        self.ear.heard.clear()
        yield in_thread(change)
        yield self.broker.commands.publish([b"ctl:revoke"], b"the end", 0)
        yield self.broker.fence()
        self.assertEqual(self.ear.heard.pop(), b"the end")
        return len(self.ear.heard)


def recheck_all(service: Any) -> None:
    """Recheck every websocket, as happens once in ``WS4REDIS_RECHECK`` seconds."""
    revocations = service.factory.session_server.revocations
    for websocket in revocations._index.all():
        revocations._rechecker.eventually(websocket)


class Lines(logging.Handler):
    """Collects the lines of our loggers."""

    def __init__(self, test: TestCase) -> None:
        super().__init__()
        self.lines: list[str] = []
        log = logging.getLogger("ws4redis_tx")
        log.addHandler(self)
        test.addCleanup(log.removeHandler, self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

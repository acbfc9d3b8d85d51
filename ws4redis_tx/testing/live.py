"""A live server for Django's tests that serves websockets too: pages, static files and websockets
on one address, with a real Redis.

It runs in threads of the test's own process, so that it sees the test's database: one in memory
belongs to a process. The reactor is that of the publishers, in its thread; the site, the authorizer
and the receivers of signals have threads of their own, which are lent the test's connections as
Django's live server lends them to its threads.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from django.db import connections
from django.test import override_settings
from django.test.testcases import LiveServerThread

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.names import known_rights
from ws4redis_tx.django.authorizer import DjangoAuthorizer
from ws4redis_tx.django.signal_hooks import SignalHooks
from ws4redis_tx.testing.processes import RedisProcess
from ws4redis_tx.threads.reactor_thread import get_thread

if TYPE_CHECKING:
    from django.test import Client, LiveServerTestCase
    from twisted.internet.defer import Deferred

    _TestCase = LiveServerTestCase
else:
    _TestCase = object

# Seconds until the server must be ready.
_PATIENCE = 30.0


class _Server:
    """What Django's thread takes for its HTTP server."""

    def __init__(
        self,
        address: tuple[str, int],
        handler: Any,
        *,
        allow_reuse_address: bool = False,
        connections_override: Mapping[str, Any] | None = None,
    ) -> None:
        from twisted.python.threadpool import ThreadPool

        self._connections = connections_override or {}
        self._application: Any = None
        self._stopped = threading.Event()
        self._threads = ThreadPool(minthreads=0, maxthreads=10, name="ws4redis-live-site")
        # The one through which this process publishes; it is started if it does not run.
        self._reactor = get_thread().reactor
        self._threads.start()
        try:
            self._in_reactor(lambda: self._start(*address))
        except BaseException:
            self._threads.stop()
            raise

    def _start(self, host: str, port: int) -> Deferred[None]:
        from twisted.internet.endpoints import TCP4ServerEndpoint

        from ws4redis_tx.django.site import make_django_site
        from ws4redis_tx.service import make_broker, make_service

        reactor = self._reactor
        config = django_settings.server_config()
        known = known_rights(django_settings.get_callable("WS4REDIS_SUBSCRIBER"))
        self._authorizer = DjangoAuthorizer(reactor, known, self._lent)
        self._hooks = SignalHooks(reactor, self._lent)
        self._broker = make_broker(config, reactor=reactor)
        self._service = service = make_service(
            config,
            broker=self._broker,
            authorizer=self._authorizer,
            hooks=self._hooks,
            endpoints=[TCP4ServerEndpoint(reactor, port, interface=host)],
            reactor=reactor,
        )
        service.listener = make_django_site(service.factory, reactor, self._serve, self._threads)
        service.startService()
        listening: Any = service.ports[0].getHost()
        self.server_address = (host, listening.port)
        self._broker.startService()
        return service.when_ready().addTimeout(_PATIENCE, reactor)

    def _in_reactor(self, function: Callable[[], Any]) -> Any:
        """What its Deferred brings."""
        from twisted.internet.threads import blockingCallFromThread

        return blockingCallFromThread(self._reactor, function)

    def _lend(self) -> None:
        """Give this thread the test's own connections."""
        for alias, connection in self._connections.items():
            connections[alias] = connection

    @contextmanager
    def _lent(self) -> Iterator[None]:
        """Lend this thread the test's connections, and no longer than that."""
        self._lend()
        try:
            yield
        finally:
            connections.close_all()

    def _serve(self, environ: Any, start_response: Any) -> _Response:
        self._lend()
        return _Response(self._application(environ, start_response))

    def close_websockets(self) -> None:
        """Return when there is none, all receivers of signals know it, and new ones may come."""

        def close() -> Deferred[None]:
            factory = self._service.factory
            gone = factory.drain(1001)
            factory.abort()
            gone.addCallback(lambda _: self._hooks.all_sent().addTimeout(_PATIENCE, self._reactor))
            gone.addCallback(lambda _: factory.open_up())
            return gone.addCallback(lambda _: self._service.when_ready())

        self._in_reactor(close)

    # Called by Django

    def set_app(self, application: Any) -> None:
        self._application = application

    def serve_forever(self) -> None:
        self._stopped.wait()

    def shutdown(self) -> None:
        def stop() -> Deferred[Any]:
            stopped: Deferred[Any] = self._service.stopService()
            self._service.stop_now()
            self._authorizer.stop()
            stopped.addCallback(lambda _: self._hooks.stop())
            return stopped.addCallback(lambda _: self._broker.stopService())

        self._in_reactor(stop)
        self._threads.stop()
        self._stopped.set()

    def server_close(self) -> None:
        pass


class _Response:
    """An application's answer, after which its thread keeps no connection to a database."""

    def __init__(self, parts: Any) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._parts)

    def close(self) -> None:
        try:
            if hasattr(self._parts, "close"):
                self._parts.close()
        finally:
            connections.close_all()


class _Thread(LiveServerThread):
    """Django's, which runs our server."""

    server_class = _Server  # type: ignore[assignment]


class LiveServer(_TestCase):
    """Mix it into Django's: ``class ChatTests(LiveServer, StaticLiveServerTestCase)``.

    ``live_server_url`` serves the websockets as well, so that pages reach them as in production.
    Each test starts with an empty Redis and no open websocket; call ``super().setUp()`` in a
    ``setUp`` of your own. Settings that the server reads at its start (most ``WS4REDIS_…``) are
    overridden on the class, not in a test.
    """

    server_thread_class = _Thread
    redis_url: str

    @classmethod
    def setUpClass(cls) -> None:
        cls.redis_url = _redis().url
        cls.enterClassContext(override_settings(WS4REDIS_CONNECTION=cls.redis_url))
        super().setUpClass()

    def setUp(self) -> None:
        super().setUp()
        _redis().empty()
        self.addCleanup(self.server_thread.httpd.close_websockets)

    @classmethod
    def websocket_url(cls, facility: str, *flags: str) -> str:
        """``self.websocket_url("news", "subscribe-broadcast")``."""
        address = cls.live_server_url.replace("http", "ws", 1)
        query = f"?{'&'.join(flags)}" if flags else ""
        return f"{address}{django_settings.get('WEBSOCKET_URL')}{quote(facility)}{query}"

    def cookie_header(self, client: Client | None = None) -> str:
        """The cookies of a Django test client (``self.client``), as a websocket client sends
        them: it is who that one is logged in as.
        """
        cookies = (client or self.client).cookies
        return "; ".join(f"{name}={morsel.value}" for name, morsel in cookies.items())


# One for all test classes of a process, which may be forked.
_redis_of: dict[int, RedisProcess] = {}


def _redis() -> RedisProcess:
    process = os.getpid()
    if process not in _redis_of:
        _redis_of[process] = RedisProcess()
        atexit.register(_redis_of[process].stop)
    return _redis_of[process]

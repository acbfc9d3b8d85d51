"""A live server for Django's tests, with a real Redis: serves pages, static files and websockets on
one address.

It runs in threads of the test's process, because a database in memory belongs to its process. It
shares the reactor thread with the publishers. The site, the authorizer and the receivers of signals
have their own threads, which share the test's database connections, as the threads of Django's live
server do.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import TestCase
from urllib.parse import quote

from django.apps import apps
from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.db import connections
from django.test import LiveServerTestCase, override_settings
from django.test.testcases import LiveServerThread

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.names import known_rights
from ws4redis_tx.django.authorizer import DjangoAuthorizer
from ws4redis_tx.django.signal_hooks import SignalHooks
from ws4redis_tx.testing.processes import RedisProcess
from ws4redis_tx.threads.reactor_thread import get_ready_thread

if TYPE_CHECKING:
    from django.test import Client
    from twisted.internet.defer import Deferred

    _TestCase = LiveServerTestCase
else:
    _TestCase = object

# Seconds that the server may take to start, and receivers of signals to finish.
_TIMEOUT = 30.0


class _Server:
    """Has the interface of the HTTP server that Django's live server thread runs."""

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
        # The reactor through which this process publishes. This starts it if necessary.
        self._reactor = get_ready_thread().reactor
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
        self._authorizer = DjangoAuthorizer(reactor, known, self._lending)
        self._hooks = SignalHooks(reactor, self._lending)
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
        return service.when_ready().addTimeout(_TIMEOUT, reactor)

    def _in_reactor(self, function: Callable[[], Any]) -> Any:
        """Run ``function`` in the reactor thread, and wait for the result of its Deferred."""
        from twisted.internet.threads import blockingCallFromThread

        return blockingCallFromThread(self._reactor, function)

    def _lend(self) -> None:
        """Let this thread use the test's database connections."""
        for alias, connection in self._connections.items():
            connections[alias] = connection

    @contextmanager
    def _lending(self) -> Iterator[None]:
        """Let this thread use the test's database connections within the context."""
        self._lend()
        try:
            yield
        finally:
            connections.close_all()

    def _serve(self, environ: Any, start_response: Any) -> _Response:
        self._lend()
        return _Response(self._application(environ, start_response))

    def close_websockets(self) -> None:
        """Close all websockets, wait until receivers of signals have run, and accept new ones."""

        def close() -> Deferred[None]:
            factory = self._service.factory
            gone = factory.drain(1001)
            factory.abort()
            gone.addCallback(lambda _: self._hooks.all_sent().addTimeout(_TIMEOUT, self._reactor))
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
    """An application's response. Closing it also closes its thread's database connections."""

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
    """Django's live server thread, with our server."""

    server_class = _Server  # type: ignore[assignment]


class LiveServer(_TestCase):
    """A mixin for Django's live server: ``class ChatTests(LiveServer, StaticLiveServerTestCase)``.

    ``live_server_url`` also serves the websockets, so pages reach them as in production. Each test
    starts with an empty Redis and no open websocket; call ``super().setUp()`` in your own
    ``setUp``. The server reads most ``WS4REDIS_…`` settings at its start, so override these on the
    class and not in a test.
    """

    server_thread_class = _Thread
    redis_url: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        other = issubclass(cls, TestCase) and not issubclass(cls, LiveServerTestCase)
        if other or not issubclass(cls.server_thread_class, _Thread):
            bases = ", ".join(base.__name__ for base in cls.__bases__)
            raise TypeError(
                f"class {cls.__name__}({bases}) would not start this server. Name LiveServer "
                "first, and then a live server of Django's: "
                f"class {cls.__name__}(LiveServer, StaticLiveServerTestCase)."
            )

    @classmethod
    def setUpClass(cls) -> None:
        cls.redis_url = cls._find_redis()
        cls.enterClassContext(override_settings(WS4REDIS_CONNECTION=cls.redis_url))
        super().setUpClass()

    @classmethod
    def _find_redis(cls) -> str:
        return _redis().url

    def setUp(self) -> None:
        super().setUp()
        _redis().empty()
        self.addCleanup(self.server_thread.httpd.close_websockets)

    @classmethod
    def websocket_url(cls, facility: str, *flags: str) -> str:
        """The URL of a websocket: ``self.websocket_url("news", "subscribe-broadcast")``."""
        address = cls.live_server_url.replace("http", "ws", 1)
        query = f"?{'&'.join(flags)}" if flags else ""
        return f"{address}{django_settings.get('WEBSOCKET_URL')}{quote(facility)}{query}"

    def cookie_header(self, client: Client | None = None) -> str:
        """The ``Cookie`` header of a Django test client, by default ``self.client``. A websocket
        client that sends it is logged in as the same user.
        """
        return _cookie_header(client or self.client)


class LiveSite:
    """A site and its websockets, served on one address: what pytest's fixture
    ``ws4redis_live_server`` gives.

    ``url`` is that of the pages, which may be added to: ``site + "/chat/"``. ``redis_url`` is that
    of its Redis.
    """

    def __init__(self, case: type[LiveServer]) -> None:
        self.url: str = case.live_server_url
        self.redis_url = case.redis_url
        self._case = case

    def websocket_url(self, facility: str, *flags: str) -> str:
        """The URL of a websocket: ``site.websocket_url("news", "subscribe-broadcast")``."""
        return self._case.websocket_url(facility, *flags)

    def cookie_header(self, client: Client) -> str:
        """The ``Cookie`` header of a Django test client. A websocket client that sends it is
        logged in as the same user.
        """
        return _cookie_header(client)

    def __str__(self) -> str:
        return self.url

    def __add__(self, path: str) -> str:
        return self.url + path


@contextmanager
def serving(redis_url: str) -> Iterator[LiveSite]:
    """Serve the site in threads of this process, as ``LiveServer`` does, with this Redis."""
    installed = apps.is_installed("django.contrib.staticfiles")
    django_case = StaticLiveServerTestCase if installed else LiveServerTestCase
    # Nothing of the class is run as a test, as in pytest-django's own fixtures.
    members = {"databases": "__all__", "_find_redis": staticmethod(lambda: redis_url)}
    case: Any = type("_Case", (LiveServer, django_case), members)
    try:
        case.setUpClass()
        yield LiveSite(case)
        case.server_thread.httpd.close_websockets()
    finally:
        case.doClassCleanups()
    if case.tearDown_exceptions:
        raise case.tearDown_exceptions[0][1]


def _cookie_header(client: Client) -> str:
    return "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())


# One for all test classes of a process. A forked process gets its own.
_redis_of: dict[int, RedisProcess] = {}


def _redis() -> RedisProcess:
    process = os.getpid()
    if process not in _redis_of:
        _redis_of[process] = RedisProcess()
        atexit.register(_redis_of[process].stop)
    return _redis_of[process]

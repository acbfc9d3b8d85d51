"""The server that Django's command runs in place of its own."""

from __future__ import annotations

import socket
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from ws4redis_tx.config import django_settings
from ws4redis_tx.runserver import log
from ws4redis_tx.runserver.sockets import bind, listen
from ws4redis_tx.threads.reactor_thread import get_ready_thread

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

STOP_TIMEOUT = 1.5
"""Seconds that a stop may take, with whatever streams."""

MOST_REQUESTS = sys.maxsize
"""A developer's pages hold many streams, and none of them is to wait for another one."""

# Seconds. A server listens without Redis if that is not available by then.
_REDIS_TIMEOUT = 2.0
# For clients to answer the close of their websockets, and for views to return.
_CLIENTS_TIMEOUT, _VIEWS_TIMEOUT = 0.5, 1.0
# For a request that follows its connection, and for a response that follows its view.
_MOMENT = 0.05


class DevelopmentServer:
    """Serves the site and the websockets, in the reactor's thread and one thread for each request.

    Has the interface of the class ``WSGIServer`` that Django's ``runserver`` makes and runs. Its
    thread only waits, so no signal is handled elsewhere than where Python does it.
    """

    inherited: socket.socket | None = None
    """The socket to serve. Without one, the server binds its own."""

    running: DevelopmentServer | None = None

    def __init__(
        self, address: tuple[str, int], handler: Any, *, ipv6: bool = False, **_: Any
    ) -> None:
        """Clients can connect from now on, and wait for ``serve_forever``. Raises ``OSError``."""
        self._socket = self.inherited or bind(*address, ipv6)
        self.server_port: int = self._socket.getsockname()[1]
        self._application: Any = None
        # Requests whose view has not returned yet.
        self._asked: set[object] = set()
        self._ended = threading.Event()
        # Also the publishers of this process use this thread.
        self._reactor = get_ready_thread().reactor
        log.begin()
        self.redis_available: bool = self._in_reactor(self._prepare)
        listen(self._socket)
        DevelopmentServer.running = self

    def _in_reactor(self, function: Any) -> Any:
        """Run ``function`` in the reactor's thread, and wait for the result of its Deferred."""
        from twisted.internet.threads import blockingCallFromThread

        return blockingCallFromThread(self._reactor, function)

    def _prepare(self) -> Deferred[bool]:
        """Make everything that serves, and fire when Redis is available, or after a while. Nobody
        is accepted before: websockets that come back after a reload would be refused.
        """
        from ws4redis_tx.django.databases import tidy
        from ws4redis_tx.django.site import make_django_site
        from ws4redis_tx.service import make_broker, make_service
        from ws4redis_tx.threads.request_threads import RequestThreads

        reactor = self._reactor
        config = django_settings.server_config()
        self._broker = make_broker(config, reactor=reactor)
        self._service = make_service(config, broker=self._broker, endpoints=[self], reactor=reactor)
        self._service.stop_code = 1012
        self._threads = RequestThreads(reactor, MOST_REQUESTS, partial(tidy, True))
        self._service.listener = site = make_django_site(
            self._service.factory, reactor, self._serve, self._threads
        )
        site.log = log.log_request  # type: ignore[method-assign]
        ready: Deferred[Any] = self._service.when_ready()
        self._broker.startService()
        ready.addTimeout(_REDIS_TIMEOUT, reactor)
        return ready.addCallbacks(lambda _: True, lambda _: False)

    def listen(self, factory: Any) -> Deferred[Any]:
        """Serve the socket, as the endpoint of our service."""
        from twisted.internet.defer import succeed

        self._socket.setblocking(False)
        family = self._socket.family
        return succeed(self._reactor.adoptStreamPort(self._socket.fileno(), family, factory))

    def _serve(self, environ: dict[str, Any], start_response: Any) -> Any:
        """The WSGI application. Called in the thread of a request."""
        environ["wsgi.errors"] = sys.stderr
        asked = object()
        self._asked.add(asked)
        try:
            return self._application(environ, start_response)
        finally:
            self._asked.discard(asked)

    # Called by Django

    def set_app(self, application: Any) -> None:
        self._application = application

    def serve_forever(self) -> None:
        self._in_reactor(self._service.startService)
        self._ended.wait()

    # Called by our command

    def stop(self) -> None:
        """Close the websockets, and let views return. Takes ``STOP_TIMEOUT`` s at most, whatever
        the streams and the views do. For any thread but the reactor's.
        """
        stopped = threading.Event()
        self._reactor.callFromThread(
            lambda: self._stop().addBoth(lambda _: stopped.set())  # the process ends
        )
        stopped.wait(STOP_TIMEOUT)
        self._ended.set()

    def _stop(self) -> Deferred[None]:
        from twisted.internet.defer import inlineCallbacks
        from twisted.internet.task import deferLater

        reactor = self._reactor

        @inlineCallbacks
        def stop() -> Any:
            hurry = reactor.callLater(_CLIENTS_TIMEOUT, self._service.stop_now)
            closed = self._service.stopService()
            until = reactor.seconds() + _VIEWS_TIMEOUT
            yield deferLater(reactor, _MOMENT)
            while self._asked and reactor.seconds() < until:
                yield deferLater(reactor, 0.01)
            yield self._threads.when_idle(_MOMENT)
            yield closed
            if hurry.active():
                hurry.cancel()
            yield self._broker.stopService()

        stopping: Deferred[None] = stop()
        return stopping

"""Serves a Django site and its websockets on one port, for development and demos.

The site's WSGI application runs in threads, one for each request. ``django.contrib.staticfiles``,
if it is installed, serves the static files as ``runserver`` does.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from django.apps import apps
from django.core.servers.basehttp import get_internal_wsgi_application
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site
from twisted.web.wsgi import WSGIResource

from ws4redis_tx.core.errors import Denied, shown, unavailable
from ws4redis_tx.django.databases import tidy
from ws4redis_tx.service import WebSocketFactory, make_resource
from ws4redis_tx.threads.request_threads import RequestThreads

HEAD_TIMEOUT = 5.0
"""Seconds for the head of a request, as for that of a websocket."""

MOST_REQUESTS = 256
"""Requests that may be under way at once. A streaming response counts until its end."""


def make_django_site(
    factory: WebSocketFactory, reactor: Any, application: Any = None, threads: Any = None
) -> DjangoSite:
    """``application`` defaults to that of the settings, ``threads`` to one thread a request."""
    if application is None:
        application = get_internal_wsgi_application()
        if apps.is_installed("django.contrib.staticfiles"):
            from django.contrib.staticfiles.handlers import StaticFilesHandler

            application = StaticFilesHandler(application)
    if threads is None:
        threads = RequestThreads(reactor, MOST_REQUESTS, partial(tidy, True))
    wsgi = WSGIResource(reactor, threads, application)
    root = _Root(factory, wsgi, threads)
    return DjangoSite(root, threads, factory.session_server.log, reactor)


class DjangoSite(Site):
    """Logs requests within the bounds of the websockets' log, and without their queries.

    :param threads: those in which requests are served.
    """

    noisy = False

    def __init__(self, root: Resource, threads: Any, log: Any, reactor: Any) -> None:
        super().__init__(root, requestFactory=_Request, reactor=reactor)
        self.protocol = _Channel  # type: ignore[assignment, method-assign]
        self.threads = threads
        self._log = log

    def log(self, request: Any) -> None:
        peer = getattr(request.getClientAddress(), "host", "")
        path = request.uri.decode(errors="replace").partition("?")[0]
        self._log.request(
            peer,
            f"{shown(request.method.decode(errors='replace'))} {shown(path)} from {shown(peer)}: "
            f"{request.code}, {request.sentLength} bytes",
        )

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]


class _Channel(HTTPChannel):
    """Has a timeout for the whole head of a request. Twisted's starts anew with each byte."""

    _in_head = _head_begun = True  # the time of the first head runs from the connection on
    _patience: float | None

    def connectionMade(self) -> None:
        self._patience = self.timeOut
        super().connectionMade()
        self.setTimeout(HEAD_TIMEOUT)

    def resetTimeout(self) -> None:
        """Called when something arrives."""
        if not self._in_head:
            super().resetTimeout()
        elif not self._head_begun:
            self._head_begun = True
            self.setTimeout(HEAD_TIMEOUT)

    def allHeadersReceived(self) -> None:
        self._in_head = self._head_begun = False
        self.setTimeout(self._patience)
        super().allHeadersReceived()

    def requestDone(self, request: Any) -> None:
        self._in_head = True
        super().requestDone(request)
        if self._in_head and (self._buffer or self.requests):
            self.resetTimeout()  # the next head has begun to arrive already


class _Request(Request):
    """Twisted's WSGI asks for the host and port of either side. A Unix socket has neither."""

    def getClientAddress(self) -> Any:
        return _with_host(super().getClientAddress())

    def getHost(self) -> Any:
        return _with_host(super().getHost())


def _with_host(address: Any) -> Any:
    return IPv4Address("TCP", "", 80) if isinstance(address, UNIXAddress) else address


class _Root(Resource):
    """Serves websockets below their path, and Django everywhere else."""

    def __init__(self, factory: WebSocketFactory, wsgi: WSGIResource, threads: Any) -> None:
        super().__init__()
        self._websockets = make_resource(factory)
        paths = [path.encode() for path in self._websockets.paths]
        self._below = tuple(path for path in paths if path.endswith(b"/"))
        self._at = frozenset(paths)
        self._wsgi = wsgi
        self._threads = threads
        self._descriptors = factory.session_server.descriptors

    def getChild(self, path: bytes, request: Any) -> IResource:
        uri: bytes = request.uri
        if uri.startswith(self._below) or uri.partition(b"?")[0] in self._at:
            return self._websockets
        try:
            self._descriptors.check(request.transport)
            if not getattr(self._threads, "room", True):
                raise unavailable("too many requests are under way")
        except Denied as denied:
            return _Refusal(denied)
        # A WSGI application takes the whole path, and this one has no prefix.
        request.postpath.insert(0, request.prepath.pop())
        wsgi: IResource = self._wsgi
        return wsgi


class _Refusal(Resource):
    """Answers a request that Django is not to see, and ends the connection."""

    isLeaf = True

    def __init__(self, denied: Denied) -> None:
        super().__init__()
        self._denied = denied

    def render(self, request: Any) -> bytes:
        request.channel.persistent = 0
        request.setResponseCode(self._denied.status)
        headers = (("Connection", "close"), ("Content-Type", "text/plain"), *self._denied.headers)
        for name, value in headers:
            request.setHeader(name, value)
        return b"" if request.method == b"HEAD" else b"The server is too busy.\n"

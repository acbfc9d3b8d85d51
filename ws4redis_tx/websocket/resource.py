"""A websocket factory as a resource of a ``twisted.web`` site."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from ws4redis_tx.core.http import make_request
from ws4redis_tx.sessions.opening_handshake import NOTHING_MAY_FOLLOW
from ws4redis_tx.websocket.factory import WebSocketFactory

_log = Logger()

_LENGTHS = (b"content-length", b"transfer-encoding")


@implementer(IResource)
class WebSocketResource(Resource):
    """Hands a request's connection over to a websocket, which answers every kind of request.

    Mount it at ``config.websocket_url``, and at each other place of ``paths``. It checks the whole
    path itself.
    """

    isLeaf = True

    def __init__(self, factory: WebSocketFactory) -> None:
        super().__init__()
        self._factory = factory
        self._warned = False

    @property
    def paths(self) -> list[str]:
        """Where something is served: below the paths that end with ``/``, and at the others."""
        server = self._factory.session_server
        below = [each.path for each in server.protocols]
        below += [server.config.script_name + each for each in below]
        return below if server.http is None else [*below, *server.http.paths]

    def render(self, request: Any) -> int:
        channel = request.channel
        if channel is None:
            return NOT_DONE_YET  # the client has left while the site looked for this resource
        self._check_place(request)
        websocket: Any = self._factory.buildProtocol(request.transport.getPeer())
        transport, channel.transport = channel.transport, None
        # The site's protocol is the transport's producer. The websocket takes its place.
        transport.unregisterProducer()
        if isinstance(transport, ProtocolWrapper):
            transport.wrappedProtocol = websocket
        elif isinstance(transport.protocol, ProtocolWrapper):
            transport.protocol.wrappedProtocol = websocket
        else:
            transport.protocol = websocket
        websocket.makeConnection(transport)
        # A site pauses its connection while it serves a request.
        transport.resumeProducing()
        headers = [
            (name, value)
            for name, values in request.requestHeaders.getAllRawHeaders()
            for value in values
        ]
        # Bytes that came along with the request would never be read.
        surplus = NOTHING_MAY_FOLLOW if channel.clearLineBuffer() else ""
        with request.content as content:  # a file, if the body is large
            body = content.read()
        if body:  # the site has put it together
            headers = [each for each in headers if each[0].lower() not in _LENGTHS]
            headers.append((b"Content-Length", b"%d" % len(body)))
        websocket.begin(
            make_request(request.method, request.uri, request.clientproto, headers, surplus), body
        )
        return NOT_DONE_YET

    def _check_place(self, request: Any) -> None:
        """Warn, once, if no request that leads here can have one of our paths."""
        url = self._factory.config.websocket_url
        place = b"/".join((b"", *request.prepath)).decode(errors="replace")
        start = f"{place.rstrip('/')}/"
        if not self._warned and not any(f"{each}/".startswith(start) for each in self.paths):
            self._warned = True
            _log.warn(
                "Websockets are mounted at {place}, but their URLs begin with {url}, so every "
                "request gets a 404. Mount them at {url}, or change websocket_url (WEBSOCKET_URL)",
                place=place,
                url=url,
            )

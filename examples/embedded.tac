"""Websockets inside an existing Twisted application: a site with a page, and its websockets.

Run it with ``twistd --nodaemon --python embedded.tac`` and a Redis on its usual port, open
http://127.0.0.1:8080/ and see the time pass in every browser.
"""

import os
import time

from twisted.application.internet import StreamServerEndpointService, TimerService
from twisted.application.service import Application, Service
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from ws4redis_tx.core.redis_address import parse_redis_address
from ws4redis_tx.service import ServerConfig, make_broker, make_factory, make_resource

PAGE = b"""<!doctype html><meta charset="utf-8"><title>Embedded</title><h1 id="time">&hellip;</h1>
<script>
  new WebSocket(`ws://${location.host}/ws/clock?subscribe-broadcast`).onmessage =
    (event) => { document.getElementById("time").textContent = event.data; };
</script>"""

config = ServerConfig(redis=parse_redis_address(os.environ.get("WS4REDIS_CONNECTION")))
broker = make_broker(config)
factory = make_factory(config, broker=broker)

root = Resource()
root.putChild(b"", Data(PAGE, "text/html"))
root.putChild(b"ws", make_resource(factory))


def tick() -> None:
    """Every connected browser gets it; who connects later starts with the last one."""
    if broker.available:
        now = time.strftime("%H:%M:%S").encode()
        broker.publish([b"broadcast:clock"], now, 60).addErrback(lambda failure: None)


class Drain(Service):
    """At the stop: tell the browsers, and wait until they are gone."""

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return factory.drain(1001)


application = Application("embedded")
broker.setServiceParent(application)
Drain().setServiceParent(application)
TimerService(1, tick).setServiceParent(application)
StreamServerEndpointService(
    serverFromString(reactor, os.environ.get("LISTEN", "tcp:8080:interface=127.0.0.1")), Site(root)
).setServiceParent(application)

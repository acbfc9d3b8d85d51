"""Websockets inside an existing Twisted application: a site with a page, its websockets, and hooks.

Start a Redis on its usual port, run ``twistd --nodaemon --python embedded.tac`` and open
http://127.0.0.1:8080/. Every browser shows the time and the number of open browsers. The hooks
answer the questions that visitors type.
"""

import os
import time

from twisted.application.internet import StreamServerEndpointService, TimerService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from ws4redis_tx.service import (
    MessageRefused,
    NullHooks,
    Publisher,
    ServerConfig,
    make_resource,
    make_service,
    parse_redis_address,
)

PAGE = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Embedded</title>
<main>
<h1 id="time">&hellip;</h1>
<form>
  <label>Which day is <input name="day" value="today" maxlength="20"></label> <button>?</button>
</form>
</main>
<script>
  const websocket = new WebSocket(`ws://${location.host}/ws/clock?subscribe-broadcast`);
  websocket.onmessage = ({data}) => { document.getElementById("time").textContent = data; };
  document.forms[0].onsubmit = (event) => {
    event.preventDefault();
    websocket.send(document.forms[0].day.value);
  };
</script>"""


class Visitors(NullHooks):
    """Counts the visitors, and tells each of them the day on request."""

    def __init__(self) -> None:
        self.here = set()

    def connected(self, connection):
        self.here.add(connection)

    async def message(self, connection, message):
        if len(message) > 20:
            raise MessageRefused("That is not a day.")
        if message in (b"", b"today"):
            connection.send(time.strftime("It is %A"))
        else:
            connection.send("I only know about today")
        return None  # answered here, so not published

    def closed(self, connection, closing):
        self.here.discard(connection)


config = ServerConfig(redis=parse_redis_address(os.environ.get("WS4REDIS_CONNECTION")))
visitors = Visitors()
websockets = make_service(config, hooks=visitors, endpoints=())  # the site listens
broker = websockets.factory.broker
clock = Publisher(config, broker, facility="clock", broadcast=True)

root = Resource()
root.putChild(b"", Data(PAGE, "text/html"))
root.putChild(b"ws", make_resource(websockets.factory))


def tick() -> None:
    """Every connected browser gets it, and a browser that connects later starts with the last one."""
    if broker.available:
        text = f"{time.strftime('%H:%M:%S')}, {len(visitors.here)} here"
        clock.publish_message(text, expire=60).addErrback(lambda failure: None)


application = Application("embedded")
websockets.setServiceParent(application)
TimerService(1, tick).setServiceParent(application)
StreamServerEndpointService(
    serverFromString(reactor, os.environ.get("LISTEN", "tcp:8080:interface=127.0.0.1")), Site(root)
).setServiceParent(application)

"""Websockets without Django: visitors show a token that was signed elsewhere.

With a Redis on its usual port, and a secret of your own::

    export TOKEN_KEY=$(python -c 'import secrets; print(secrets.token_hex(32))')
    twistd --nodaemon --python standalone.tac

Then open http://127.0.0.1:8080/ and enter what ``python tokens.py john chat`` prints. ``client.py``
is the same for a program.
"""

import os
import sys
from pathlib import Path

from twisted.application.service import Application
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import File

from ws4redis_tx.core.redis_address import parse_redis_address
from ws4redis_tx.service import ServerConfig, make_resource, make_service

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))

from tokens import TokenAuthorizer, key_from_environment

config = ServerConfig(
    redis=parse_redis_address(os.environ.get("WS4REDIS_CONNECTION")),
    listen=(os.environ.get("LISTEN", "tcp:8080:interface=127.0.0.1"),),
    # Pages of other hosts: allowed_origins=("https://www.example.com",)
)
service = make_service(config, authorizer=TokenAuthorizer(key_from_environment()))

# Without the page, leave this out: the service listens for websockets alone.
root = Resource()
root.putChild(b"", File(str(FOLDER / "page.html")))
root.putChild(b"ws", make_resource(service.factory))
service.listener = Site(root)

application = Application("standalone")
service.setServiceParent(application)

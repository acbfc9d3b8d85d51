"""Websockets without Django: visitors present a token that another service has signed.

Start a Redis on its usual port, choose a secret, and run::

    export TOKEN_KEY=$(python -c 'import secrets; print(secrets.token_hex(32))')
    twistd --nodaemon --python standalone.tac

Then open http://127.0.0.1:8080/ and enter the output of ``python tokens.py john chat``.
``client.py`` does the same without a browser.
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
    # For pages on other hosts: allowed_origins=("https://www.example.com",)
)
service = make_service(config, authorizer=TokenAuthorizer(key_from_environment()))

# If you do not serve the page, leave this out, and the service serves only websockets.
root = Resource()
root.putChild(b"", File(str(FOLDER / "page.html")))
root.putChild(b"ws", make_resource(service.factory))
service.listener = Site(root)

application = Application("standalone")
service.setServiceParent(application)

# ``twistd -y``: the same site with the short clocks of the cases marked "quick".
import os

import django
from twisted.application.service import Application

django.setup()

from ws4redis_tx.service import ServerConfig, make_service

config = ServerConfig.from_django(
    listen=(f"tcp:{os.environ['QUICK_PORT']}:interface=127.0.0.1",),
    centrifuge_ping=2,
    centrifuge_pong=1,
    centrifuge_connect_timeout=2,
    centrifuge_expired_grace=1,
)
application = Application("quick")
service = make_service(config)
service.when_ready().addCallback(lambda _: print("The quick one is ready."))
service.setServiceParent(application)

"""The usual stack of Channels: each visitor's websocket joins the group named by its path.

If there is a database with visitors, only they may.
"""

import os

from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

get_asgi_application()  # sets Django up

VISITORS_ONLY = "WS4REDIS_BENCHMARK_DB" in os.environ


class Listener(AsyncWebsocketConsumer):
    async def connect(self):
        self.group = self.scope["url_route"]["kwargs"]["group"]
        # AuthMiddlewareStack has looked up the session and its user.
        if VISITORS_ONLY and not self.scope["user"].is_authenticated:
            await self.close()
            return
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, code):
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def published(self, event):
        await self.send(text_data=event["text"])


routes = [path("ws/<str:group>", Listener.as_asgi())]
application = ProtocolTypeRouter({"websocket": AuthMiddlewareStack(URLRouter(routes))})
print("site loaded", flush=True)

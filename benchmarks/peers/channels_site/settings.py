"""Settings of the site with Channels. It reads the database of ``benchmarks.site``, whose visitors
are logged in here too, as the secret key is the same.

``CHANNEL_LAYER`` is ``core`` or ``pubsub``; ``REDIS_URL`` says where its Redis is.
"""

import os

SECRET_KEY = "the benchmarks run on loopback only and have no secrets to keep"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "channels",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("WS4REDIS_BENCHMARK_DB", ":memory:"),
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
ASGI_APPLICATION = "channels_site.asgi.application"

# So that a storm of handshakes is not refused: the client's default is 100 connections.
_HOST = f"{os.environ['REDIS_URL']}?max_connections=10000"
_LAYERS = {
    "core": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        # So that it drops nothing: its default is 100 messages for each websocket.
        "CONFIG": {"hosts": [_HOST], "capacity": 100_000},
    },
    "pubsub": {
        # Has no limit.
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [_HOST]},
    },
}
CHANNEL_LAYERS = {"default": _LAYERS[os.environ["CHANNEL_LAYER"]]}

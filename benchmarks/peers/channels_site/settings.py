"""Settings of the site with Channels. It reads the database of ``benchmarks.site``. The secret key
is the same, so that site's visitors are logged in here too.

``CHANNEL_LAYER`` is ``core`` or ``pubsub``. ``REDIS_URL`` is the URL of its Redis.
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

# The client's default of 100 connections would refuse many simultaneous handshakes.
_HOST = f"{os.environ['REDIS_URL']}?max_connections=10000"
_LAYERS = {
    "core": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        # With its default of 100 messages for each websocket, it would drop messages.
        "CONFIG": {"hosts": [_HOST], "capacity": 100_000},
    },
    "pubsub": {
        # It has no limit.
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [_HOST]},
    },
}
CHANNEL_LAYERS = {"default": _LAYERS[os.environ["CHANNEL_LAYER"]]}

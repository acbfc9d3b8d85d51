"""A site whose views publish, and stream without an end: settings, views and URLs in one module."""

import time

from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

SECRET_KEY = "test"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
ROOT_URLCONF = __name__
USE_TZ = True


def publish(request):
    from ws4redis_tx.publisher import RedisPublisher

    RedisPublisher(facility="f", broadcast=True).publish_message("hello")
    return HttpResponse("published")


def stream(request):
    def pieces():
        while True:
            yield b"x"
            time.sleep(0.2)

    return StreamingHttpResponse(pieces())


def hang(request):
    time.sleep(600)


urlpatterns = [
    path("publish", publish),
    path("stream", stream),
    path("hang", hang),
    path("", lambda request: HttpResponse("hello")),
]

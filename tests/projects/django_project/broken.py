"""Settings that cannot work."""

from tests.projects.django_project.settings import *  # noqa: F403

WS4REDIS_SUBSCRIBER = "no.such.Subscriber"
WS4REDIS_ALLOWED_CHANNELS = "no.such.callback"

"""The chat demo's settings as its users have them, over the database of the test run."""

from tests.projects.django_project.settings import *  # noqa: F403

# isort: split
from chatserver.settings import (  # noqa: F401
    WS4REDIS_ALLOWED_CHANNELS,
    WS4REDIS_CENTRIFUGE_URL,
    WS4REDIS_HISTORY,
    WS4REDIS_PRESENCE,
)

WS4REDIS_REVOKE = True

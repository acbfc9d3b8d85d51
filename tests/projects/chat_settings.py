"""The chat demo's settings as its users have them, over the database of the test run."""

from tests.projects.django_project.settings import *  # noqa: F403

# isort: split
from chatserver.settings import WS4REDIS_HEARTBEAT, WS4REDIS_HISTORY  # noqa: F401

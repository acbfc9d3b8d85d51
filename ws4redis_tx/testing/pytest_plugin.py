"""Fixtures for pytest, which finds them automatically when this package is installed.

Importing this module imports only pytest, so a project that uses none of the fixtures pays nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ws4redis_tx.testing.capture import CapturedMessages
    from ws4redis_tx.testing.live import LiveSite
    from ws4redis_tx.testing.processes import RedisProcess, ServerProcess


@pytest.fixture(scope="session")
def _ws4redis_redis() -> Iterator[RedisProcess]:
    from ws4redis_tx.testing.processes import RedisProcess

    redis = RedisProcess()
    yield redis
    redis.stop()


@pytest.fixture(scope="session")
def _ws4redis_server(_ws4redis_redis: RedisProcess) -> Iterator[ServerProcess]:
    from ws4redis_tx.testing.processes import ServerProcess

    server = ServerProcess(_ws4redis_redis.url)
    yield server
    server.stop()


@pytest.fixture
def redis_url(_ws4redis_redis: RedisProcess) -> str:
    """The URL of a real Redis on a free port. All tests share it, and each finds it empty."""
    _ws4redis_redis.empty()
    return _ws4redis_redis.url


@pytest.fixture
def ws4redis_server(_ws4redis_server: ServerProcess, redis_url: str) -> Iterator[ServerProcess]:
    """A real ``twistd ws4redis``, ready, that uses the Redis of ``redis_url``. All tests share it.

    ``ws4redis_server.url("news", "subscribe-broadcast")`` is the URL of a websocket. The server
    serves the site of ``DJANGO_SETTINGS_MODULE`` if that is set, and gets the messages that the
    test publishes.
    """
    with _publishing_to(redis_url):
        yield _ws4redis_server


@pytest.fixture
def published_messages() -> Iterator[CapturedMessages]:
    """What Django code publishes during the test is captured here, and not published.

    ``published_messages.assert_published("hello", facility="news", broadcast=True)``.
    """
    from ws4redis_tx.testing.capture import capture_messages

    with capture_messages() as published:
        yield published


@pytest.fixture
def ws4redis_live_server() -> LiveSite:
    """Says that pytest-django is missing."""
    raise pytest.UsageError(
        "ws4redis_live_server uses the test database of pytest-django: pip install pytest-django"
    )


class _DjangoFixtures:
    """Fixtures that use those of pytest-django."""

    @pytest.fixture
    def ws4redis_live_server(self, transactional_db: None, redis_url: str) -> Iterator[LiveSite]:
        """The site, its websockets and its streams of events on one address, served by this process
        with the test's database and the Redis of ``redis_url``.

        ``ws4redis_live_server.websocket_url("news", "subscribe-broadcast")`` is the URL of a
        websocket, ``ws4redis_live_server.url`` that of the pages. As with ``live_server``, the test
        gets the fixture ``transactional_db``.
        """
        from ws4redis_tx.testing.live import serving

        with serving(redis_url) as site:
            yield site


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("django"):
        # It overrides the fixture of the same name.
        config.pluginmanager.register(_DjangoFixtures(), "ws4redis-django")


@contextmanager
def _publishing_to(url: str) -> Iterator[None]:
    """Make the publishers of this process use this Redis, if it uses Django."""
    used = "django.conf" in sys.modules and sys.modules["django.conf"].settings.configured
    if used or os.environ.get("DJANGO_SETTINGS_MODULE"):
        from django.test import override_settings

        with override_settings(WS4REDIS_CONNECTION=url):
            yield
    else:
        yield

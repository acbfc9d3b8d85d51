"""Publishes as soon as it is ready."""

from __future__ import annotations

from django.apps import AppConfig


class EarlyConfig(AppConfig):
    name = "tests.projects.early"

    def ready(self) -> None:
        from ws4redis_tx.publisher import RedisPublisher

        RedisPublisher(facility="early", broadcast=True).publish_message("ready")

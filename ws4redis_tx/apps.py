"""The Django application."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks


class WS4RedisConfig(AppConfig):
    name = "ws4redis_tx"
    verbose_name = "Websockets for Django over Redis"

    def ready(self) -> None:
        from ws4redis_tx.django import receivers
        from ws4redis_tx.django.checks import check_settings

        checks.register(check_settings)
        receivers.connect()

"""The Django application."""

from __future__ import annotations

from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in
from django.core import checks


class WS4RedisConfig(AppConfig):
    name = "ws4redis_tx"
    verbose_name = "Websockets for Django over Redis"

    def ready(self) -> None:
        from ws4redis_tx.checks import check_settings
        from ws4redis_tx.receivers import remember_groups

        checks.register(check_settings)
        user_logged_in.connect(remember_groups, dispatch_uid="ws4redis_tx.remember_groups")

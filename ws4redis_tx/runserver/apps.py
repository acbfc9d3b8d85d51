"""The Django application, whose only part is its command."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks


class RunserverConfig(AppConfig):
    name = "ws4redis_tx.runserver"
    label = "ws4redis_tx_runserver"
    verbose_name = "Django's runserver, with websockets"

    def ready(self) -> None:
        from ws4redis_tx.django.checks import check_settings
        from ws4redis_tx.runserver.checks import check_order

        checks.register(check_settings)  # it tells when "ws4redis_tx" itself is missing
        checks.register(check_order)

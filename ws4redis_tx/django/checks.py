"""System checks: ``manage.py check`` reports invalid settings."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error

from ws4redis_tx.config import django_settings


def check_settings(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    return [
        Error(f"{error.setting} {error.problem}.", hint=error.remedy, id=f"ws4redis_tx.{row.check}")
        for row, error in django_settings.mistakes()
    ]

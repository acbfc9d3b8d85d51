"""System checks: ``manage.py check`` reports invalid settings, and those that have no effect."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, Warning

from ws4redis_tx.config import django_settings


def check_settings(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    errors = [(Error, row.check, error) for row, error in django_settings.mistakes()]
    warnings = [(Warning, check, error) for check, error in django_settings.doubts()]
    return [
        kind(f"{error.setting} {error.problem}.", hint=error.remedy, id=f"ws4redis_tx.{check}")
        for kind, check, error in (*errors, *warnings)
    ]

"""The system check of the application's place in ``INSTALLED_APPS``."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error
from django.core.management import get_commands, load_command_class


def check_order(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Django takes the ``runserver`` of the first application that has one."""
    from ws4redis_tx.runserver.management.commands.runserver import Command

    first = get_commands()["runserver"]
    taken = load_command_class(first, "runserver") if isinstance(first, str) else first
    if isinstance(taken, Command):  # an application before ours may extend our command
        return []
    return [
        Error(
            f"INSTALLED_APPS names {first!r} before 'ws4redis_tx.runserver', so that "
            "manage.py runserver serves no websockets.",
            hint="Name 'ws4redis_tx.runserver' first.",
            id="ws4redis_tx.E060",
        )
    ]

"""The system check of the application's place in ``INSTALLED_APPS``."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error
from django.core.management import get_commands, load_command_class

APP = "ws4redis_tx.runserver"


def check_order(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Django takes the ``runserver`` of the first application that has one."""
    first = get_commands()["runserver"]
    if first == APP:
        return []
    # Late, because other commands need nothing of it.
    from ws4redis_tx.runserver.management.commands.runserver import Command

    taken = load_command_class(first, "runserver") if isinstance(first, str) else first
    if isinstance(taken, Command):  # an application before ours may extend our command
        return []
    return [
        Error(
            f"INSTALLED_APPS names {first!r} before {APP!r}, so that "
            "manage.py runserver serves no websockets.",
            hint=f"Name {APP!r} first.",
            id="ws4redis_tx.E060",
        )
    ]

"""One setting: all that is known of it, and its value wherever the user wrote it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ws4redis_tx.config.kinds import Kind
from ws4redis_tx.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One row of the table. Each method raises ``ConfigError`` under the name that the user wrote.

    :param name: of the Django setting; ``""`` if there is none.
    :param default: of the Django setting.
    :param kind: the values that it may have.
    :param help: a Markdown phrase: small initial, no full stop.
    :param field: of ``ServerConfig``; ``""`` if Django alone uses the setting.
    :param option: of ``twistd ws4redis``, without its ``--``; ``""`` if there is none.
    :param check: the id in ``manage.py check``, which stays with the setting for good.
    """

    name: str = ""
    default: object
    kind: Kind
    help: str
    field: str = ""
    option: str = ""
    check: str = ""

    def from_django(self, value: object) -> Any:
        """The value of the Django setting, in the form that the server uses."""
        return self.kind.check(self.name, value)

    def from_field(self, value: object) -> Any:
        """The value of the field, in the form that the server uses."""
        return self.kind.check_field(self.field, value)

    def from_option(self, text: str) -> Any:
        """The value that the Django setting would have in place of the option."""
        name = f"--{self.option}"
        if not text:  # in a shell, a variable that is not set
            raise ConfigError(name, "is empty", "Write a value, or leave the option out.")
        value = self.kind.read(name, text)
        self.kind.check(name, value)
        return value

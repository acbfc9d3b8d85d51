"""Mistakes on the command line and in the environment, other than values that cannot work.

Knows the names of options and settings, and which of them Django's processes share with the server.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ws4redis_tx.config.setting import Setting
from ws4redis_tx.config.table import BY_FIELD, BY_NAME
from ws4redis_tx.config.token_secrets import Secrets
from ws4redis_tx.core.errors import ConfigError, nearest
from ws4redis_tx.core.redis_address import RedisAddress

FROM_ENVIRONMENT = ("WS4REDIS_CONNECTION", "WS4REDIS_TOKEN_SECRET")
"""Settings that hold secrets. Without Django, the environment has them."""


def explained(problem: str, ours: Sequence[str], of_twistd: Sequence[str]) -> str:
    """The text of Twisted's error, with the remedy if an option's name is wrong.

    :param ours: our options, and ``of_twistd`` those of ``twistd``, as they are written.
    """
    unknown = re.fullmatch(r"option (\S+) not recognized", problem)
    if unknown is not None and unknown[1] in of_twistd:
        return (
            f"{unknown[1]} is an option of twistd itself: write it before ws4redis, as in "
            f"twistd {unknown[1]} ws4redis."
        )
    if unknown is not None:
        return f"{unknown[1]} is not an option. Did you mean {nearest(unknown[1], ours)}?"
    short = re.fullmatch(r"option (\S+) not a unique prefix", problem)
    if short is not None:
        found = ", ".join(sorted(name for name in ours if name.startswith(short[1])))
        return f"{short[1]} is short for {found}. Write one of them."
    return problem


def in_environment(uses_django: bool) -> Iterator[ConfigError]:
    """Settings that were put where they have no effect."""
    for name in sorted(os.environ.keys() & BY_NAME.keys()):
        if uses_django:
            from ws4redis_tx.config import django_settings

            # The settings module may have read the others.
            if name in FROM_ENVIRONMENT and not django_settings.is_written(name):
                yield _no_effect(name, "With --settings, write it into the Django settings.")
        elif name not in FROM_ENVIRONMENT:
            option = BY_NAME[name].option
            remedy = f"Use --{option}." if option else "Write it into the settings of a site."
            yield _no_effect(name, remedy)


def _no_effect(name: str, remedy: str) -> ConfigError:
    return ConfigError(name, "is in the environment, where it has no effect", remedy)


def shared_settings(options: Mapping[str, Any], given: Mapping[str, Any]) -> list[ConfigError]:
    """The options that contradict a setting of Django's by which other processes of the site
    publish, or by which its pages find the server. Call this before they override the settings.

    With ``--serve-django``, a setting that nobody has written contradicts nothing: the pages and
    publishers of this process follow the option.
    """
    from ws4redis_tx.config import django_settings

    found = []
    for field, value in given.items():
        row = BY_FIELD[field]
        if not row.shared or (options["serve-django"] and not django_settings.is_written(row.name)):
            continue
        setting = django_settings.get(row.name)
        try:
            ours, theirs = row.from_django(value), row.from_django(setting)
        except ConfigError:
            continue  # the setting cannot work, and the option takes its place
        if ours != theirs:
            embedded = field == "redis" and options["embedded-redis"]
            said, written = _shown(row, ours, value), _shown(row, theirs, setting)
            found.append(
                ConfigError(
                    "--embedded-redis" if embedded else f"--{row.option}",
                    f"says {said}, but {row.name} says {written}",
                    "The site's other processes follow the setting. Let both say the same.",
                )
            )
    return found


def _shown(row: Setting, checked: object, written: object) -> str:
    if isinstance(row.kind, Secrets):
        return "another secret" if checked else "none"
    return str(checked) if isinstance(checked, RedisAddress) else repr(written)

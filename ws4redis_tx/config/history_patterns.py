"""The kind of ``WS4REDIS_HISTORY``: patterns of facilities, and how much of each is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ws4redis_tx.config.kinds import Names, is_off
from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.positions import LONGEST_MEMORY, HistoryRules


class HistoryPatterns(Names):
    """``{pattern: (messages, seconds)}``; off means that nothing is kept. On the command line,
    ``pattern=messages,seconds`` each time the option is given.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("orders=100,3600")

    def read(self, name: str, text: str) -> object:
        pattern, _, kept = text.rpartition("=")
        numbers = [int(each) if each.isdecimal() else each for each in kept.split(",")]
        if not pattern or len(numbers) != 2:
            remedy = "Write a facility, the number of messages and the seconds: orders=100,3600."
            raise ConfigError(name, f"is {text!r}", remedy)
        return ((pattern, *numbers),)

    def _checked(self, name: str, value: object, remedy: str) -> Any:
        if is_off(value):
            return ()
        rules: list[Any] | None = None
        if isinstance(value, Mapping):
            rules = [(pattern, *_pair(kept)) for pattern, kept in value.items()]
        elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
            rules = list(value)
        if rules is None or not all(map(_is_rule, rules)):
            raise ConfigError(
                name,
                f"is {value!r}",
                "Write {'orders': (100, 3600)}: for each facility, or pattern of facilities, the "
                "number of messages and the seconds.",
            )
        for pattern, size, seconds in rules:
            if not _is_count(size) or not _is_count(seconds) or seconds > LONGEST_MEMORY:
                raise ConfigError(
                    name,
                    f"keeps {size!r} messages for {seconds!r} seconds of {pattern!r}",
                    "Use whole numbers, at least 1, and at most 30 days: a position "
                    "is good for no longer.",
                )
        checked: HistoryRules = tuple([tuple(rule) for rule in rules])
        return checked


def _pair(kept: object) -> tuple[Any, ...]:
    return tuple(kept) if isinstance(kept, tuple | list) else (kept,)


def _is_count(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 1


def _is_rule(rule: object) -> bool:
    return isinstance(rule, tuple | list) and len(rule) == 3 and isinstance(rule[0], str)

"""Callables that settings name by a dotted name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

from ws4redis_tx.config.kinds import Kind
from ws4redis_tx.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Importable(Kind):
    """A callable, or its dotted name. A field keeps the name, which is imported by its user.

    :param remedy: says what to name.
    :param takes: the number of its arguments; ``None``: any.
    :param methods: of its instances, if it is a class.
    """

    remedy: str = "Name a callable."
    takes: int | None = None
    methods: tuple[str, ...] = ()

    def check(self, name: str, value: object) -> Callable[..., Any]:
        found = import_callable(name, value)
        try:
            problem = _mistake(found, self.takes, self.methods)
        except TypeError:  # it cannot be hashed
            problem = _mistake.__wrapped__(found, self.takes, self.methods)
        if problem:
            raise ConfigError(name, f"is {value!r}, which {problem}", self.remedy)
        return found

    def check_field(self, name: str, value: object) -> str | Callable[..., Any]:
        return value if isinstance(value, str) else self.check(name, value)


@lru_cache(maxsize=64)  # the authorizer asks at each handshake
def _mistake(found: Any, takes: int | None, methods: tuple[str, ...]) -> str:
    """Why ``found`` will not do; ``""`` if it will, as far as that can be seen."""
    for each in (found, type(found).__call__):
        if inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each):
            return "is async"
    missing = [each for each in methods if isinstance(found, type) and not hasattr(found, each)]
    if missing:
        return f"lacks {', '.join(missing)}"
    if takes is not None:
        try:
            inspect.signature(found).bind(*[None] * takes)
        except TypeError:
            return "does not take these arguments"
        except ValueError:
            pass  # a built-in function without a signature
    return ""


def import_callable(name: str, value: object) -> Callable[..., Any]:
    """``value``, imported if it is a dotted name. Raises ``ConfigError`` under ``name``."""
    value = import_dotted(name, value)
    if not callable(value):
        raise ConfigError(name, f"is {value!r}, which cannot be called", "Name a callable.")
    return value


def import_dotted(name: str, value: object) -> Any:
    """The same without a look at what it is."""
    if isinstance(value, str):
        try:
            return _imported(dotted := value)
        except Exception as error:  # a module may raise anything
            problem = f"is {value!r}, which cannot be imported: {type(error).__name__}: {error}"
            remedy = "Correct the dotted name."
            if dotted.startswith("ws4redis."):  # of django-websocket-redis
                remedy = f"Write 'ws4redis_tx.{dotted.removeprefix('ws4redis.')}'."
            raise ConfigError(name, problem, remedy) from error
    return value


def _imported(dotted: str) -> object:
    """The object with this dotted name: an attribute of a module, or of a class in it."""
    parent, _, attribute = dotted.rpartition(".")
    if not parent:
        raise ImportError(f"{dotted!r} names no module")
    try:
        return getattr(import_module(parent), attribute)
    except ModuleNotFoundError as error:
        if error.name != parent or "." not in parent:
            raise
        return getattr(_imported(parent), attribute)

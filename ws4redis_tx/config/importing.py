"""Callables that settings name by a dotted name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from ws4redis_tx.core.errors import ConfigError


def import_callable(name: str, value: object) -> Callable[..., Any]:
    """``value``, imported if it is a dotted name. Raises ``ConfigError`` under ``name``."""
    if isinstance(value, str):
        try:
            value = _imported(dotted := value)
        except Exception as error:  # a module may raise anything
            problem = f"is {value!r}, which cannot be imported: {type(error).__name__}: {error}"
            remedy = "Correct the dotted name."
            if dotted.startswith("ws4redis."):  # of django-websocket-redis
                remedy = f"Write 'ws4redis_tx.{dotted.removeprefix('ws4redis.')}'."
            raise ConfigError(name, problem, remedy) from error
    if not callable(value):
        raise ConfigError(name, f"is {value!r}, which cannot be called", "Name a callable.")
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

"""The kinds of values that settings have: which values work, and what the server makes of them.

Every method gets the name that the user wrote (of a setting, a field or an option), and raises
``ConfigError`` under that name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.redis_address import RedisAddress, read_redis_address

_Given = TypeVar("_Given")
_Checked = TypeVar("_Checked")


def is_off(value: object) -> bool:
    """Whether ``value`` turns a setting off that can be off."""
    return value is None or value is False or (isinstance(value, str) and not value)


class Kind:
    """One kind of value. ``check`` and ``check_field`` are idempotent."""

    def check(self, name: str, value: object) -> Any:
        """The value of a Django setting, in the form that the server uses."""
        raise NotImplementedError

    def check_field(self, name: str, value: object) -> Any:
        """The value of a field of ``ServerConfig``, in the same form."""
        return self.check(name, value)

    def read(self, name: str, text: str) -> object:
        """The value that a text on the command line means; ``check`` has yet to judge it."""
        return text


@dataclass(frozen=True, slots=True)
class OrNone(Kind):
    """Off as well, which means ``none``; on the command line the word ``none``."""

    kind: Kind
    none: str

    def check(self, name: str, value: object) -> Any:
        return None if is_off(value) else self._or_none(self.kind.check, name, value)

    def check_field(self, name: str, value: object) -> Any:
        return None if is_off(value) else self._or_none(self.kind.check_field, name, value)

    def read(self, name: str, text: str) -> object:
        return None if text.lower() == "none" else self._or_none(self.kind.read, name, text)

    def _or_none(self, check: Callable[[str, Any], Any], name: str, value: object) -> Any:
        try:
            return check(name, value)
        except ConfigError as error:
            remedy = f"{error.remedy.removesuffix('.')}, or None for {self.none}."
            raise ConfigError(name, error.problem, remedy) from error.__cause__


class Flag(Kind):
    def check(self, name: str, value: object) -> bool:
        if not isinstance(value, bool):
            raise ConfigError(name, f"is {value!r}", "Use True or False.")
        return value


@dataclass(frozen=True, slots=True)
class Count(Kind):
    """A whole number."""

    least: int = 1
    most: int | None = None

    def check(self, name: str, value: object) -> int:
        most = math.inf if self.most is None else self.most
        if isinstance(value, bool) or not isinstance(value, int) or not self.least <= value <= most:
            bounds = f"at least {self.least}" + f" and at most {most}" * (self.most is not None)
            raise ConfigError(name, f"is {value!r}", f"Use a whole number, {bounds}.")
        return value

    def read(self, name: str, text: str) -> object:
        return _whole(text)


@dataclass(frozen=True, slots=True)
class WholeSeconds(Kind):
    """``0`` or off means ``zero``; so does less than that, if it did in django-websocket-redis."""

    zero: str
    negative: bool = False

    def check(self, name: str, value: object) -> int:
        if is_off(value):
            return 0
        least = -(2**31) if self.negative else 0
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
            raise ConfigError(name, f"is {value!r}", f"Use whole seconds, or 0 to {self.zero}.")
        return max(0, value)

    def read(self, name: str, text: str) -> object:
        return None if text.lower() == "none" else _whole(text)


class Seconds(Kind):
    """More than 0; a fraction is allowed."""

    def check(self, name: str, value: object) -> float:
        if not _is_positive(value):
            raise ConfigError(name, f"is {value!r}", "Use a number of seconds.")
        return float(value)


class Text(Kind):
    """Off is no text."""

    def check(self, name: str, value: object) -> str | None:
        if is_off(value):
            return None
        if not isinstance(value, str):
            raise ConfigError(name, f"is {value!r}", "Use a text, or None.")
        return value


@dataclass(frozen=True, slots=True)
class Choice(Kind):
    words: tuple[str, ...]

    def check(self, name: str, value: object) -> str:
        if value not in self.words:
            raise ConfigError(name, f"is {value!r}", f"Use one of {', '.join(self.words)}.")
        return str(value)


class UrlPath(Kind):
    def check(self, name: str, value: object) -> str:
        segments = r"/([A-Za-z0-9._~!$&'()*+,;=@-]+/)*"
        if not isinstance(value, str) or not re.fullmatch(segments, value):
            raise ConfigError(
                name,
                f"is {value!r}, which is not a path",
                "Write a path that starts and ends with '/', such as /ws/.",
            )
        return value


@dataclass(frozen=True, slots=True)
class Judged(Kind):
    """``judge`` returns the value's checked form."""

    judge: Callable[[Any], object]

    def check(self, name: str, value: object) -> object:
        return _under_the_name(name, self.judge, value)


@dataclass(frozen=True, slots=True)
class Names(Kind):
    """Several strings, which ``judge`` judges; on the command line, one each time the option is
    given.
    """

    example: str
    judge: Callable[[Sequence[Any]], object] | None = None

    def check(self, name: str, value: object) -> tuple[str, ...]:
        return self._checked(name, value, f"Use a list, such as ['{self.example}'].")

    def check_field(self, name: str, value: object) -> tuple[str, ...]:
        return self._checked(name, value, f"Use a tuple, such as ('{self.example}',).")

    def read(self, name: str, text: str) -> object:
        return (text,)

    def _checked(self, name: str, value: object, remedy: str) -> tuple[str, ...]:
        if isinstance(value, str | bytes) or not isinstance(value, Iterable):
            raise ConfigError(name, f"is {value!r}", remedy)
        names = tuple(value)
        if self.judge is not None:
            _under_the_name(name, self.judge, names)
            return names
        for each in names:
            if not isinstance(each, str):
                raise ConfigError(name, f"holds {each!r}, which is not a string", remedy)
        return names


class OptionalNames(Names):
    """Off means no names."""

    __slots__ = ()

    def _checked(self, name: str, value: object, remedy: str) -> tuple[str, ...]:
        return super()._checked(name, () if is_off(value) else value, remedy)


class Origins(OptionalNames):
    """``'*'`` alone is allowed too."""

    __slots__ = ()

    def _checked(self, name: str, value: object, remedy: str) -> tuple[str, ...]:
        return super()._checked(name, ("*",) if value == "*" else value, remedy)


class RatePair(Kind):
    """Messages a second and bytes a second."""

    def check(self, name: str, value: object) -> tuple[float, float]:
        pair = self._pair(value)
        if pair is None:
            remedy = "Use a pair, messages and bytes a second, such as (1000, 16777216)."
            raise ConfigError(name, f"is {value!r}", remedy)
        return pair

    def read(self, name: str, text: str) -> object:
        try:
            pair = self._pair([_number(each) for each in text.split(",")])
        except ValueError:
            pair = None
        if pair is None:
            remedy = "Write messages and bytes a second, such as 1000,16777216."
            raise ConfigError(name, f"is {text!r}", remedy)
        return pair

    def _pair(self, value: object) -> tuple[float, float] | None:
        if not isinstance(value, tuple | list) or len(value) != 2:
            return None
        messages, size = value
        return (messages, size) if _is_positive(messages) and _is_positive(size) else None


class Address(Kind):
    """A Redis server. No error shows a value, which may hold a password."""

    def check(self, name: str, value: object) -> RedisAddress:
        return _under_the_name(name, read_redis_address, value)

    def check_field(self, name: str, value: object) -> RedisAddress:
        if not isinstance(value, RedisAddress):
            raise ConfigError(
                name,
                f"is a {type(value).__name__}, not a RedisAddress",
                "Use parse_redis_address('redis://localhost:6379/0').",
            )
        return value

    def read(self, name: str, text: str) -> object:
        """A URL without a password, or ``@`` and the name of a file that holds any URL."""
        if text.startswith("@"):
            try:
                with open(text[1:]) as file:
                    return file.read().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    name, f"names a file that cannot be read: {error}", "Correct its path."
                ) from error
        address = self.check(name, text)
        if address.password is not None or address.sentinel_password is not None:
            raise ConfigError(
                name,
                "holds a password, and every user of this machine can read the command line",
                f"Write the URL into a file and pass {name} @FILE, or set WS4REDIS_CONNECTION in "
                "the Django settings (without Django: in the environment).",
            )
        return text


def _whole(text: str) -> object:
    try:
        return int(text)
    except ValueError:
        return text


def _number(text: str) -> float:
    return int(text) if text.strip().isdecimal() else float(text)


def _is_positive(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _under_the_name(name: str, check: Callable[[_Given], _Checked], value: Any) -> _Checked:
    """The core names the setting; the user may have written a field or an option."""
    try:
        return check(value)
    except ConfigError as error:
        raise ConfigError(name, error.problem, error.remedy) from error.__cause__

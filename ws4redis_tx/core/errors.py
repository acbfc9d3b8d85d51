"""The errors that this package raises. Their texts address the person who has to fix the cause."""

from __future__ import annotations

import difflib
import errno
import os
import random
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence

MAX_SHOWN = 200
"""Characters of a client's text in the log."""


class WS4RedisError(Exception):
    """Base of every error raised by ``ws4redis_tx``."""


class ConfigError(WS4RedisError):
    """A setting that cannot work. The text names the setting, its value and the remedy.

    ``setting`` is the name that the user wrote: a Django setting, a field or an option.
    """

    def __init__(self, setting: str, problem: str, remedy: str) -> None:
        self.setting = setting
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{setting} {problem}. {remedy}")


# Comparing takes the product of both lengths, and a client may have written the word.
_LONGEST_WORD = 64


def nearest(word: str, known: Iterable[str]) -> str:
    """The most similar of the ``known`` words, which was probably meant; ``nothing`` if there are
    none.
    """
    found = difflib.get_close_matches(word[:_LONGEST_WORD], sorted(known), 1, 0.0)
    return found[0] if found else "nothing"


class AudienceError(WS4RedisError, TypeError, ValueError):
    """An audience that names nobody, or that is not an iterable of names."""


class BrokerUnavailable(WS4RedisError):
    """Redis could not be reached, did not answer in time, or refused the command.

    ``maybe_published`` is true if the command was sent but never answered, or if Redis refused only
    a part of it. The message may then have been published, so it is not sent again.
    """

    def __init__(self, text: str, *, maybe_published: bool = False) -> None:
        self.maybe_published = maybe_published
        super().__init__(text)


class BrokerRefused(BrokerUnavailable):
    """Redis answered with an error, such as a missing permission, full memory or a read-only
    replica. Nothing was published.
    """


class Denied(WS4RedisError):
    """A handshake is refused. There is no other refusal, and one place maps it to HTTP.

    ``reason`` is sent to the client, and reveals nothing about the server's internals; ``detail``
    goes only to the log.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        detail: str = "",
    ) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.detail = detail
        super().__init__(f"{status} {reason}")


_PERMISSION_DENIED = {("django.core.exceptions", "PermissionDenied")}
_BAD_REQUESTS = {
    ("django.core.exceptions", "BadRequest"),
    ("django.core.exceptions", "SuspiciousOperation"),
    ("django.http.multipartparser", "MultiPartParserError"),
}


def is_permission_denied(error: object) -> bool:
    """Whether it is Django's ``PermissionDenied``, which a server without Django never imports."""
    return _is_one_of(error, _PERMISSION_DENIED)


def is_bad_request(error: object) -> bool:
    """Whether it is an error that Django answers with 400, such as too many parameters."""
    return _is_one_of(error, _BAD_REQUESTS)


def _is_one_of(error: object, classes: set[tuple[str, str]]) -> bool:
    return any((each.__module__, each.__name__) in classes for each in type(error).__mro__)


class Outage(Denied):
    """A 503 because Redis, the database or the session store is down, or because the process runs
    out of something.

    The outage has one line in the log, so the refusals have none.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(503, _UNAVAILABLE, headers=_retry_after(), detail=detail)


def unavailable(detail: str) -> Denied:
    """A 503 that asks the client to retry after a few seconds."""
    return Denied(503, _UNAVAILABLE, headers=_retry_after(), detail=detail)


def nothing_below(paths: Sequence[str], path: str) -> Denied:
    """A 404 for a path that is below none of ``paths``, the first of which is the websockets'."""
    off = "" if len(paths) > 1 else "; WS4REDIS_CENTRIFUGE_URL is not set"
    detail = f"{shown(path)} is not below {' or '.join(paths)} (WEBSOCKET_URL{off})"
    return Denied(404, "There is no websocket at this path.", detail=detail)


_UNAVAILABLE = "The server cannot serve websockets now."


def _retry_after() -> tuple[tuple[str, str], ...]:
    """The delay is random, so that clients do not all return at once."""
    return (("Retry-After", str(random.randint(1, 5))),)


class MessageRefused(WS4RedisError):
    """Raised by a hook to refuse a client's message. The websocket is closed with 1008 and
    ``reason``, which the client receives. A client with many channels is answered with the error
    103 and ``reason`` instead.
    """

    def __init__(self, reason: str = "This message is not allowed.") -> None:
        self.reason = reason
        super().__init__(reason)


class HookFailed(MessageRefused):
    """A hook has failed, and the log says why. The client is told nothing more."""


def cut(text: str, most: int) -> str:
    """``text``, or its beginning, in at most ``most`` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def shown(text: str) -> str:
    """A client's text for the log: quoted, escaped, and in at most ``MAX_SHOWN`` characters."""
    quoted = cut(repr(text[:MAX_SHOWN]), MAX_SHOWN)
    return quoted if len(text) <= MAX_SHOWN or quoted.endswith("…") else f"{quoted[:-1]}…"


# The names that database drivers, caches and HTTP clients give to such errors. Each library has
# classes of its own; most of them have no base that they share with another library.
_NAMES = frozenset({
    "ConnectionError", "ConnectionInterrupted", "HostLookupError", "InterfaceError",
    "MemcacheServerError", "OperationalError", "ServerDead", "ServerDown", "Timeout",
    "TimeoutError", "gaierror",
})  # fmt: skip
_NUMBERS = frozenset({
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
})  # fmt: skip


def is_outage(error: BaseException) -> bool:
    """Whether ``error`` says that a database, a cache or another server does not answer."""
    errors = list(_with_causes(error))
    if any(getattr(each, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR for each in errors):
        return False  # SQLite says OperationalError for a table that was never made, too
    return any(
        any(base.__name__ in _NAMES for base in type(each).__mro__)
        or (isinstance(each, OSError) and each.errno in _NUMBERS)
        for each in errors
    )


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__


def remedy_in_test() -> str:
    """The remedy in a test that has no Redis; ``""`` elsewhere."""
    # Django's test environment puts an outbox there. pytest without pytest-django has none; the
    # variable alone would also be seen by the programs that a test starts.
    in_test = hasattr(sys.modules.get("django.core.mail"), "outbox") or (
        "pytest" in sys.modules and "PYTEST_CURRENT_TEST" in os.environ
    )
    if not in_test:
        return ""
    return (
        " In a test, wrap it in ws4redis_tx.testing.capture_messages(), or use pytest's fixture "
        "published_messages."
    )

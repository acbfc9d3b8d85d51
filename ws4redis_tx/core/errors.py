"""The errors this package raises. Their texts are for whoever has to mend the cause."""

from __future__ import annotations

import random


class WS4RedisError(Exception):
    """Base of every error raised by ``ws4redis_tx``."""


class ConfigError(WS4RedisError):
    """A setting that cannot work. The text names the setting, its value and the remedy.

    ``setting`` is the name that the user wrote: of a Django setting, a field or an option.
    """

    def __init__(self, setting: str, problem: str, remedy: str) -> None:
        self.setting = setting
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{setting} {problem}. {remedy}")


class AudienceError(WS4RedisError, TypeError, ValueError):
    """An audience that names nobody, or that is not an iterable of names."""


class BrokerUnavailable(WS4RedisError):
    """Redis could not be asked, did not answer in time, or refused.

    ``maybe_published`` is true when the command had been sent and its answer never came, or when
    only a part was refused: it may have been carried out, so it is not sent again.
    """

    def __init__(self, text: str, *, maybe_published: bool = False) -> None:
        self.maybe_published = maybe_published
        super().__init__(text)


class BrokerRefused(BrokerUnavailable):
    """Redis answered with an error: a permission, its memory, a read-only replica. Nothing was
    published.
    """


class Denied(WS4RedisError):
    """A handshake is refused. The only refusal there is; mapped to HTTP in one place.

    ``reason`` goes onto the wire and says nothing about the server's inside; ``detail`` goes
    into the log only.
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


def unavailable(detail: str) -> Denied:
    """A 503 that advises the client to come back in a while, each after a time of its own."""
    return Denied(
        503,
        "The server cannot serve websockets now.",
        headers=(("Retry-After", str(random.randint(1, 5))),),
        detail=detail,
    )


class MessageRefused(WS4RedisError):
    """Raised by a hook: the client is not to say this. Closes its websocket with 1008 and
    ``reason``, which goes onto the wire.
    """

    def __init__(self, reason: str = "This message is not allowed.") -> None:
        self.reason = reason
        super().__init__(reason)

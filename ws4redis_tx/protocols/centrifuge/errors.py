"""The protocol's errors, and the codes with which it ends connections and subscriptions."""

from __future__ import annotations

from typing import NamedTuple


class Error(NamedTuple):
    """An answer to a command. A client tries again if it is ``temporary``."""

    code: int
    message: str
    temporary: bool = False


class CommandError(Exception):
    """A command cannot be carried out, and is answered with ``error``."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.message)
        self.error = error


class Disconnection(NamedTuple):
    """Ends a connection. A client comes back, except from 3500 to 3999 and from 4500 to 4999."""

    code: int
    reason: str


class Ends(Exception):
    """A command ends the connection."""

    def __init__(self, disconnection: Disconnection) -> None:
        super().__init__(disconnection.reason)
        self.disconnection = disconnection


INTERNAL = Error(100, "internal server error", True)
UNAUTHORIZED = Error(101, "unauthorized")
UNKNOWN_CHANNEL = Error(102, "unknown channel")
DENIED = Error(103, "permission denied")
ALREADY_SUBSCRIBED = Error(105, "already subscribed")
LIMIT_EXCEEDED = Error(106, "limit exceeded")
BAD_REQUEST = Error(107, "bad request")
NOT_AVAILABLE = Error(108, "not available")
TOKEN_EXPIRED = Error(109, "token expired")
TOO_MANY = Error(111, "too many requests", True)
UNRECOVERABLE = Error(112, "unrecoverable position")

SHUTDOWN = Disconnection(3001, "shutdown")
SERVER_ERROR = Disconnection(3004, "internal server error")
CONNECTION_EXPIRED = Disconnection(3005, "connection expired")
SUBSCRIPTION_EXPIRED = Disconnection(3006, "subscription expired")
SLOW = Disconnection(3008, "slow")
INSUFFICIENT_STATE = Disconnection(3010, "insufficient state")
NO_PONG = Disconnection(3012, "no pong")
TOO_MANY_REQUESTS = Disconnection(3013, "too many requests")
INVALID_TOKEN = Disconnection(3500, "invalid token")
BAD = Disconnection(3501, "bad request")
STALE = Disconnection(3502, "stale")
FORCE_DISCONNECT = Disconnection(3503, "force disconnect")
NOT_AVAILABLE_HERE = Disconnection(3508, "not available")

SERVER_UNSUBSCRIBE = Disconnection(2000, "server unsubscribe")
UNSUBSCRIBE_INSUFFICIENT = Disconnection(2500, "insufficient state")
UNSUBSCRIBE_EXPIRED = Disconnection(2501, "subscription expired")

"""What Redis means when it refuses, and what helps. Told apart from a Redis that is not reached."""

from __future__ import annotations

from dataclasses import dataclass

from ws4redis_tx.core.errors import BrokerRefused, BrokerUnavailable
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.redis.wire.protocol import ResponseError

_CLUSTER = ("CROSSSLOT", "MOVED ", "ASK ", "CLUSTERDOWN", "TRYAGAIN")

# The first words of answers that concern the whole server, and not the command alone.
_WHOLE_SERVER = (
    "BUSY ", "LOADING", "MASTERDOWN", "READONLY", "NOAUTH", "DENIED", "ERR max number of clients",
    *_CLUSTER,
)  # fmt: skip

# Words of answers, in small letters, and the remedy. The first that fits counts.
_REMEDIES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("wrongpass", "noauth", "invalid password", "but no password is set",
         "without any password configured", "operation not permitted"),
        "Correct the user and the password in WS4REDIS_CONNECTION (--redis).",
    ),
    (
        ("db index", "invalid db", "select is not allowed"),
        "Correct the number of the database in WS4REDIS_CONNECTION (--redis), or raise `databases` "
        "in the configuration of Redis.",
    ),
    (
        tuple(word.lower() for word in _CLUSTER),
        "This is a Redis Cluster, which is not supported yet. Use a single Redis server, with "
        "Sentinel if it must survive a failure.",
    ),
    (("noperm",), "Grant the user of Redis the permissions that docs/security.md lists."),
    (("busy ",), "A script keeps Redis busy; `SCRIPT KILL` ends one that has written nothing."),
    (("loading",), "It is ready as soon as it has loaded its data."),
    (
        ("readonly", "masterdown"),
        "This is a replica. Let WS4REDIS_CONNECTION (--redis) name the master, or use Sentinel.",
    ),
    (("max number of clients",), "Raise `maxclients` in the configuration of Redis."),
    (("unknown command",), "Do not rename or disable this command of Redis."),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why Redis cannot be used. The texts have no secrets."""

    problem: str
    remedy: str
    error: BrokerUnavailable
    """The same for a caller: ``BrokerRefused`` if Redis has answered."""


def trouble(address: RedisAddress, error: BaseException) -> Trouble:
    """The trouble that ``error`` tells of, which came up in a connection to ``address``."""
    refusal = _refusal(error)
    if refusal is not None:
        remedy = _remedy(str(refusal))
        problem = f"{address} refuses: {refusal}"
        text = f"Redis at {address} was reached, but refuses: {str(refusal).rstrip('.')}. {remedy}"
        return Trouble(problem, remedy, BrokerRefused(text))
    problem = str(error) or type(error).__name__
    remedy = (
        "Is the address right (WS4REDIS_CONNECTION, --redis), and is Redis running there?"
        if error.__cause__ is None
        else _remedy(str(error))
    )
    hint = "Is it running there? The setting WS4REDIS_CONNECTION is its address."
    if address.embedded:
        remedy = hint = (
            "manage.py runserver (with ws4redis_tx.runserver in INSTALLED_APPS) and twistd "
            "ws4redis start it, and it ends with them: start one of them first."
        )
    return Trouble(
        f"{address}: {problem}",
        remedy,
        BrokerUnavailable(f"Redis cannot be reached at {address} ({problem}). {hint}"),
    )


def is_no_permission(error: object) -> bool:
    """``error`` is a ``BrokerRefused``, or Redis' own answer."""
    return str(_refusal(error) or "").startswith("NOPERM")


def concerns_server(error: object) -> bool:
    """Whether Redis refuses every command now, such as while a script keeps it busy."""
    return str(_refusal(error) or "").startswith(_WHOLE_SERVER)


def refuses_scripts(error: object) -> bool:
    """Whether Redis does not run a script for this user, and may do the same in single commands."""
    text = str(_refusal(error) or "").lower()
    return (
        text.startswith("noperm")
        or "unknown command" in text
        or "unsupported command" in text
        or "from script" in text  # a command in the script is renamed or disabled
        or "acl failure in script" in text
        or "can't run this command" in text  # the same, before Redis 7
    )


def _refusal(error: object) -> ResponseError | None:
    for each in (error, getattr(error, "__cause__", None)):
        if isinstance(each, ResponseError):
            return each
    return None


def _remedy(text: str) -> str:
    text = text.lower()
    for words, remedy in _REMEDIES:
        if any(word in text for word in words):
            return remedy
    return "Its answer says why."

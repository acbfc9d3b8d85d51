"""Publishing from Django: from views, tasks, commands, threads, into the reactor and back.

The reactor runs in a thread of its own, started by crochet at the first publish in this process;
where one runs already (``twistd``, Daphne, an embedding application), that one is used. Importing
this module starts and imports none of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ws4redis_tx import conf
from ws4redis_tx.core.channels import check_facility
from ws4redis_tx.core.errors import AudienceError, BrokerUnavailable
from ws4redis_tx.redis_store import SELF, Names, RedisMessage, RedisStore

if TYPE_CHECKING:
    from ws4redis_tx.core.messages import PersistedMessage
    from ws4redis_tx.core.redis_address import RedisAddress
    from ws4redis_tx.server.commands import Commands

__all__ = ["SELF", "RedisMessage", "RedisPublisher"]

TIMEOUT = 5.0
"""Seconds that a publish or fetch may block."""

_AUDIENCES = {
    "any": ("session", "user", "group", "broadcast"),
    "session": ("session",),
    "user": ("user",),
    "group": ("group",),
    "broadcast": ("broadcast",),
}


class RedisPublisher(RedisStore):
    """Publishes on one facility to an audience.

    :param request: whose user, session and groups ``SELF`` means.
    :param facility: the topic; the part of the websocket's URL after ``WEBSOCKET_URL``.
    :param broadcast: everybody who listens to the facility.
    :param groups: names of groups, or ``SELF``; likewise ``users`` and ``sessions``.

    May be used from any thread that runs no event loop and no reactor, and kept. Raises
    ``ValueError`` for a facility that the server would refuse, ``AudienceError`` (a ``TypeError``
    and ``ValueError``) for an audience that is no iterable of names.
    """

    def __init__(
        self,
        request: Any = None,
        facility: str | None = None,
        broadcast: bool = False,
        groups: Names = (),
        users: Names = (),
        sessions: Names = (),
        **audience: Any,
    ) -> None:
        super().__init__(_BlockingConnection())
        self._asked = bool(broadcast or groups or users or sessions or audience)
        channels = self._get_message_channels(
            request=request,
            facility=facility or "",
            broadcast=broadcast,
            groups=groups,
            users=users,
            sessions=sessions,
            **audience,
        )
        if channels and facility is None:
            raise ValueError("Name the facility: RedisPublisher(facility='…', …).")
        prefix = self.get_prefix()
        check_facility(
            facility or "", {channel[len(prefix) :].partition(":")[0] for channel in channels}
        )
        self._publishers = set(channels)

    def get_prefix(self) -> str:
        prefix = conf.get_prefix()
        return f"{prefix}:" if prefix else ""

    def publish_message(
        self, message: RedisMessage | bytes | str, expire: int | None = None
    ) -> int:
        """Publish, and persist for ``expire`` seconds (default ``WS4REDIS_EXPIRE``; ``0``: not).

        Returns how many subscribers Redis counted, summed over the channels: server processes,
        not browsers. Blocks until Redis answered, 5 s at most. Raises ``BrokerUnavailable``,
        whose ``maybe_published`` tells whether the message may have been published all the same;
        it is never sent again.
        """
        receivers: int = self._connection.publish(*self._prepared(message, expire))
        return receivers

    async def apublish_message(
        self, message: RedisMessage | bytes | str, expire: int | None = None
    ) -> int:
        """``publish_message`` for async views: does not block the event loop."""
        channels, payload, expire = self._prepared(message, expire)
        return await asyncio.to_thread(self._connection.publish, channels, payload, expire)

    def pipeline_publish_message(
        self,
        message: RedisMessage | bytes | str,
        expire: int | None = None,
        transaction: bool = True,
    ) -> int:
        """The same as ``publish_message``, which always takes one round trip here."""
        return self.publish_message(message, expire)

    def fetch_message(
        self, request: Any, facility: str, audience: str = "any"
    ) -> PersistedMessage | None:
        """The first persisted message in the order session, user, each group, broadcast.

        ``audience`` narrows it to one of these. Raises ``ValueError`` for an unknown one.
        """
        if audience not in _AUDIENCES:
            raise ValueError(
                f"audience={audience!r} is none of {', '.join(map(repr, _AUDIENCES))}."
            )
        channels: list[str] = []
        for each in _AUDIENCES[audience]:
            wanted: dict[str, Any] = (
                {"broadcast": True} if each == "broadcast" else {f"{each}s": [SELF]}
            )
            channels += self._get_message_channels(request=request, facility=facility, **wanted)
        messages = self._connection.get_all(channels)
        return next((message for message in messages if message is not None), None)

    def _prepared(self, message: object, expire: int | None) -> tuple[list[str], bytes, int]:
        if not self._publishers and not self._asked:
            raise AudienceError(
                "This publisher has no audience. Give it broadcast=True, users=[…], groups=[…] or "
                "sessions=[…]."
            )
        if expire is None:
            expire = conf.get_expire()
        elif isinstance(expire, bool) or not isinstance(expire, int) or expire < 0:
            raise ValueError(f"expire={expire!r} is not a number of seconds.")
        payload = RedisMessage(message)  # type: ignore[arg-type]
        return sorted(self._publishers), payload, expire


class _BlockingConnection:
    """Redis for a thread that waits."""

    def publish(self, channels: Sequence[str], message: bytes, expire: int) -> int:
        names = [channel.encode() for channel in channels]
        if not names:
            return 0
        receivers: int = _in_reactor(lambda commands: commands.publish(names, message, expire))
        return receivers

    def get(self, channel: str) -> PersistedMessage | None:
        return self.get_all([channel])[0]

    def get_all(self, channels: Sequence[str]) -> Sequence[PersistedMessage | None]:
        names = [channel.encode() for channel in channels]
        if not names:
            return []
        messages: Sequence[PersistedMessage | None] = _in_reactor(
            lambda commands: commands.get(names)
        )
        return messages


def _in_reactor(work: Callable[[Commands], Any]) -> Any:
    """Run ``work`` in the reactor thread and wait for what its Deferred brings."""
    crochet = _ensure_reactor()
    call = _Call(conf.get_redis_address(), conf.get_prefix(), work)
    result = crochet.run_in_reactor(call.run)()
    try:
        return result.wait(TIMEOUT)
    except crochet.TimeoutError:
        result.cancel()
        raise BrokerUnavailable(
            f"Redis at {call.address} did not answer within {TIMEOUT:g} s.",
            maybe_published=call.sent,
        ) from None
    except crochet.ReactorStopped:
        raise BrokerUnavailable(
            "The reactor of this process was stopped.", maybe_published=call.sent
        ) from None


class _Call:
    """One piece of work on its way through the reactor thread."""

    def __init__(self, address: RedisAddress, prefix: str, work: Callable[[Commands], Any]) -> None:
        self.address = address
        self.sent = False
        self._prefix = prefix
        self._work = work

    def run(self) -> Any:
        commands = _commands(self.address, self._prefix)
        if commands.connected:
            return self._send(commands)
        return commands.when_connected().addCallbacks(
            lambda _: self._send(commands), self._unreachable
        )

    def _send(self, commands: Commands) -> Any:
        self.sent = True
        return self._work(commands)

    def _unreachable(self, failure: Any) -> Any:
        raise BrokerUnavailable(
            f"Redis cannot be reached at {self.address} ({failure.getErrorMessage()}). Is it "
            "running there? The address is the setting WS4REDIS_CONNECTION."
        ) from failure.value


# Both belong to the reactor thread.
_own_commands: dict[tuple[RedisAddress, str], Commands] = {}
_shared_commands: Commands | None = None


def share_commands(commands: Commands | None) -> None:
    """Let the publishers of this process use a server's connection instead of one of their own."""
    global _shared_commands
    _shared_commands = commands


def _commands(address: RedisAddress, prefix: str) -> Commands:
    if _shared_commands is not None:
        return _shared_commands
    if (address, prefix) not in _own_commands:
        from twisted.internet import reactor

        from ws4redis_tx.server.commands import Commands

        commands = Commands(address, prefix, reactor, timeout=TIMEOUT)
        commands.start()
        _own_commands[address, prefix] = commands
    return _own_commands[address, prefix]


def _ensure_reactor() -> Any:
    """A reactor that runs in another thread. Returns the crochet module, which leads there."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError(
            "This thread runs an event loop, which a publish would block: "
            "await publisher.apublish_message(…) instead."
        )
    import crochet
    from twisted.internet import reactor
    from twisted.python.threadable import isInIOThread

    if not reactor.running:
        crochet.setup()
        return crochet
    if isInIOThread():
        raise RuntimeError(
            "This is the reactor thread, which a publish would block: use the server's "
            "broker.publish(…), which returns a Deferred, or deferToThread."
        )
    with contextlib.suppress(RuntimeError):  # raised when crochet is set up already
        crochet.no_setup()
    return crochet

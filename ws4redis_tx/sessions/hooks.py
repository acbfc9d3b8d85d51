"""Calls an application's hooks about its websockets. A server without hooks uses none of this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import get_ident
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from ws4redis_tx.core.admission import ANONYMOUS, Identity
from ws4redis_tx.core.errors import HookFailed, MessageRefused
from ws4redis_tx.core.interfaces import IHooks, Refusal
from ws4redis_tx.core.messages import payload_of
from ws4redis_tx.scheduling.serial_queue import SerialQueue, call
from ws4redis_tx.scheduling.waiters import Waiters
from ws4redis_tx.sessions.interfaces import Ending, must_implement
from ws4redis_tx.sessions.log import ClientLog

if TYPE_CHECKING:
    from ws4redis_tx.sessions.session import Session

_HOOKS = ("connected", "refused", "message", "closed")

# Codes that are allowed in a close frame (RFC 6455, section 7.4, and later registrations).
_CODES = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Connection:
    """An ``IConnection``."""

    facility: str
    identity: Identity
    rights: tuple[str, ...]
    channels: tuple[str, ...] = field(repr=False)  # one may contain a session key
    peer: str
    _in_reactor: Callable[..., object] = field(repr=False)
    _session: Session = field(repr=False)

    def send(self, message: bytes | str) -> None:
        self._in_reactor(self._session.send, payload_of(message))

    def close(self, code: int = 1000, reason: str = "") -> None:
        if code not in _CODES:
            raise ValueError(
                f"{code} is not allowed in a close frame. Use 1000, or a code from 4000 to 4999."
            )
        self._in_reactor(self._session.close, code, reason)


class _HookedSession:
    """A session whose hooks are called, one after another."""

    def __init__(self, connection: Connection, queue: SerialQueue) -> None:
        self.connection = connection
        self.queue = queue


class HookObserver:
    """An ``ISessionObserver`` that calls ``hooks``, and asks them about each message.

    While the hooks' attribute ``idle`` is true, they are not told of sessions that begin.
    """

    def __init__(self, hooks: IHooks, reactor: Any) -> None:
        must_implement("hooks", hooks, _HOOKS, "Use an instance of a subclass of NullHooks.")
        self._hooks = hooks
        self._reactor = reactor
        self._thread = get_ident()
        self._hooked: dict[Session, _HookedSession] = {}
        # Number of sessions that are over but whose last hook is not done.
        self._unsettled = 0
        self._settled: Waiters[None] = Waiters()
        self._hurried = False
        self._log = ClientLog(reactor)

    @property
    def idle(self) -> bool:
        self._thread = get_ident()
        return bool(getattr(self._hooks, "idle", False))

    def refused(self, refusal: Refusal) -> None:
        call(self._reactor, self._hooks.refused, refusal).addErrback(self._failed, "refused")

    def opened(self, session: Session) -> None:
        if session.admitted is not None:
            self._begin(session)

    def _begin(self, session: Session) -> None:
        admitted = session.admitted
        facility, identity, rights = "", ANONYMOUS, tuple[str, ...]()
        if admitted is not None:
            facility, identity, rights = admitted.facility, admitted.identity, admitted.rights
        connection = Connection(
            facility,
            identity,
            rights,
            getattr(session.state, "channels", ()),
            session.peer,
            self._in_reactor,
            session,
        )
        queue = SerialQueue(self._reactor)
        self._hooked[session] = _HookedSession(connection, queue)
        self._hurried = False
        queue.add(self._hooks.connected, connection).addErrback(self._failed, "connected")

    def live(self, session: Session) -> None:
        if session not in self._hooked and not session.ended:
            self._begin(session)  # its protocol asks for rights once it is open, or for none
        hooked = self._hooked.get(session)
        if hooked is not None:
            hooked.queue.start()

    def message(self, session: Session, payload: bytes) -> Deferred[bytes | None]:
        hooked = self._hooked[session]
        answer = hooked.queue.add(self._judge, session, hooked.connection, payload)
        return answer.addCallback(_checked).addErrback(self._message_failed)

    def _judge(self, session: Session, connection: Connection, payload: bytes) -> Any:
        return self._hooks.message(connection, payload) if session.speaks else None

    def _message_failed(self, failure: Failure) -> None:
        if not isinstance(failure.value, MessageRefused):
            self._log.failed("The hook `message` failed; the message was not published", failure)
            raise HookFailed
        failure.raiseException()

    def subscribed(self, session: Session, channel: str) -> None:
        self._tell(session, "subscribed", channel)

    def unsubscribed(self, session: Session, channel: str) -> None:
        self._tell(session, "unsubscribed", channel)

    def _tell(self, session: Session, event: str, channel: str) -> None:
        hook = getattr(self._hooks, event, None)
        hooked = self._hooked.get(session)
        if hook is not None and hooked is not None:
            hooked.queue.add(hook, hooked.connection, channel).addErrback(self._failed, event)

    def closed(self, session: Session, ending: Ending) -> None:
        hooked = self._hooked.pop(session, None)
        if hooked is None:
            return  # it ended in the middle of its opening
        closing = ending.closing(session)
        self._unsettled += 1
        hooked.queue.start()
        done = hooked.queue.add(self._hooks.closed, hooked.connection, closing)
        done.addErrback(self._failed, "closed").addBoth(self._done)

    def _done(self, _: object) -> None:
        self._unsettled -= 1
        if not self._unsettled and not self._hooked:
            self._settled.fire(None)

    def settled(self) -> Deferred[None]:
        busy = not self._hurried and (self._unsettled or self._hooked)
        settled = self._settled.wait() if busy else succeed(None)
        return settled.addCallback(lambda _: self._log.stop())

    def hurry(self) -> None:
        self._hurried = True  # the connections are not lost until the reactor's next turn
        self._settled.fire(None)

    def _failed(self, failure: Failure, hook: str) -> None:
        self._log.failed(f"The hook `{hook}` failed", failure)

    def _in_reactor(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call ``function`` in the reactor's thread: at once, if this is that thread."""
        if get_ident() == self._thread:
            function(*arguments)
        else:
            self._reactor.callFromThread(function, *arguments)


def _checked(answer: object) -> bytes | None:
    if answer is None or isinstance(answer, bytes):
        return answer
    if isinstance(answer, str):
        return answer.encode()
    raise TypeError(
        f"The hook `message` returned a {type(answer).__name__}. Return bytes or a str to publish, "
        "or None to publish nothing."
    )

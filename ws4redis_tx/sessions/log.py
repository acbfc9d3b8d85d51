"""The lines that clients cause in the log. However many they cause, the log grows slowly.

A client that was refused, and a failure that a client can cause again, have a line the first time.
Equal ones are summed up, a line a minute. Each websocket that was open has one line, unless there
are too many at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import Denied, Outage, cut, shown
from ws4redis_tx.core.interfaces import Closing
from ws4redis_tx.core.proxies import counted_address
from ws4redis_tx.scheduling.summaries import DIFFERENT, Summaries, place

if TYPE_CHECKING:
    from ws4redis_tx.sessions.session import Session

_log = Logger()

ENDS_PER_SECOND = 20
"""Websockets, and requests for pages, whose ends have a line each, in one second."""

GROWTH, BURST = 512, 64 * 1024
"""Bytes a second that these lines of one address add to the log, and bytes that they may add at
once after it was quiet. An IPv6 /64 counts as one address.
"""

# A longer refusal is an application's own.
_LONGEST_DETAIL = 600
# Beside its text, a line has its time, its level and its source.
_PREFIX_SIZE = 80
_MANY_ADDRESSES = 1024
# Applications choose the codes from here on.
_OWN_CODES = 3000


class ClientLog:
    """The log of one server. Used in the reactor's thread."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._summaries = Summaries(reactor)
        self.share(1)
        self._second, self._ends = 0, 0
        # By address: when a line of its was last written, and the bytes left to it then.
        self._room: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def share(self, processes: int) -> None:
        """Share the bounds with other processes that write into the same log."""
        self._summaries.different = max(1, DIFFERENT // processes)
        self._ends_per_second = max(1, ENDS_PER_SECOND // processes)
        self._rate, self._burst = GROWTH / processes, BURST / processes

    def refused(self, denied: Denied, *, websocket: bool) -> None:
        """``websocket``: the request asked for one."""
        if isinstance(denied, Outage):
            return  # the outage itself has a line
        what = "Refused a websocket" if websocket else "Answered a plain request"
        detail = cut(denied.detail or denied.reason, _LONGEST_DETAIL)
        line = f"{what} with {denied.status}: {detail}"
        if self._summaries.admits((what, denied.status), line):
            _log.info(
                "{what} with {status}: {detail}", what=what, status=denied.status, detail=detail
            )

    def ended(self, session: Session, closing: Closing) -> None:
        """An open websocket is over."""
        admitted = session.admitted
        fields: dict[str, Any] = {
            "user": "None",
            "facility": "None",
            "rights": "no rights",
            "peer": shown(session.peer),
            "seconds": closing.seconds,
            "sent": closing.sent,
            "received": closing.received,
            "dropped": "",
            "code": closing.code,
            "by": "server" if closing.by_server else "client",
            "reason": shown(closing.reason) if closing.reason else "no reason",
        }
        if admitted is not None:
            user = admitted.identity.username
            fields["user"] = "None" if user is None else shown(str(user))
            fields["facility"] = shown(admitted.facility)
            if admitted.rights:
                fields["rights"] = cut(" ".join(admitted.rights), 200)
        if closing.dropped:
            fields["dropped"] = f", {closing.dropped} messages dropped because it did not read"
        text = (
            "A websocket ended: user {user}, facility {facility}, {rights}, from {peer}, open for "
            "{seconds:.1f} s, {sent} messages sent and {received} received{dropped}, code {code} "
            "by the {by}, {reason}"
        )
        line = text.format(**fields)
        if self._has_room(session.peer, len(line) + _PREFIX_SIZE):
            _log.info(text, **fields)
        else:
            self._summaries.leave_out(("ended", min(closing.code, _OWN_CODES)), line)

    def request(self, peer: str, line: str) -> None:
        """A site on the same port has answered a request."""
        if self._has_room(peer, len(line) + _PREFIX_SIZE):
            _log.info("{line}", line=line)
        else:
            self._summaries.leave_out("request", line)

    def failed(self, text: str, failure: Failure) -> None:
        """A failure of the server's or the application's, with its traceback the first time."""
        kind = getattr(failure.type, "__name__", failure.type)
        line = f"{text} ({kind}: {cut(failure.getErrorMessage(), 200)})"
        if self._summaries.admits(text, line, key=(text, failure.type, place(failure))):
            _log.failure(text, failure=failure)

    def warn(self, text: str, why: str) -> None:
        """Something that is no bug went wrong for one client."""
        line = f"{text}: {cut(why, _LONGEST_DETAIL)}"
        if self._summaries.admits(text, line):
            _log.warn("{line}", line=line)

    def stop(self) -> None:
        """Write what was summed up so far, and leave no timer."""
        self._summaries.stop()

    def _has_room(self, peer: str, size: int) -> bool:
        now = self._reactor.seconds()
        if int(now) != self._second:
            self._second, self._ends = int(now), 0
        if self._ends >= self._ends_per_second:
            return False
        address = counted_address(peer)
        since, room = self._room.pop(address, (now, self._burst))
        room = min(self._burst, room + max(0.0, now - since) * self._rate)
        fits: bool = size <= room
        self._room[address] = (now, room - size if fits else room)
        if len(self._room) > _MANY_ADDRESSES:
            self._room.popitem(last=False)
        self._ends += int(fits)
        return fits

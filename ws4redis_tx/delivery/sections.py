"""Receivers that are sent the same bytes, and the way to send it to all of them in one loop.

The loop calls the sockets' own ``send``. It stops at a receiver that has to be handed its message
with care, because it is paused, closed or replaying, or its socket took less than all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import length_hint
from typing import TYPE_CHECKING, Any

from ws4redis_tx.core.interfaces import NO_SOCKET, IListener
from ws4redis_tx.delivery.direct import CHANGES, UNSETTLED
from ws4redis_tx.delivery.feed import Feed

if TYPE_CHECKING:
    from ws4redis_tx.delivery.hub import Hub

Listeners = Mapping[IListener, None]


class Section:
    """Receivers of one ``codec``; of the codec ``None``, those that must be handed each message.

    Its receivers get each message in portions, the first ones first, and the next message only
    after all portions of the last one. Their ``written`` is brought up to date only when it is
    needed: touching each of them would cost more than the loop itself.

    :param kept: it is used again for the next message, until ``drop``.
    """

    __slots__ = (
        "_kept", "_number", "_passed", "_portion", "_sends", "_settled", "_stamp", "codec",
        "receivers",
    )  # fmt: skip

    def __init__(self, codec: Any, receivers: Sequence[Any], *, kept: bool = False) -> None:
        self.codec = codec
        self.receivers = receivers
        self._kept = kept
        # The ``send`` of each receiver, and the ``CHANGES`` that it knows of. It is not kept for a
        # section that is used once, whose receivers may have left before it was made.
        self._stamp = CHANGES.number if kept else -1
        self._sends: Sequence[Callable[[bytes], int]] = ()
        if kept and codec is not None:
            self._sends = tuple([each.direct.socket.send for each in receivers])
        # Messages that all receivers have got, and that are not in their ``written`` yet.
        self._passed = 0
        # Of the current publication, if any: how many messages are in it, how many receivers have
        # had their turn, and how many of those have it in their ``written``.
        self._number = self._portion = self._settled = 0

    def hand_over(self, bundle: Bundle, start: int, stop: int, hub: Hub) -> None:
        """Give the receivers with these indices the message of ``bundle``."""
        if self.codec is None:
            for receiver in self.receivers[start:stop]:
                hub.hand_over_to(receiver, bundle)
            return
        if bundle.frame is None:
            bundle.frame = self._encode(bundle, hub)
        if not bundle.frame:
            return
        self._number = bundle.publication.number
        UNSETTLED.add(self)
        self._send(bundle.frame, bundle, start, stop, hub)
        self._portion = stop
        if stop == len(self.receivers):
            self._finish()

    def _encode(self, bundle: Bundle, hub: Hub) -> bytes:
        """The form for the codec; ``b""`` if the codec fails."""
        publication, codec = bundle.publication, self.codec
        form: bytes = b""
        try:
            form = publication.forms.get(codec) or publication.form(codec)
        except Exception:
            hub.on_failure()
        return form

    def _send(self, frame: bytes, bundle: Bundle, start: int, stop: int, hub: Hub) -> None:
        size = sent = len(frame)
        sends, changes = iter(self._sends_of(bundle, start, stop)), CHANGES.number
        while True:
            try:
                for send in sends:
                    sent = send(frame)
                    if sent != size:
                        break
                else:
                    return
            except OSError:
                sent = 0  # full, or lost: the transport finds out which
            start = stop - length_hint(sends)
            receiver = self.receivers[start - 1]
            if sent is False:
                # It counts what it writes itself, and the section will count it again.
                receiver.written -= self._number
                hub.hand_over_to(receiver, bundle)
            else:
                hub.leave_to(receiver, frame, sent)
            if CHANGES.number != changes:
                sends, changes = iter(self._sends_of(bundle, start, stop)), CHANGES.number

    def _sends_of(self, bundle: Bundle, start: int, stop: int) -> Sequence[Callable[[bytes], int]]:
        """The ``send`` to call for each of these receivers: ``NO_SOCKET``'s if it needs care."""
        sender = bundle.publication.sender
        changed = self._stamp != CHANGES.number
        if not changed and sender is None:
            return self._sends[start:stop]
        portion = self.receivers[start:stop]
        if changed:
            sends = [each.direct.socket.send for each in portion]
        else:
            sends = [*self._sends[start:stop]]
        for listeners in bundle.listening if changed else ():
            sends = [
                send if each in listeners else NO_SOCKET.send
                for each, send in zip(portion, sends, strict=True)
            ]
        if sender in portion:
            sends[portion.index(sender)] = NO_SOCKET.send
        return sends

    def _finish(self) -> None:
        """All receivers have had their turn."""
        if self._kept and not self._settled:
            self._passed += self._number
        else:
            self.settle()
            UNSETTLED.discard(self)
        self._number = self._portion = self._settled = 0

    def settle(self) -> None:
        """Bring the ``written`` of each receiver up to date."""
        passed, self._passed = self._passed, 0
        if passed:
            for receiver in self.receivers:
                receiver.written += passed
        for receiver in self.receivers[self._settled : self._portion]:
            receiver.written += self._number
        self._settled = self._portion
        if not self._number:
            UNSETTLED.discard(self)

    @property
    def outdated(self) -> bool:
        """Whether something has changed since it was made."""
        return self._stamp != CHANGES.number

    def drop(self) -> None:
        """It is not used for another message."""
        self._kept = False
        self.settle()


class Bundle:
    """A publication, or several joined, and the section of listeners that gets it.

    :param listening: for each of its channels, the current listeners: a receiver may leave before
        its turn.
    """

    __slots__ = ("frame", "listening", "publication", "section")

    def __init__(self, publication: Any, section: Section, listening: Sequence[Listeners]) -> None:
        self.publication = publication
        self.section = section
        self.listening = listening
        self.frame: bytes | None = None
        """The bytes that all of the section are sent, once they are made."""


def divide(listeners: Iterable[IListener], *, kept: bool = False) -> list[Section]:
    """The sections of ``listeners``, each in their order."""
    receivers = tuple(listeners)
    codecs = [each.direct.codec if isinstance(each, Feed) else None for each in receivers]
    different = dict.fromkeys(codecs)
    if len(different) == 1:
        return [Section(codecs[0], receivers, kept=kept)]
    return [
        Section(
            codec,
            tuple([each for each, its in zip(receivers, codecs, strict=True) if its is codec]),
            kept=kept,
        )
        for codec in different
    ]

"""The listeners of each channel in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ws4redis_tx.core.interfaces import NO_SOCKET, IListener
from ws4redis_tx.core.messages import Publication
from ws4redis_tx.delivery.direct import CAREFUL, CHANGES
from ws4redis_tx.delivery.feed import Feed
from ws4redis_tx.delivery.sections import Bundle, Listeners, Section, divide

# Dividing fewer listeners costs more than it saves.
_FEW = 8


class Hub:
    """Channel → listeners. Reports when a channel gains its first or loses its last listener.

    ``on_failure`` is called inside the ``except`` block when a listener or a codec raises.
    """

    def __init__(self, on_failure: Callable[[], object]) -> None:
        self.on_failure = on_failure
        self._listeners: dict[bytes, dict[IListener, None]] = {}
        self.listeners: Mapping[bytes, Mapping[IListener, None]] = self._listeners
        """The listeners of each channel, in the order in which they were added."""
        # Of channels on which something was published.
        self._sections: dict[bytes, Sequence[Section]] = {}

    @property
    def channels(self) -> Collection[bytes]:
        return self._listeners.keys()

    def add(self, channel: bytes, listener: IListener) -> bool:
        """Return whether this is the channel's first listener. Idempotent."""
        listeners = self._listeners.get(channel)
        if listeners is None:
            self._listeners[channel] = {listener: None}
            return True
        listeners[listener] = None
        if channel in self._sections:
            self._drop(channel)
        return False

    def discard(self, channel: bytes, listener: IListener) -> bool:
        """Return whether that was the channel's last listener."""
        listeners = self._listeners.get(channel)
        if listeners is None or listener not in listeners:
            return False
        del listeners[listener]
        if channel in self._sections:
            self._drop(channel)
        CHANGES.number += 1
        if listeners:
            return False
        del self._listeners[channel]
        return True

    def has(self, channel: bytes, listener: IListener) -> bool:
        return listener in self._listeners.get(channel, ())

    def dispatch(self, publication: Publication) -> None:
        """Hand ``publication`` to every listener of its channel, in the order of ``add`` within
        each section.

        A listener may meanwhile add and discard listeners, including itself.
        """
        assert publication.channel is not None
        listeners = self._listeners.get(publication.channel, {})
        if len(listeners) <= _FEW:
            self._hand_over_to_few(listeners, publication)
            return
        for section in self.sections(publication.channel):
            bundle = Bundle(publication, section, (listeners,))
            section.hand_over(bundle, 0, len(section.receivers), self)

    def _hand_over_to_few(self, listeners: Listeners, publication: Publication) -> None:
        receivers: tuple[Any, ...] = tuple(listeners)
        for listener in receivers:
            direct = listener.direct if isinstance(listener, Feed) else CAREFUL
            if listener not in listeners:
                continue
            try:
                if direct.socket is NO_SOCKET or publication.sender is listener:
                    self._deliver(listener, publication)
                    continue
                codec = direct.codec
                frame = publication.forms.get(codec) or publication.form(codec)
                listener.written += 1
                try:
                    sent = direct.socket.send(frame)
                except OSError:
                    sent = 0  # full, or lost: the transport finds out which
                if sent != len(frame):
                    direct.leave(frame, sent)
            except Exception:
                self.on_failure()

    def sections(self, channel: bytes) -> Sequence[Section]:
        """The listeners to ``channel``, divided."""
        sections = self._sections.get(channel, ())
        if not sections or sections[0].outdated:
            self._drop(channel)
            sections = divide(self._listeners.get(channel, {}), kept=True)
            if sections:
                self._sections[channel] = sections
        return sections

    def _drop(self, channel: bytes) -> None:
        for section in self._sections.pop(channel, ()):
            section.drop()

    def count(self, channel: bytes | None) -> int:
        """The number of listeners to ``channel``."""
        return 0 if channel is None else len(self._listeners.get(channel, ()))

    def hand_over_to(self, listener: IListener, bundle: Bundle) -> None:
        """Give ``listener`` the message of ``bundle``, or of several joined ones those of channels
        that it has not left meanwhile.
        """
        publication = bundle.publication
        for listeners in bundle.listening:
            if listener not in listeners:
                self._one_by_one(listener, publication.parts)
                return
        self._deliver(listener, publication)

    def _one_by_one(self, listener: IListener, publications: Sequence[Publication]) -> None:
        for publication in publications:
            assert publication.channel is not None
            if self.has(publication.channel, listener):
                self._deliver(listener, publication)

    def _deliver(self, listener: IListener, publication: Any) -> None:
        if not publication.number and not isinstance(listener, Feed):
            return  # no message: it is for clients
        try:
            listener.deliver(publication)
        except Exception:
            self.on_failure()

    def leave_to(self, listener: Any, frame: bytes, sent: int) -> None:
        """Leave the rest of ``frame`` to a listener whose socket took ``sent`` bytes of it."""
        try:
            listener.direct.leave(frame, sent)
        except Exception:
            self.on_failure()


class EchoNotes:
    """Notes of the senders of messages, so that a message coming back from Redis skips its sender.

    The first message with a note's channel and bytes uses up the note. Equal notes are used in the
    order in which they were made, which is the order in which Redis received the messages.
    """

    def __init__(self) -> None:
        self._senders: dict[tuple[bytes, bytes], deque[object]] = {}
        self.senders: Mapping[tuple[bytes, bytes], Collection[object]] = self._senders
        """The senders of unused notes, by channel and bytes."""

    def note(self, channel: bytes, payload: bytes, sender: object) -> None:
        self._senders.setdefault((channel, payload), deque()).append(sender)

    def take(self, channel: bytes, payload: bytes) -> object:
        """Use up the oldest note; return its sender, or ``None``."""
        key = (channel, payload)
        senders = self._senders.get(key)
        if senders is None:
            return None
        sender = senders.popleft()
        if not senders:
            del self._senders[key]
        return sender

    def drop(self, channel: bytes, payload: bytes, sender: object) -> None:
        """Remove one note whose message will not come back."""
        key = (channel, payload)
        senders = self._senders.get(key)
        if senders is not None and sender in senders:
            senders.remove(sender)
            if not senders:
                del self._senders[key]

    def forget(self, sender: object) -> None:
        """Remove every note of a sender that is gone."""
        for key in [key for key, senders in self._senders.items() if sender in senders]:
            kept = deque(other for other in self._senders[key] if other is not sender)
            if kept:
                self._senders[key] = kept
            else:
                del self._senders[key]

    def clear(self) -> None:
        """Remove all notes: the connection that would have brought the messages is gone."""
        self._senders.clear()

    def __len__(self) -> int:
        return sum(map(len, self._senders.values()))

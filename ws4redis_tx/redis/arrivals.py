"""Which messages an outage of pub/sub swallowed.

Pub/sub keeps nothing, but the last message of each channel is persisted, with a stamp of Redis'
own clock. A probe that Redis publishes to ourselves carries that clock too, and comes back in
order with all other messages: every message with an earlier stamp has arrived by then.
"""

from __future__ import annotations


class Arrivals:
    """The messages that have arrived, as far as is needed to recognise one that has not.

    Messages are remembered by their hash, from one probe to the next.
    """

    def __init__(self) -> None:
        self._proven = 0
        self.recent: set[int] = set()
        """Hashes of those that have arrived since the last probe."""
        self._last: dict[bytes, int] = {}
        # Those that were read from their keys, and are not known to have reached all who listened
        # then: since the last probe came back, and before.
        self._read: list[tuple[bytes, bytes]] = []
        self._read_earlier: list[tuple[bytes, bytes]] = []

    def note(self, channel: bytes, payload: bytes) -> None:
        """This message has arrived."""
        self._last[channel] = digest = hash((channel, payload))
        self.recent.add(digest)

    def read(self, channel: bytes, payload: bytes) -> None:
        """This message was read from its key. ``note_read`` follows if a fence confirms it."""
        self._read.append((channel, payload))

    def take_read(self) -> list[tuple[bytes, bytes]]:
        """The messages that were read so far, for the fence that is sent next."""
        read = self._read_earlier + self._read
        self.forget_read()
        return read

    def forget_read(self) -> None:
        """The connection is lost: no fence confirms them."""
        self._read, self._read_earlier = [], []

    def note_read(self, channel: bytes, payload: bytes) -> None:
        """This message was read from its key, and everybody who listened when it was published
        has it: a fence says so.
        """
        digest = hash((channel, payload))
        self.recent.add(digest)
        # A message that arrived over pub/sub is newer.
        self._last.setdefault(channel, digest)

    def prove(self, moment: int) -> None:
        """Every message with a stamp up to ``moment`` (microseconds, Redis' clock) has arrived."""
        self._proven = moment
        self.forget_recent()
        self._read_earlier, self._read = self._read, []

    def forget_recent(self) -> None:
        """Forget what a probe would prove, where no probe is permitted."""
        self.recent.clear()

    def forget(self, channel: bytes) -> None:
        """Nobody listens to ``channel`` any more."""
        self._last.pop(channel, None)

    def missed(self, channel: bytes, payload: bytes, stamp: int | None) -> bool:
        """Whether the persisted message was published while we could not hear it.

        One without a stamp, from a publisher that sets none, counts as heard if its bytes are
        those of the last one on its channel.
        """
        digest = hash((channel, payload))
        if digest in self.recent:
            return False
        if stamp is None:
            return digest != self._last.get(channel)
        return stamp > self._proven

"""The answers to one client, several of them in one write."""

from __future__ import annotations

from ws4redis_tx.delivery.outbox import Outbox
from ws4redis_tx.protocols.centrifuge.wire.codec import PushCodec
from ws4redis_tx.protocols.centrifuge.wire.schema import Values


class Answers:
    """Keeps answers until ``flush``."""

    __slots__ = ("_messages", "codec", "outbox")

    def __init__(self, codec: PushCodec, outbox: Outbox) -> None:
        self.codec = codec
        self.outbox = outbox
        self._messages: list[bytes] = []

    def reply(self, number: int, name: str, result: Values) -> None:
        """Answer a command."""
        self._messages.append(self.codec.format.write({"id": number, name: result}))

    def push(self, values: Values) -> None:
        self._messages.append(self.codec.format.write({"push": values}))
        self.flush()

    def flush(self) -> None:
        """Write what was kept, in order with all else, also while the client does not read."""
        messages, outbox = self._messages, self.outbox
        if not messages:
            return
        self._messages = []
        if outbox.closed:
            return
        data = self.codec.frame(messages)
        if outbox.flows:
            outbox.write(data)
        else:
            outbox.replay([(b"", data)])

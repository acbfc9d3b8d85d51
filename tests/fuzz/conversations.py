"""Conversations with a server of Centrifuge's protocol in memory, made from arbitrary bytes.

Each two bytes are a step: something that the client says, or that happens to it. All that it says
is well-formed. Whatever comes, nothing of the server's may fail, and each command is answered once.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import TimeoutError
from twisted.internet.task import Clock

from tests.fuzz.targets import no_exception_logged
from tests.support.channels import KEPT, URL, SlowJohn
from tests.support.memory import SlowBroker
from tests.support.tokens import SECRET, token
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.errors import Denied, Outage
from ws4redis_tx.revocation.messages import CONTROL_NAME, disconnection
from ws4redis_tx.testing import CentrifugeClient, connect_centrifuge, make_memory_factory

MOST_STEPS = 120

CHANNELS = (
    "broadcast:a", "broadcast:kept", "broadcast:room", "user:kept", "session:a", "group:staff:kept",
    "group:others:a", "broadcast:forbidden", "broadcast:away", "nonsense", "broadcast:" + "x" * 300,
)  # fmt: skip
WAITS = ("listen", "publish", "stream", "fence", "missed")
TARGETS: tuple[dict[str, str], ...] = (
    {"user": "john"}, {"group": "staff"}, {"facility": "kept"}, {"session": "the key"},
)  # fmt: skip


class Doorman(SlowJohn):
    """Lets John in everywhere but at two facilities, at once or when the conversation says so."""

    def __init__(self, *, slow: bool) -> None:
        super().__init__()
        self._slow = slow

    def authorize(self, handshake: Any, rights: Any) -> Any:
        if handshake.facility == "forbidden":
            raise Denied(403, "no")
        if handshake.facility == "away":
            raise Outage("the database is away")
        admission = super().authorize(handshake, rights)
        if not self._slow:
            self.answer()
        return admission


def _tokens(channel: str) -> tuple[str, ...]:
    """Good and bad ones, of John's."""
    now = time.time()
    good = {"iat": now, "exp": now + 600, "sub": "john", "pk": "7"}
    return (
        token(**good),
        token(**good, groups=["staff"], channels=["broadcast:a"]),
        token(**good, channels=["broadcast:kept", "user:kept", "broadcast:forbidden"]),
        token(**good, channels=[channel]),
        token(**good, channel=channel),
        token(**good, channel="broadcast:other"),
        token(iat=now - 9, exp=now - 1, sub="john"),
        token(iat=now, exp=now + 600, sub="mary"),
        "no token",
    )


class Conversation:
    """A client, and the server behind it.

    :param kind: its bits choose protobuf, an authorizer that waits, a broker that does, a rate, and
        subscriptions of the server's.
    """

    def __init__(self, kind: int) -> None:
        self.clock = Clock()
        self.john = Doorman(slow=bool(kind & 2))
        self.broker = SlowBroker(*WAITS[: 5 if kind & 4 else 0])
        self.factory = make_memory_factory(
            ServerConfig(
                centrifuge_url="/connection/", history=(("kept", *KEPT),), presence=("room",),
                token_secret=(SECRET,), rate=(100, 1_000_000) if kind & 8 else None,
            ),
            authorizer=self.john, broker=self.broker, clock=self.clock,
        )  # fmt: skip
        self.answer_all()  # what the server asks for itself
        query = "?facility=kept&subscribe-user&subscribe-broadcast" if kind & 16 else ""
        self.client: CentrifugeClient = connect_centrifuge(
            self.factory, URL + query, protobuf=bool(kind & 1)
        )
        self._ahead: list[tuple[str, dict[str, Any]]] | None = None

    # What the client says

    def say(self, name: str, **request: Any) -> None:
        if self._ahead is not None:
            self._ahead.append((name, request))
        elif self.client.websocket.open:
            self.client.send(name, **request)

    def hold(self, amount: int) -> None:
        """Collect what follows, for one frame."""
        self._ahead = self._ahead or []

    def release(self, amount: int = 0) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead and self.client.websocket.open:
            self.client.send_all(*ahead)

    def subscribe(self, amount: int) -> None:
        request: dict[str, Any] = {"channel": CHANNELS[amount % len(CHANNELS)]}
        if amount & 16:
            request |= {"recover": True, "offset": amount & 7, "epoch": "1" if amount & 8 else ""}
        if amount & 32:
            request["flag"] = 2
        if amount & 64:
            tokens = _tokens(request["channel"])
            request["token"] = tokens[amount % len(tokens)]
        if amount & 128:
            request |= {"join_leave": True, "positioned": True, "type": int(amount > 250)}
        self.say("subscribe", **request)

    def named(name: str, **more: Any) -> Callable[[Any, int], None]:  # noqa: N805
        def send(self: Any, amount: int) -> None:
            self.say(name, channel=CHANNELS[amount % len(CHANNELS)], **more)

        return send

    unsubscribe, publish = named("unsubscribe"), named("publish", data={"a": [1]})
    empty, presence = named("publish"), named("presence")
    stats, page = named("presence_stats"), named("history", limit=-1)
    back = named("history", limit=2, reverse=True, since={"offset": 3, "epoch": "1"})

    def refresh(self, amount: int) -> None:
        tokens = _tokens(CHANNELS[amount % len(CHANNELS)])
        self.say("refresh", token=tokens[amount % len(tokens)])

    def sub_refresh(self, amount: int) -> None:
        channel = CHANNELS[amount % len(CHANNELS)]
        tokens = _tokens(channel)
        self.say("sub_refresh", channel=channel, token=tokens[amount % len(tokens)])

    def rare(self, amount: int) -> None:
        """What ends a connection, or is not there."""
        rare: tuple[tuple[str, dict[str, Any]], ...] = (
            ("rpc", {"method": "m", "data": 1}), ("send", {"data": 1}), ("ping", {}),
            ("connect", {}), ("subscribe", {}), ("refresh", {}),
        )  # fmt: skip
        name, request = rare[amount % len(rare)] if amount > 240 else rare[0]
        self.say(name, **request)

    # What happens

    def wait(self, amount: int) -> None:
        self.clock.advance(amount / 16)

    def answer(self, amount: int) -> None:
        """One of those that wait is answered."""
        if amount % 6 < 5:
            name = WAITS[amount % 6]
            if name in self.broker.waiting:
                self.broker.answer(name)
        else:
            self.john.answer()

    def answer_all(self) -> None:
        for _ in range(200):
            waiting = bool(self.john.waiting) or any(self.broker.waiting.values())
            if not waiting:
                break
            self.john.answer()
            for name in self.broker.waiting:
                self.broker.answer(name)

    def hear(self, amount: int) -> None:
        names = (b"broadcast:a", b"broadcast:kept", b"user:john:kept", b"group:staff:kept")
        if self.broker.available:
            self.broker.publish_elsewhere([names[amount % 4]], b"%d" % amount)

    def outage(self, amount: int) -> None:
        if self.broker.available:
            self.broker.lose_connection()
        else:
            self.broker.restore()

    def take_away(self, amount: int) -> None:
        if self.broker.available:
            payload = disconnection(**TARGETS[amount % len(TARGETS)]).payload
            self.broker.publish_elsewhere([f"ctl:{CONTROL_NAME}".encode()], payload)

    def stop_reading(self, amount: int) -> None:
        self.client.websocket._server.pauseProducing()

    def read_again(self, amount: int) -> None:
        self.client.websocket._server.resumeProducing()

    # The end

    def judge(self) -> int:
        """Let all that waits be answered, and check the answers. Return their number."""
        client = self.client
        self.release()
        if not self.broker.available:
            self.broker.restore()
        self.read_again(0)
        for _ in range(8):
            self.answer_all()
            self.clock.advance(1)
        numbers = list(client.answers)
        assert numbers == sorted(numbers), numbers
        if client.websocket.open and not client.error:
            assert numbers == list(range(1, client._number + 1)), (numbers, client._sent)
        client.lose_connection()
        self.answer_all()
        self.clock.pump([1.0] * 40)
        server = self.factory.session_server
        assert not server.sessions and not server.opening
        assert not self.broker.hub.channels, self.broker.hub.channels
        assert not server.revocations._index.size
        return len(numbers)


STEPS: tuple[Callable[[Conversation, int], None], ...] = (
    *[Conversation.subscribe] * 4, *[Conversation.publish] * 2, *[Conversation.unsubscribe] * 2,
    *[Conversation.answer] * 3, *[Conversation.hear] * 3,
    Conversation.empty, Conversation.presence, Conversation.stats, Conversation.page,
    Conversation.back, Conversation.refresh, Conversation.sub_refresh, Conversation.rare,
    Conversation.hold, Conversation.release, Conversation.wait, Conversation.outage,
    Conversation.take_away, Conversation.stop_reading, Conversation.read_again,
)  # fmt: skip


def conversation(data: bytes) -> int:
    """Have a conversation. Return the number of answers. The first byte is its ``kind``."""
    gc.freeze()  # what is there already need not be searched
    try:
        with no_exception_logged(TimeoutError):  # of an authorizer that did not answer
            answers = _conversation(data)
            gc.collect()  # a failure that nobody took is logged by then
    finally:
        gc.unfreeze()
    return answers


def _conversation(data: bytes) -> int:
    it = Conversation(data[0] if data else 0)
    steps = data[1 : 1 + 2 * MOST_STEPS]
    for place in range(0, len(steps) - 1, 2):
        STEPS[steps[place] % len(STEPS)](it, steps[place + 1])
    return it.judge()

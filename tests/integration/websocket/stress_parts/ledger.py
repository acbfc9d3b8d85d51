"""What each client must have received, told from all messages in Redis' order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.integration.websocket.stress_parts.visitors import EVER, Own, Visitor
from tests.support.stories import Message
from ws4redis_tx.core.limits import DROP_OLDEST
from ws4redis_tx.delivery.queues import MESSAGE_COST
from ws4redis_tx.websocket.frames import server_frame


class Ledger:
    """All messages, in Redis' order, and what follows for each client."""

    def __init__(self, history: Sequence[Message]) -> None:
        self.history = history
        self._numbers: dict[bytes, list[int]] = {}
        self._known = 0
        self._on: dict[bytes, list[int]] = {}

    def on(self, channel: bytes) -> list[int]:
        """The numbers of the messages on ``channel``."""
        self._read()
        return self._on.get(channel, [])

    def _read(self) -> None:
        for message in self.history[self._known :]:
            self._numbers.setdefault(message.payload, []).append(message.number)
            self._on.setdefault(message.channel, []).append(message.number)
        self._known = len(self.history)

    def heard(self, visitor: Visitor, channel: bytes) -> int:
        """The number of the last message on ``channel`` that it has received; -1 for none."""
        self._read()
        numbers = [n for each in visitor.messages for n in self._numbers.get(each, ())]
        return max((n for n in numbers if self.history[n].channel == channel), default=-1)

    def bounds(self, visitor: Visitor, completed: int, arrived: int) -> tuple[int, int]:
        """How many messages a client was given that read them all, as long as it was there."""
        least = most = 0
        for interval in visitor.intervals:
            for n in self.on(interval.channel):
                if not self._is_hidden(visitor, n):
                    least += interval.must_from <= n < min(interval.must_until, completed)
                    most += interval.may_from <= n < min(interval.may_until, arrived)
        if visitor.live_at is None:
            least = 0
        return least, most + len(visitor.own) + len(visitor.kind.channels)

    def check(self, visitor: Visitor, *, complete: bool) -> None:
        """Compare what ``visitor`` has received with what it had to. ``complete``: nothing is on
        its way any more.
        """
        self._read()
        stream: list[int | Own] = []
        own = {each.payload: each for each in visitor.own}
        counts: Counter[bytes] = Counter()
        for payload in visitor.messages:
            sent = [own[payload]] if payload in own else self._numbers.get(payload, [])
            count = counts[payload]
            assert count < len(sent), f"{visitor}: {payload[:40]!r} came {count + 1} times"
            counts[payload] += 1
            stream.append(sent[count])
        problems = []
        for replayed in range(len(visitor.kind.channels) + 1):
            problem = self._problem(visitor, stream, replayed, complete)
            if problem is None:
                return
            problems.append(problem)
        raise AssertionError(
            f"{visitor}: {problems}. It has received {_shown(stream)}; {visitor.intervals}"
        )

    def _problem(
        self, visitor: Visitor, stream: Sequence[int | Own], replayed: int, complete: bool
    ) -> str | None:
        """What is wrong with its stream, if that many messages of it were persisted ones."""
        for index, one in enumerate(stream[:replayed]):
            if isinstance(one, Own) or visitor.opened_at is None:
                return f"{one} is no persisted message"
            message = self.history[one]
            others = [self.history[other].channel for other in stream[:index]]  # type: ignore[index]
            # A later one is among those that wait for the end of the replay, unless it was dropped.
            limit = visitor.live_at or EVER if visitor.lossy else visitor.opened_at
            if (
                not message.persisted
                or message.channel not in visitor.kind.channels
                or message.channel in others
                or one >= limit
            ):
                return f"{one} is not to be replayed"
        return (
            self._order(visitor, stream[replayed:])
            or self._gaps(visitor, stream, replayed, complete)
            or (self._replay(visitor, stream[replayed:]) if complete else None)
        )

    def _order(self, visitor: Visitor, live: Sequence[int | Own]) -> str | None:
        last, last_own = -1, -1
        for one in live:
            if isinstance(one, Own):
                position = visitor.own.index(one)
                if position <= last_own:
                    return f"{one} came after a later one"
                if position != last_own + 1 and not visitor.lossy:
                    return f"a message of its own before {one} is missing"
                if last >= one.before:
                    return f"{one} came after {last}"
                last_own = position
                continue
            if one <= last:
                return f"{one} came after {last}"
            last = one
            if last_own >= 0 and visitor.own[last_own].after > one:
                return f"{one} came after {visitor.own[last_own]}"
            message = self.history[one]
            intervals = [each for each in visitor.intervals if each.channel == message.channel]
            if not any(each.may_from <= one < each.may_until for each in intervals):
                return f"{one} came while it did not listen"
            if self._is_hidden(visitor, one):
                return f"{one} came back to its sender"
        return None

    def _gaps(
        self, visitor: Visitor, stream: Sequence[int | Own], replayed: int, complete: bool
    ) -> str | None:
        """Each channel without a gap; or all that is missing was dropped, and counted."""
        live = {one for one in stream[replayed:] if not isinstance(one, Own)}
        last = max(live, default=-1)
        # Of the end of a stream that was cut off, nothing is said.
        stays = (visitor.there or visitor.stayed) and not visitor.broken
        end = EVER if complete and stays else last
        if complete and visitor.code in (1000, visitor.closed_by) and visitor.closed_at:
            end = max(end, visitor.closed_at)
        must = may = 0
        missing = []
        for interval in visitor.intervals:
            numbers = [n for n in self.on(interval.channel) if not self._is_hidden(visitor, n)]
            possible = [n for n in numbers if interval.may_from <= n < interval.may_until]
            heard = [n for n in possible if n in live]
            begin = min([interval.must_from, *(n for n in heard if n >= interval.gapless_from)])
            until = max([interval.must_until, *(n + 1 for n in heard[-1:])])
            missing += [n for n in numbers if begin <= n < min(until, end) and n not in live]
            must += sum(begin <= n < until for n in numbers)
            may += len(possible)
        own = sum(isinstance(one, Own) for one in stream)
        if not visitor.lossy:
            if end == EVER and own < len(visitor.own):
                return f"of {len(visitor.own)} messages of its own it has {own}"
            return f"{missing} are missing" if missing else None
        if end == EVER and visitor.bound and (problem := self._dropped(visitor, live, missing)):
            return problem
        if complete and visitor.closing is not None and end == EVER:
            there = len(live) + own + visitor.closing.dropped
            if not must + len(visitor.own) <= there <= may + len(visitor.own):
                return (
                    f"{visitor.closing.dropped} are said to be dropped, and of {must} to {may} "
                    f"there are {len(live)}, and {own} of {len(visitor.own)} of its own"
                )
        return None

    def _dropped(self, visitor: Visitor, live: set[int], missing: Sequence[int]) -> str | None:
        """What should not have been dropped."""
        for interval in visitor.intervals:
            numbers = [n for n in self.on(interval.channel) if not self._is_hidden(visitor, n)]
            newest = [n for n in numbers[-1:] if n >= interval.must_from]
            if interval.may_until == EVER and not live.issuperset(newest):
                return f"{newest} is the newest on its channel, and missing"
        if visitor.policy != DROP_OLDEST or visitor.deflates or visitor.own:
            return None
        # A message is dropped when those that came after it fill the queue.
        size = 0
        for number in sorted([*live, *missing], reverse=True):
            size += MESSAGE_COST + len(server_frame(self.history[number].payload))
            if number in live:
                continue
            if size <= visitor.bound:
                return f"{number} was dropped, and after it came {size} bytes"
            size = EVER  # so may be all before it, as far as one can tell
        return None

    def _replay(self, visitor: Visitor, live: Sequence[int | Own]) -> str | None:
        """Whether the last persisted message of a channel is missing. Of a replay that was cut off,
        nothing is said.
        """
        if visitor.live_at is None or visitor.opened_at is None or visitor.lossy:
            return None
        if not visitor.there and (not visitor.messages or (visitor.broken and not live)):
            return None
        for channel in visitor.kind.channels:
            persisted = [n for n in self.on(channel) if self.history[n].persisted]
            before = [n for n in persisted if n < visitor.opened_at]
            meanwhile = [n for n in persisted if visitor.opened_at <= n < visitor.live_at]
            payloads = [self.history[n].payload for n in before[-1:]]
            if payloads and not meanwhile and payloads[0] not in visitor.messages:
                return f"{before[-1]} was persisted, and not replayed"
        return None

    def _is_hidden(self, visitor: Visitor, number: int) -> bool:
        return not visitor.kind.echo and self.history[number].payload in visitor.said_payloads


def _shown(stream: Sequence[int | Own]) -> str:
    return " ".join(str(each) if isinstance(each, int) else "own" for each in stream)

"""Random schedules for a crowd of clients. Each is made of its seed alone, before anything runs."""

from __future__ import annotations

import random
from typing import Any

from tests.integration.websocket.stress_parts.visitors import Kind
from ws4redis_tx.core.limits import CLOSE, DROP_OLDEST, LATEST

A, B = b"broadcast:f", b"user:u:f"
# Channels of few: each has no listener, one, or some.
FEW = [b"broadcast:few%d" % number for number in range(4)]

Step = tuple[Any, ...]
"""The name of a method of the crowd, and its arguments."""

THEMES: dict[str, list[dict[str, Any]]] = {
    # The servers of each theme, all with the same broker.
    "plain": [{}],
    "mixed": [
        {},
        {"max_pending": 20_000},
        {"max_pending": 20_000, "slow_reader": DROP_OLDEST},
        {"max_pending": 20_000, "slow_reader": LATEST},
        {"hooks": True},
        {"hooks": True, "max_pending": 20_000, "slow_reader": DROP_OLDEST},
    ],
    "tight": [
        {"max_pending_total": 60_000, "slow_reader": policy}
        for policy in (CLOSE, DROP_OLDEST, LATEST)
    ],
}
THEMES["meddled"] = THEMES["mixed"]


class Schedule:
    """The steps of one seed."""

    def __init__(self, theme: str, seed: int, *, length: int) -> None:
        self.seed = f"{theme} {seed}"
        self.theme = theme
        self._chance = random.Random(self.seed)
        # Nothing but departures and arrivals disturbs a large crowd.
        self._calm = theme == "plain" and self._chance.random() < 0.6
        self._crowd = 150 if self._calm else self._chance.choice([6, 40, 100, 150])
        self.tick = self._chance.choice([0.0015, 0.005, 0.005, 0.005])
        self._narrow = 0.0 if self._calm else self._chance.choice([0.1, 0.5])
        self._joined = 0
        self.steps: list[Step] = []
        for _ in range(self._crowd):
            self.steps.append(self._join())
            if theme == "meddled" and self._chance.random() < max(0.05, 3 / self._crowd):
                self.steps.append(self._meddler())
        self.steps.append(("settle",))
        for _ in range(length):
            self.steps += self._some()
        self.steps.append(("settle",))

    def _some(self) -> list[Step]:
        chance = self._chance
        match chance.randrange(20):
            case 0:
                return [("settle",)]
            case 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10:
                # A fan-out, and something else in the middle of it.
                steps = [*self._published(), ("arrive", chance.random() < 0.7)]
                for _ in range(chance.randint(2, 8)):
                    steps += [self._amid(), ("slices", chance.choice([0, 0, 1]))]
                return steps
            case 11 | 12 | 13:
                return self._published()
            case 14 | 15:
                return [("arrive", chance.random() < 0.7), ("slices", chance.randint(1, 9))]
            case 16 | 17:
                return [("commands",), ("io",), ("commands",)]
            case _:
                return [self._amid()]

    def _published(self) -> list[Step]:
        chance = self._chance
        number = chance.choice([1, 1, 1, 2, 3, 10])
        channels = chance.choice([[A], [A], [B], [A, B], [A, B, *FEW], FEW])
        largest = chance.choice([10, 10, 200, 2000, 9000])
        if chance.random() < 0.05:
            number, largest = 1, 90_000
        return [
            (
                "publish",
                chance.choice(channels),
                chance.choice([0, 118, 119, 120, chance.randint(0, largest)]),
                chance.random() < 0.2,
                chance.random() < 0.4,
            )
            for _ in range(number)
        ]

    def _amid(self) -> Step:
        """Something that may happen in the middle of a fan-out."""
        chance = self._chance
        if self._calm and chance.random() < 0.5:
            return self._change()
        if chance.random() < 0.25:
            return ("io",)
        if chance.random() < 0.15:
            return self._join()
        return self._at_once()

    def _change(self) -> Step:
        """Somebody leaves or joins a channel."""
        who = self._chance.randrange(10_000)
        match self._chance.randrange(6):
            case 0:
                return ("close", who, 4000)
            case 1 | 2 | 3:
                return ("unsubscribe", who, self._chance.choice([A, A, B]))
            case _:
                return ("subscribe", who, self._chance.choice([A, B]))

    def _at_once(self) -> Step:
        """Something that takes no turn of the reactor: it may happen within a delivery."""
        chance = self._chance
        who = chance.randrange(10_000)
        match chance.randrange(17):
            case 0 | 1:
                return ("mode", who, chance.choice(["reads", "reads", "sips", "waits"]))
            case 2:
                return ("read", who, chance.choice([1, 50, 1 << 16]))
            case 3:
                return ("leave", who, chance.choice(["reset", "gone", "half", "close", "close"]))
            case 4:
                return ("close", who, chance.choice([1000, 4000]))
            case 5 | 6:
                return ("send", who, chance.choice([0, 200, 3000]))
            case 7 | 8 | 9:
                return ("say", who, chance.choice([0, 200, 3000]))
            case 10:
                return ("ping", who)
            case 11:
                return ("check", who)
            case 12 | 13 | 14:
                return ("subscribe", who, chance.choice([A, A, B, B, *FEW]))
            case _:
                return ("unsubscribe", who, chance.choice([A, A, B, B, *FEW]))

    def _join(self) -> Step:
        chance = self._chance
        channels = chance.choice([(A,), (A,), (A, B), (A, B), (B,), ()])
        speaks = chance.choice([*channels, None]) if chance.random() < 0.5 else None
        narrow = chance.random() < self._narrow
        socket = chance.choice(["unix", "unix", "unix", "tcp"])
        if self.theme == "mixed" and chance.random() < 0.05:
            socket = "tls"
        self._joined += 1
        return (
            "join",
            Kind(
                server=chance.randrange(len(THEMES[self.theme])),
                channels=channels,
                socket=socket,
                choppy=chance.random() < (0.3 if narrow else 0.0 if self._calm else 0.05),
                buffers=4096 if narrow else 1 << 18,
                high_water=chance.choice([300, 1000, 8000]) if narrow else 1 << 16,
                speaks=speaks,
                echo=chance.random() < 0.3,
                deflates=self.theme != "plain" and chance.random() < 0.2,
            ),
            chance.choice(["waits", "waits", "sips", "reads"]) if narrow else "reads",
        )

    def _meddler(self) -> Step:
        chance = self._chance
        channel = chance.choice([A, B])
        steps: list[Step | None] = [("fail",), None]
        for _ in range(20):
            steps += [None, self._at_once()]
            if chance.random() < 0.3:
                steps.append(("unsubscribe", chance.randrange(10_000), channel))
        chance.shuffle(steps)
        return ("meddle", channel, steps)

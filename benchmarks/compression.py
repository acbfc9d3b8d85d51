"""A broadcast that is compressed once, compared with an uncompressed one: CPU per delivery.

It sends JSON messages to 2,000 clients that all offer permessage-deflate, 20 times a second, or
when all clients have the previous message if that is later.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from functools import partial

from benchmarks.driving import Clock
from benchmarks.load import Load
from benchmarks.report import Figure, Report, Scale, main
from benchmarks.servers import Site, Twistd

RATE = 20.0
SIZES = (128, 1024)
_OFFER = ("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",)
_WORDS = ("hello", "price", "update", "grid", "order", "sold", "the", "a", "of", "and")


def payload(number: int, size: int) -> bytes:
    """The start of a JSON message such as applications send."""
    chance = random.Random(number)
    rows: list[dict[str, object]] = []
    while len(message := json.dumps({"number": number, "rows": rows}).encode()) < size:
        text = " ".join(chance.choices(_WORDS, k=8))
        rows.append({"id": chance.randrange(10**6), "text": text, "ok": chance.random() < 0.5})
    return message[:size]


class Compressing:
    """A server and its clients, which use compression if there are ``options``."""

    def __init__(self, number: int, site: Site, *options: str) -> None:
        self.server = Twistd(*options, site=site)
        self.load = Load()
        self._number = number
        self._compresses = bool(options)
        self.load.open(
            self.server.port,
            self.server.targets(),
            number,
            cookies=self.server.cookies,
            headers=_OFFER,
        )
        self.fan_out([payload(0, 1024)] * 20)  # warm up

    def fan_out(self, messages: Sequence[bytes]) -> dict[str, float]:
        """Publish them at ``RATE``. Return the cost of a delivery and the bytes of its payload."""
        self.load.start(ordered=False)
        clock = Clock(self.server)
        begun = time.monotonic()
        for sent, message in enumerate(messages):
            time.sleep(max(0.0, begun + sent / RATE - time.monotonic()))
            self.load.total(
                sent * self._number
            )  # otherwise messages that arrive together are joined
            self.server.publish([message])
        deliveries = len(messages) * self._number
        heard = self.load.total(deliveries)
        cpu, _ = clock.per(deliveries)
        heard.check(len(messages))
        if heard.compressed != deliveries * self._compresses:
            raise AssertionError(f"{heard.compressed} of {deliveries} deliveries were compressed.")
        return {"cpu": cpu, "bytes": heard.bytes / deliveries}

    def end(self) -> None:
        self.load.end()
        self.server.end()


def run(scale: Scale) -> Report:
    number, seconds = scale.pick(2000, 200), scale.pick(5, 1)
    report = Report("compression", scale, clients=number, messages_a_second=RATE)
    with Site(number) as site:
        plain = Compressing(number, site)
        compressed = Compressing(number, site, "--compression")
        try:
            for size in SIZES:
                messages = [payload(each, size) for each in range(int(seconds * RATE))]
                found = report.interleave(
                    {
                        f"{size} bytes, uncompressed": partial(plain.fan_out, messages),
                        f"{size} bytes, compressed": partial(compressed.fan_out, messages),
                    }
                )
                before, after = (
                    Figure(name, "µs/delivery", values["cpu"]) for name, values in found.items()
                )
                report.add(before, after)
                name = f"{size} bytes, compressed"
                report.add(Figure(f"{name}, payload", "bytes", found[name]["bytes"]))
                report.goal(
                    f"compression, {size} bytes: ratio to uncompressed", after.over(before), 1.15
                )
        finally:
            plain.end()
            compressed.end()
    return report


if __name__ == "__main__":
    main(run, __doc__)

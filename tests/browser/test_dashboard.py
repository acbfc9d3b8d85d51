"""``examples/dashboard``: a live plot. A slow reader sees the newest reading."""

from __future__ import annotations

import json
import math
import random
from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.support.browsers import start_browser
from tests.support.cutting import CuttingProxy
from tests.support.example_sites import ExampleTestCase
from tests.support.firefox import start_firefox
from tests.support.screenshots import keep
from tests.support.sizes import FULL

LIVE = "document.querySelector('[data-status]').dataset.status === 'live'"
COUNTS = "document.querySelector('[data-counts]').textContent"
POINTS = "document.querySelector('.line').getAttribute('d').split('L').length"
READINGS = 600
PADDING = "x" * 16_000


def reading(number: int, wind: float) -> str:
    """So large that sockets do not hold all of them."""
    values = {"wind": wind, "power": 2.0, "rotor": 12.0}
    return json.dumps({"number": number, "at": number / 40, "values": values, "pad": PADDING})


# The same in each run: the mean, the size of the wave, its speed
WAVES = ((9.0, 2.5, 0.05), (2.2, 0.9, 0.031), (14.0, 2.0, 0.043))


def wave(mean: float, size: float, speed: float) -> list[float]:
    chance = random.Random(18)
    gust, values = 0.0, []
    for number in range(240):
        gust = 0.9 * gust + chance.gauss(0, size / 12)
        values.append(round(mean + size * math.sin(number * speed) + gust, 2))
    return values


class DashboardTestCase(ExampleTestCase):
    example = settings = "dashboard"


class Plots:
    """Mixed into tests of one browser."""

    @inlineCallbacks
    def test_readings_move_the_plot(self) -> Any:
        port = yield self.serve().site_port()
        page = yield self.visit(f"http://127.0.0.1:{port}/")
        yield page.until(f"{LIVE} && {POINTS} > 40")
        for title in (yield page.texts("[data-value]")):
            self.assertRegex(title, r"^\d+\.\d$")
        yield page.click("[data-pause]")
        yield page.run("new Promise((done) => requestAnimationFrame(done)).then(() => 0)")
        before = yield page.run(COUNTS)
        self.assertRegex(before, r"^Reading \d+: \d+ received$")
        yield page.run(f"({READ_MORE})")
        self.assertEqual((yield page.run(COUNTS)), before)
        yield page.click("[data-pause]")
        yield page.until(f"{COUNTS} !== {json.dumps(before)}")

    @inlineCallbacks
    def test_a_slow_reader_sees_the_newest(self) -> Any:
        port = yield self.serve(READINGS_PER_SECOND="0").site_port()
        proxy = CuttingProxy(port, [])
        proxy.narrow = True
        slow = yield proxy.start(self)
        page = yield self.visit(f"http://127.0.0.1:{slow}/")
        yield page.until(LIVE)
        self.publish(reading(1, 5.0))
        yield page.until(f"{COUNTS}.startsWith('Reading 1:')")
        proxy.stall()
        for number in range(2, READINGS):
            self.publish(reading(number, 5.0))
        self.publish(reading(READINGS, 11.25))
        proxy.flow_again()
        yield page.until(f"{COUNTS}.startsWith('Reading {READINGS}:')")
        self.assertEqual((yield page.texts("[data-value]"))[0], "11.3")
        counts = yield page.run(COUNTS)
        received, passed_over = (
            int(word) for word in counts.replace(",", "").split() if word.isdigit()
        )
        self.assertEqual(received + passed_over, READINGS)
        self.assertGreater(passed_over, READINGS // 4)

    def publish(self, message: str) -> None:
        self.redis.command("PUBLISH", "broadcast:readings", message)


# A promise that is kept when some readings have come
READ_MORE = """new Promise((done) => {
    const socket = new WebSocket(sockets.at(-1).url);
    let number = 0;
    socket.onmessage = () => { number += 1; if (number === 5) { socket.close(); done(0); } };
})"""


class ChromiumTests(Plots, DashboardTestCase):
    start_browser = start_browser

    @inlineCallbacks
    def test_it_looks_well(self) -> Any:
        port = yield self.serve(READINGS_PER_SECOND="0").site_port()
        page = yield self.visit(f"http://127.0.0.1:{port}/")
        yield page.until(LIVE)
        yield self.assert_faultless(page)
        values = zip(*(wave(*each) for each in WAVES), strict=True)
        for number, (wind, power, rotor) in enumerate(values, 1):
            measured = {"wind": wind, "power": power, "rotor": rotor}
            self.publish(json.dumps({"number": number, "at": number / 4, "values": measured}))
        yield page.until(f"{COUNTS}.startsWith('Reading 240:')")
        yield self.assert_faultless(page)
        yield page.prefer("light")
        yield page.resize(960, 800)
        keep("dashboard", (yield page.screenshot()))


class FirefoxTests(Plots, DashboardTestCase):
    skip = None if FULL else "make test-all runs it"
    start_browser = start_firefox

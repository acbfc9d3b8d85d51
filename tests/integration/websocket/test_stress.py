"""Whatever happens in the middle of fan-outs, each client's stream is what the model says.

Narrow sockets, pauses, closes, disconnects and joins, echo, several channels, all policies for slow
readers: random schedules of them, with fixed seeds. ``WS4REDIS_FULL=1`` takes more seeds, and
``WS4REDIS_SEED=17`` only this one.
"""

from __future__ import annotations

import os
import ssl
from collections import Counter
from typing import Any

from cryptography import x509
from twisted.internet.defer import inlineCallbacks
from twisted.internet.ssl import PrivateCertificate
from twisted.trial.unittest import TestCase

from tests.integration.websocket.stress_parts.crowd import Crowd, Deliberate
from tests.integration.websocket.stress_parts.schedules import Schedule
from tests.support.certificates import make_certificate
from tests.support.sizes import SEEDS

LENGTH = 80
"""Steps of a schedule; one in the middle of a fan-out counts with all that follows in it."""

AMID = ["join", "leave", "close", "mode", "send", "say", "subscribe", "unsubscribe", "io"]


class StreamTests(TestCase):
    """Each client gets byte for byte what the model says, and the counts at its end are exact."""

    timeout = 300 if SEEDS < 10 else 3600

    @inlineCallbacks
    def check(self, theme: str, *happens: str) -> Any:
        """Every client's stream with every seed. ``happens``: what must not be left out."""
        public, both = make_certificate(x509.DNSName("localhost"))
        certificates = (
            PrivateCertificate.loadPEM(both).options(),
            ssl.create_default_context(cadata=public),
        )
        seed = os.environ.get("WS4REDIS_SEED")
        happened: Counter[str] = Counter()
        for number in range(SEEDS) if seed is None else [int(seed)]:
            crowd = Crowd(Schedule(theme, number, length=LENGTH), certificates)
            try:
                yield crowd.run()
            except Exception as error:
                yield crowd.abandon()
                raise AssertionError(
                    f"Seed {number}: {error}\nTo repeat it: WS4REDIS_SEED={number} python -m "
                    f"pytest tests/integration/websocket/test_stress.py -k {theme}"
                ) from error
            self.assertEqual(len(self.flushLoggedErrors(Deliberate)), crowd.failures)
            happened += crowd.happened
        if seed is None:
            always = ["paused", "left for certain", *(f"{each} amid" for each in AMID)]
            self.assertEqual([each for each in [*always, *happens] if not happened[each]], [])

    def test_plain(self) -> Any:
        """One server, and nothing that keeps it from sending at once."""
        return self.check("plain", "closed with 4000", "closed with None")

    def test_mixed(self) -> Any:
        """Servers with and without hooks, compression, TLS, and too little room for who waits."""
        return self.check("mixed", "dropped", "closed with 1013")

    def test_tight(self) -> Any:
        """All clients together hold too much: some give way in the middle of another's delivery."""
        return self.check("tight", "dropped", "closed with 1013")

    def test_meddled(self) -> Any:
        """Listeners of the application's own close and send to others while they are called."""
        within = ["leave", "close", "send", "subscribe", "unsubscribe", "fail"]
        return self.check("meddled", "dropped", *(f"{each} within" for each in within))

"""The reference server's conversations, played against ``twistd ws4redis`` with a real Redis."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from tests.projects.centrifuge.settings import CHANNELS, WS4REDIS_TOKEN_SECRET
from tests.support import ROOT
from tests.support.programs import TWISTD, Program
from tests.support.redis import RedisServer
from ws4redis_tx.twistd.embedded_redis import free_port

FOLDER = ROOT / "tests" / "projects" / "centrifuge"
CHECK = FOLDER / "centrifuge-check"
PLAYED = 600  # seconds at most

NOT_HAD = re.compile(
    r"no channel of the kind (ask|cache)|no way to (subscribe|unsubscribe|disconnect|refresh) .*"
    r"|no way to publish channel\+data\+tags"
)
"""The reasons for which a case may be skipped: kinds of channels, and actions of the reference
server's API, that we do not have.
"""

OURS = (
    # A foreign Origin's POST is a 403.
    "http_stream: allowed Origin",
    # Such bytes are wrapped for a client in JSON, and it is not closed.
    "protobuf: bytes that are not JSON: a protobuf client, then a JSON client hears them",
)
"""Cases where our answer is another one, on purpose."""


class CasesTests(TestCase):
    timeout = PLAYED + 60

    @inlineCallbacks
    def setUp(self) -> Any:
        redis = RedisServer()
        self.addCleanup(redis.stop)
        self.variables = {
            "DJANGO_SETTINGS_MODULE": "tests.projects.centrifuge.settings",
            "WS4REDIS_CONNECTION": str(redis.address),
        }
        self.port, self.quick = free_port(), free_port()
        servers = [
            Program(
                TWISTD, "-n", "--pidfile=", "ws4redis",
                f"--listen=tcp:{self.port}:interface=127.0.0.1", **self.variables,
            ),
            Program(
                TWISTD, "-n", "--pidfile=", "-y", str(FOLDER / "quick.tac"),
                QUICK_PORT=str(self.quick), **self.variables,
            ),
        ]  # fmt: skip
        for each, sign in zip(servers, ("Ready: ", "The quick one is ready"), strict=True):
            self.addCleanup(each.end)
            yield each.wait_for(sign)
        self.servers = servers

    @inlineCallbacks
    def test_every_case_is_answered_as_the_reference_server_does(self) -> Any:
        folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(shutil.rmtree, folder)
        names = Path(folder) / "channels.json"
        names.write_text(json.dumps(CHANNELS))
        url = "ws://127.0.0.1:{}/connection/websocket"
        check = Program(
            sys.executable, str(CHECK), "--url", url.format(self.port), "--quick-url",
            url.format(self.quick), "--channels", str(names), "--jobs", "8",
            "--secret", WS4REDIS_TOKEN_SECRET,
            "--without", "|".join(f"^{re.escape(name)}" for name in OURS), "--publish-command",
            f"{sys.executable} -m tests.projects.centrifuge.publish {{channel}} {{data}}",
            **self.variables,
        )  # fmt: skip
        yield check.ended.addTimeout(PLAYED, reactor, lambda *_: check.end())
        self.assertEqual(check.status, 0, check.printed)
        skipped = re.findall(r"^skipped (.+)\n    (.+)$", check.printed, re.MULTILINE)
        wrongly = [each for each in skipped if not NOT_HAD.fullmatch(each[1])]
        self.assertEqual(sorted(name for name, _ in wrongly), sorted(OURS), wrongly)
        for server in self.servers:
            self.assertNotIn("Traceback", server.printed)

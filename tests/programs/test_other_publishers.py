"""Programs in other languages publish with a history, by what the documentation says alone."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread

from tests.support import ROOT
from tests.support.redis import RedisServer
from tests.support.servers import ServerTestCase
from ws4redis_tx.core.positions import read_position
from ws4redis_tx.testing.wire import SUBPROTOCOL, Frame, read_frame

PAGE = (ROOT / "docs" / "reference" / "history.md").read_text()


class DocumentedTests(ServerTestCase):
    """The commands of docs/reference/history.md, and its table."""

    @inlineCallbacks
    def setUp(self) -> Any:
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)
        yield self.start_server(history=(("orders", 100, 3600),))
        (block,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
        make_script, self.publish = block.replace("\\\n", " ").strip().split("\n")
        self.folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, self.folder)
        make_script = make_script.replace("python", shlex.quote(sys.executable), 1)
        yield deferToThread(
            subprocess.run, make_script, shell=True, cwd=self.folder, check=True
        )  # fmt: skip

    def run_redis_cli(self, message: str) -> None:
        """Run the page's command; without ``redis-cli``, do what it does."""
        command = shlex.split(self.publish.replace('"hello"', shlex.quote(message)))
        program = shutil.which("redis-cli")
        if program is not None:
            command[0:1] = [program, "-p", str(self.redis.port)]
            done = subprocess.run(command, cwd=self.folder, check=True, capture_output=True)
            assert b"ERR" not in done.stdout, done.stdout
            return
        script, *rest = command[command.index("--eval") + 1 :]
        comma = rest.index(",")
        self.redis.command(
            "EVAL", (self.folder / script).read_bytes(), comma, *rest[:comma], *rest[comma + 1 :]
        )

    @inlineCallbacks
    def resume(self, since: str) -> Any:
        """Fire with a client and its first frame."""
        client = yield self.open(
            f"orders?subscribe-broadcast&since={since}", protocols=[SUBPROTOCOL]
        )
        return client, read_frame((yield client.next()).encode())

    @inlineCallbacks
    def message(self, client: Any) -> Any:
        frame = Frame("")
        while frame.message is None:
            frame = read_frame((yield client.next()).encode())
        return frame

    @inlineCallbacks
    def test_its_messages_arrive_with_positions_and_can_be_resumed_after(self) -> Any:
        client, first = yield self.resume("")
        yield deferToThread(self.run_redis_cli, "one")
        live = yield self.message(client)
        self.assertEqual((live.message, live.replayed), (b"one", False))
        self.assertGreater(read_position(live.position), read_position(first.position))
        for message in ("two", "a b  c\n'\"ü"):
            yield deferToThread(self.run_redis_cli, message)
        late, told = yield self.resume(live.position)
        self.assertEqual(told.status["recovered"], True)
        for message in ("two", "a b  c\n'\"ü"):
            frame = yield self.message(late)
            self.assertEqual((frame.message, frame.replayed), (message.encode(), True))
        late, told = yield self.resume(first.position)
        self.assertEqual(told.status["gap"], [])

    def test_the_command_follows_the_table(self) -> None:
        rows = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", PAGE, re.MULTILINE))
        channel = "broadcast:orders"
        keys, arguments = self.publish.partition("--eval publish.lua ")[2].split(" , ")
        names = [*re.findall(r"`(.+?)`", rows["`KEYS[1]`, `KEYS[2]`"]), channel]
        names += re.findall(r"`(.+?)`", rows["four more for each channel"])
        filled = [each.replace("{P}", "").replace("{channel}", channel) for each in names]
        self.assertEqual(keys.split(), filled)
        values = shlex.split(arguments)
        for number, row in (
            (4, "`ARGV[5]`"), (5, "`ARGV[6]`"), (6, "`ARGV[7]`"),
        ):  # fmt: skip
            self.assertIn(values[number], rows[row])
        side = rows["one more for each channel"].strip("`")
        # No client publishes here.
        self.assertEqual(values[7:], ["", side.replace("{P}", "").replace("{channel}", channel)])

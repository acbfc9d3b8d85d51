"""The browser's clients stay small."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT
from tests.support.npm import node_modules

FOLDER = ROOT / "ws4redis_tx" / "static" / "js"


class ClientSizeTests(SynchronousTestCase):
    def minified(self, name: str, *options: str) -> bytes:
        packages = node_modules(Path(__file__).parent.parent / "support" / "minifier.json")
        return subprocess.run(
            [packages / ".bin" / "terser", "--compress", "--mangle", *options, "--", FOLDER / name],
            capture_output=True,
            check=True,
        ).stdout

    def test_it_is_below_two_kilobytes_when_it_is_minified_and_compressed(self) -> None:
        minified = self.minified("ws4redis.js")
        self.assertIn(b"WS4Redis", minified)
        self.assertLess(len(gzip.compress(minified, 9)), 2048)

    def test_the_module_has_at_most_2500_bytes(self) -> None:
        minified = self.minified("ws4redis.mjs", "--module")
        self.assertIn(b"ws4redis.resume", minified)
        self.assertLessEqual(len(gzip.compress(minified, 9)), 2500)

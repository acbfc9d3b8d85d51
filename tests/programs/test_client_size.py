"""The browser's client stays small."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT
from tests.support.npm import node_modules

SCRIPT = ROOT / "ws4redis_tx" / "static" / "js" / "ws4redis.js"


class ClientSizeTests(SynchronousTestCase):
    def test_it_is_below_two_kilobytes_when_it_is_minified_and_compressed(self) -> None:
        packages = node_modules(Path(__file__).parent.parent / "support" / "minifier.json")
        minified = subprocess.run(
            [packages / ".bin" / "terser", "--compress", "--mangle", "--", SCRIPT],
            capture_output=True,
            check=True,
        ).stdout
        self.assertIn(b"WS4Redis", minified)
        self.assertLess(len(gzip.compress(minified, 9)), 2048)

"""docs/operating.md: its units and commands are understood."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.django import SETTINGS, set_up_django
from tests.support.pages import DOCS, blocks_of, broken_links
from tests.support.programs import TWISTD
from ws4redis_tx.twistd.options import Options

PAGE = DOCS / "operating.md"
BLOCKS = {block.language: block.code for block in blocks_of(PAGE)}


class OperatingTests(SynchronousTestCase):
    def setUp(self) -> None:
        set_up_django()

    def test_every_block_is_known_here(self) -> None:
        self.assertEqual(list(BLOCKS), ["ini", "dockerfile"])

    def test_its_links_lead_somewhere(self) -> None:
        self.assertEqual(broken_links(PAGE), [])

    def test_the_commands_are_understood(self) -> None:
        (started,) = re.findall(r"^ExecStart=(.+)$", BLOCKS["ini"], re.M)
        contained = json.loads(BLOCKS["dockerfile"].removeprefix("CMD "))
        for words in shlex.split(started), contained:
            self.assertTrue(words[0].endswith("twistd"))
            self.assertEqual(words[1:3], ["-n", "ws4redis"])
            given = [SETTINGS if word == "mysite.settings" else word for word in words[3:]]
            Options().parseOptions(given)

    def test_systemd_takes_the_unit(self) -> None:
        if shutil.which("systemd-analyze") is None:
            self.skipTest("systemd is not installed")
        folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(shutil.rmtree, folder)
        unit = Path(folder) / "mysite.service"
        for reload in False, True:
            text = BLOCKS["ini"].replace("/srv/mysite/current/venv/bin/twistd", TWISTD)
            if reload:
                text = re.sub(r"ExecReload=.*", "ReloadSignal=SIGUSR2", text)
                text = text.replace("Type=notify", "Type=notify-reload")
            unit.write_text(text.replace("User=mysite\n", ""))
            verified = subprocess.run(
                ["systemd-analyze", "verify", "--man=no", str(unit)],
                capture_output=True,
                text=True,
                check=False,
            )
            if reload and "notify-reload" in verified.stderr:
                return  # an older systemd
            self.assertNotIn(str(unit), verified.stderr)

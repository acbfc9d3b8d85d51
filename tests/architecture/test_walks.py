"""The five walks: as short as they are said to be, and as the page shows them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.architecture.imports import ROOT
from tests.support.programs import python

# Walk → how many modules may pass control on at most.
MOST = {
    "publish → Redis": 8,
    "Redis → socket": 8,
    "logout → closed": 16,
    "--max-pending → its use": 3,
}


class WalkTests(SynchronousTestCase):
    def test_they_are_as_the_page_shows_them_and_not_longer(self) -> None:
        result = python("-m", "tests.architecture.walks")
        self.assertEqual(result.returncode, 0, result.stderr)
        walks = [line for line in result.stdout.splitlines() if "are entered" in line]
        self.assertEqual(len(walks), 5, result.stdout)
        page = (ROOT / "docs" / "architecture.md").read_text()
        for line in walks:
            self.assertIn(line, page, "run python -m tests.architecture.walks")
        for name, most in MOST.items():
            (line,) = [each for each in walks if each.startswith(name)]
            self.assertLessEqual(int(line.partition(": ")[2].split()[0]), most, line)

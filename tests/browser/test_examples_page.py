"""docs/examples.md shows the examples as they are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT
from tests.support.pages import DOCS, blocks_of

EXAMPLES = ROOT / "examples"
PAGE = DOCS / "examples.md"
# Where an example says how it is run
MODULES = ("dashboard/dashboard.py", "notifications/exports/__init__.py", "events/newsroom.py")
FILES = {
    "html+django": EXAMPLES.glob("notifications/exports/templates/exports/*.html"),
    "python": [EXAMPLES / "notifications" / "exports" / "tasks.py"],
}


def words(text: str) -> str:
    return " ".join(text.replace("\\\n", " ").split())


class PageTests(SynchronousTestCase):
    def test_every_block_is_known_here(self) -> None:
        """The examples that have them are run, so that "examples.md" has nothing of its own."""
        shown = {kind: "".join(map(words, map(_read, paths))) for kind, paths in FILES.items()}
        docstrings = [ast.get_docstring(ast.parse(_read(EXAMPLES / name))) for name in MODULES]
        shown["sh"] = "make demo " + " ".join(words(each or "") for each in docstrings)
        for block in blocks_of(PAGE):
            self.assertIn(words(block.code), shown[block.language], block.where)

    def test_every_example_is_on_the_page(self) -> None:
        text = PAGE.read_text()
        for path in EXAMPLES.iterdir():
            if path.name not in ("__init__.py", "__pycache__", "shared"):
                self.assertIn(f"examples/{path.name}", text)

    def test_every_picture_is_made_by_a_test(self) -> None:
        tests = "".join(_read(path) for path in (ROOT / "tests").rglob("test_*.py"))
        pages = [*DOCS.glob("*.md"), *DOCS.glob("tutorials/*.md"), ROOT / "README.md"]
        for page in pages:
            for name in re.findall(r"!\[[^]]*\]\(([\w/]+)\.png\)", page.read_text()):
                picture = (page.parent / name).relative_to(DOCS)
                self.assertRegex(tests, rf'keep\w*\([\w., ]*"{picture}"')


def _read(path: Path) -> str:
    return path.read_text()

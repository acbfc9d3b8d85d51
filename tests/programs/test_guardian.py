"""The rules of ``docs/security.md``, with object permissions of django-guardian."""

from __future__ import annotations

import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.support import ROOT
from tests.support.pages import DOCS, blocks_of, broken_links
from tests.support.programs import python

PAGE = DOCS / "security.md"
SETTINGS = "tests.projects.guarded.settings"
MODELS = """
from django.db import models

class Order(models.Model):
    pass
"""


class RulesTests(SynchronousTestCase):
    def test_every_block_is_known_here(self) -> None:
        self.assertEqual(PAGE.name, "security.md")
        self.assertEqual([each.file for each in blocks_of(PAGE)], ["shop/rules.py"])
        self.assertEqual(broken_links(PAGE), [])

    def test_a_permission_for_an_object_is_one_line(self) -> None:
        if find_spec("guardian") is None:
            raise SkipTest("pip install django-guardian")
        folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, folder)
        (folder / "shop").mkdir()
        (folder / "shop" / "__init__.py").touch()
        (folder / "shop" / "models.py").write_text(MODELS)
        for block in blocks_of(PAGE):
            (folder / str(block.file)).write_text(block.code)
        done = python(
            "-m", "django", "test", "tests.projects.guarded", "--settings", SETTINGS,
            DJANGO_SETTINGS_MODULE=SETTINGS, PYTHONPATH=f"{folder}:{ROOT}",
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("Ran 3 tests", done.stderr)

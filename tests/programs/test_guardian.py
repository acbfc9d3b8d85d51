"""Object permissions of django-guardian in a rule for facilities."""

from __future__ import annotations

from importlib.util import find_spec

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.support.programs import python


class GuardianTests(SynchronousTestCase):
    def test_a_permission_for_an_object_is_one_line(self) -> None:
        if find_spec("guardian") is None:
            raise SkipTest("pip install django-guardian")
        settings = "tests.projects.guarded.settings"
        done = python(
            "-W", "error", "-W", "ignore::DeprecationWarning", "-m", "django", "test",
            "tests.projects.guarded", "--settings", settings, DJANGO_SETTINGS_MODULE=settings,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("Ran 2 tests", done.stderr)

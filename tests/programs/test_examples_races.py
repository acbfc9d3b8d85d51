"""The examples when steps of several threads come in an unlucky order."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
import threading
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT, TIMEOUT
from tests.support.programs import python
from tests.support.redis import shared_redis

EXAMPLES = ROOT / "examples"
VISITORS = 4


class DashboardTests(SynchronousTestCase):
    def test_the_first_visitors_start_one_thread_that_measures(self) -> None:
        path = EXAMPLES / "dashboard" / "dashboard.py"
        spec = importlib.util.spec_from_file_location("new_dashboard", path)
        assert spec is not None and spec.loader is not None
        dashboard = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(dashboard)
        self.patch(dashboard, "RATE", 1.0)
        starts = 0
        returned = 0
        changed = threading.Condition()

        def start() -> None:
            """Take so long that each of the visitors is here, or is served."""
            nonlocal starts
            with changed:
                starts += 1
                changed.notify_all()
                self.assertTrue(changed.wait_for(lambda: starts + returned == VISITORS, TIMEOUT))

        def visit() -> None:
            nonlocal returned
            together.wait()
            dashboard.start_measuring()
            with changed:
                returned += 1
                changed.notify_all()

        def thread(**how: Any) -> Any:
            return SimpleNamespace(start=start)

        self.patch(dashboard, "threading", SimpleNamespace(Thread=thread))
        together = threading.Barrier(VISITORS)
        visitors = [threading.Thread(target=visit) for _ in range(VISITORS)]
        for each in visitors:
            each.start()
        for each in visitors:
            each.join()
        self.assertEqual((starts, returned), (1, VISITORS))


class NotificationsTests(SynchronousTestCase):
    """In each story, an older message is published after a newer one."""

    def told(self, story: str) -> Any:
        folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(shutil.rmtree, folder)
        done = python(
            *("-m", "tests.projects.late_exports", story),
            DJANGO_SETTINGS_MODULE="exports.settings",
            EXPORTS_DB=f"{folder}/exports.sqlite3",
            PYTHONPATH=f"{EXAMPLES / 'notifications'}:{ROOT}",
            WS4REDIS_CONNECTION=str(shared_redis().address),
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    def test_an_export_that_ends_while_another_one_starts_is_shown_as_ready(self) -> None:
        shown = self.told("ended-while-another-starts")
        percents = {"All customers": 0, "Stock by warehouse": 100}
        self.assertEqual(shown, {"percents": percents, "unread": 1})

    def test_what_is_read_while_it_is_told_stays_read(self) -> None:
        shown = self.told("read-while-it-is-told")
        self.assertEqual(shown, {"percents": {"Stock by warehouse": 100}, "unread": 0})

"""The guide to testing is true: its blocks are run, its names are looked up."""

from __future__ import annotations

import inspect
import io
import re
import unittest
from contextlib import redirect_stdout
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT
from tests.support.django import SETTINGS, environment, set_up_django
from tests.support.pages import DOCS, broken_links
from tests.support.programs import run_django_tests, run_pytest
from ws4redis_tx import testing

GUIDE = (ROOT / "docs" / "testing.md").read_text()


def block(heading: str) -> str:
    (found,) = re.findall(rf"^## {heading}\n.*?^```python\n(.*?)^```", GUIDE, re.M | re.S)
    return str(found)


class TextTests(SynchronousTestCase):
    def test_every_block_is_known_here(self) -> None:
        self.assertEqual(re.findall(r"^```(\w+)$", GUIDE, re.M), ["python"] * 9)

    def test_its_links_lead_somewhere(self) -> None:
        self.assertEqual(broken_links(DOCS / "testing.md"), [])

    def test_it_names_all_that_is_public(self) -> None:
        told = {"CapturedMessage", "CapturedMessages", "LiveSite", "MemoryClient", "client_frame"}
        for name in set(testing.__all__) - told:
            self.assertRegex(GUIDE, rf"\b{name}\b")

    def test_what_it_says_of_them_exists(self) -> None:
        set_up_django()
        for owner, names in (
            (testing.MemoryBroker(), "fail_next delay lose_connection restore publish_elsewhere"),
            (testing.MemoryBroker(), "available flush persisted publish get listen"),
            (testing.MemoryBroker(), "forget_elsewhere missed"),
            (testing.MemoryClient, "send close lose_connection flush position recovered gap"),
            (testing.MemoryClient, "reconnect"),
            (testing.MemoryEvents, "messages position retry lose_connection reconnect"),
            (testing.CentrifugeClient, "connected id refused close_code subscribe unsubscribe"),
            (testing.CentrifugeClient, "publish history presence ask send send_all messages"),
            (testing.CentrifugeClient, "answers_pings lose_connection reconnect"),
            (testing.CapturedMessages(), "assert_published assert_not_published messages clear"),
            (testing.CapturedMessages(), "fail_next"),
            (testing.LiveServer, "websocket_url cookie_header"),
            (testing.LiveSite, "websocket_url cookie_header"),
            (testing.ServerProcess, "url log"),
            (testing.RedisProcess, "url empty"),
        ):
            for name in names.split():
                self.assertTrue(hasattr(owner, name), name)
                self.assertIn(name, GUIDE)

    def test_signatures_are_those_of_the_code(self) -> None:
        for name, signature in re.findall(
            r"`(connect|connect_centrifuge|listen|make_memory_factory)\(([^)]+)\)`", GUIDE
        ):
            written = [each.split("=")[0] for each in re.split(r",\s+", signature) if each != "*"]
            self.assertEqual(
                [each.strip() for each in written],
                list(inspect.signature(getattr(testing, name)).parameters),
            )


class BlockTests(SynchronousTestCase):
    def run_classes(self, code: str, number: int) -> None:
        """Run the block's TestCases: ``number`` tests, which all pass."""
        names: dict[str, Any] = {"__name__": "guide"}
        exec(code, names)
        suite = unittest.TestSuite(
            unittest.defaultTestLoader.loadTestsFromTestCase(each)
            for each in names.values()
            if isinstance(each, type) and each.__module__ == "guide"
        )
        result = unittest.TestResult()
        suite.run(result)
        self.assertEqual(result.failures + result.errors, [])
        self.assertEqual(result.testsRun, number)

    def test_a_twisted_application(self) -> None:
        self.run_classes(block("A Twisted application"), 3)

    def test_clients_that_resume(self) -> None:
        self.run_classes(block("Clients that resume"), 3)

    def test_many_channels_over_one_connection(self) -> None:
        self.run_classes(block("Many channels over one connection"), 3)

    def test_trouble_on_purpose(self) -> None:
        self.run_classes(block("Trouble on purpose"), 3)

    def test_what_django_code_publishes(self) -> None:
        run_django_tests(block("What Django code publishes"))

    def test_pages_and_websockets_together(self) -> None:
        run_django_tests(block("Pages and websockets together"))

    def test_with_pytest_and_django(self) -> None:
        run_pytest(
            block("With pytest and Django"),
            *("-p", "no:twisted"),
            DJANGO_SETTINGS_MODULE=SETTINGS,
            **environment(),
        )

    def test_with_pytest(self) -> None:
        run_pytest(block("With pytest"))

    def test_with_other_test_runners(self) -> None:
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(block("With other test runners"), {})
        self.assertRegex(printed.getvalue(), r"^ws://127.0.0.1:\d+/ws/news\?subscribe-broadcast\n$")

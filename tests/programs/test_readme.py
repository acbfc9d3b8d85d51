"""The README is true: each of its blocks is run."""

from __future__ import annotations

import re
import shlex
import unittest
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from tests.support import ROOT
from tests.support.clients import open_websocket
from tests.support.django import SETTINGS, environment
from tests.support.programs import TWISTD, Program, python, twistd, write_file
from tests.support.redis import shared_redis

README = (ROOT / "README.md").read_text()


def blocks(heading: str, language: str) -> list[str]:
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", README, re.M | re.S)
    assert section, heading
    return re.findall(rf"^```{language}\n(.*?)^```", section[1], re.M | re.S)


class ReadmeTests(TestCase):
    timeout = 60

    def test_every_block_is_known_here(self) -> None:
        self.assertEqual(
            re.findall(r"^```(\w+)$", README, re.M),
            ["console", "sh", "js", "sh", "python", "js", "python", "python"],
        )

    def test_the_two_commands_are_targets_of_the_makefile(self) -> None:
        makefile = (ROOT / "Makefile").read_text()
        for target in re.findall(r"^make (\w+)", README, re.M):
            self.assertIn(f"\n{target}: ", makefile)

    @inlineCallbacks
    def test_run_the_server(self) -> Any:
        first, second = blocks("Run the server", "sh")
        (script,) = blocks("Run the server", "js")
        options = shlex.split(first.removeprefix("twistd -n ws4redis "))
        program = twistd(*options, "--listen=tcp:0:interface=127.0.0.1")
        self.addCleanup(program.end)
        url, redis_url = (
            yield program.wait_for(r"Ready: websockets at (\S+), Redis at (\S+)\n")
        ).groups()
        opened = re.search(r'"ws://127.0.0.1:8080/ws/(\S+)"', script)
        client = yield open_websocket(url + opened[1])
        import valkey

        with valkey.Valkey.from_url(redis_url) as redis:
            redis.publish("broadcast:foobar", "hi")
        self.assertEqual((yield client.next()), "hi")
        client.sendClose(1000)
        yield client.closed

        options = shlex.split(second.removeprefix("twistd ws4redis "))
        given = {"redis://localhost:6379/0": str(shared_redis().address)}
        given |= {"mysite.settings": SETTINGS, "tcp:8080": "tcp:0:interface=127.0.0.1"}
        self.assertLess(set(given), set(options))
        program = twistd(*(given.get(word, word) for word in options), **environment())
        self.addCleanup(program.end)
        yield program.wait_for("Ready: ")

    def test_publish_from_django(self) -> None:
        (code,) = blocks("Publish from Django", "python")
        redis = shared_redis()
        result = python(
            "-c",
            f"import django\ndjango.setup()\n{code}\n"
            "from django.contrib.auth.models import User\n"
            "from django.test import RequestFactory\n"
            "request = RequestFactory().get('/')\n"
            "request.user = User.objects.get(username='john')\n"
            "assert order_shipped(request).content == b'done'\n",
            DJANGO_SETTINGS_MODULE=SETTINGS,
            WS4REDIS_CONNECTION=str(redis.address),
            **environment(),
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(redis.command("GET", "user:john:orders"), b"Your order is on its way.")

    @inlineCallbacks
    def test_embed_it(self) -> Any:
        (code,) = blocks("Embed it in a Twisted application", "python")
        tac = write_file(self, code.replace("tcp:8080", "tcp:0"))
        program = Program(TWISTD, "--nodaemon", "--pidfile=", "--python", tac)
        self.addCleanup(program.end)
        yield program.wait_for(r"WebSocketFactory starting on \d+")

    def test_test_with_it(self) -> None:
        (code,) = blocks("Test with it", "python")
        names: dict[str, Any] = {}
        exec(code, names)
        result = unittest.TestResult()
        names["NewsTests"]("test_news_arrive").run(result)
        self.assertTrue(result.wasSuccessful() and result.testsRun == 1, result.failures)

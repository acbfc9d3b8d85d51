"""Permissions fail closed, and clients stay out of the servers' own channel."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from typing import Any

import valkey
from django.test import override_settings
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

from tests.security.cases import SecurityTestCase, raising
from tests.support import TIMEOUT
from tests.support.clients import exchange
from tests.support.sites import PUBLISH_ALL, SUBSCRIBE_ALL
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx.scheduling.timeouts import Timeouts
from ws4redis_tx.sessions.server import HANDSHAKE_TIMEOUT
from ws4redis_tx.sessions.session import Session


def grants_and_raises(request: Any, channels: list[str]) -> Iterator[str]:
    yield from channels
    raise RuntimeError("deliberate")


class Deliberate(BaseException):
    """Not even an ``Exception``."""


ERRORS = (
    RuntimeError, AttributeError, KeyError, TypeError, AssertionError, RecursionError, MemoryError,
    StopIteration, StopAsyncIteration, SystemExit, KeyboardInterrupt, GeneratorExit,
    asyncio.CancelledError, Deliberate,
)  # fmt: skip


class PermissionTests(SecurityTestCase):
    """They fail closed: whatever goes wrong in the lookup, nothing is granted."""

    @inlineCallbacks
    def assert_refused(self, status: int, setting: str, callback: Any, why: Any) -> Any:
        with override_settings(**{setting: callback}):
            answer = yield exchange(
                self.port,
                handshake_bytes(
                    f"/ws/foobar?{SUBSCRIBE_ALL}&{PUBLISH_ALL}",
                    Host=f"127.0.0.1:{self.port}",
                    Cookie=self.cookie,
                ),
            )
        self.assertEqual(status_of(answer), status, (setting, why))
        self.assertNotIn(b"deliberate", answer)
        self.flushLoggedErrors()
        self.assert_nothing_was_had()

    @inlineCallbacks
    def serve(self, **settings: Any) -> Any:
        service = yield super().serve(**settings)
        self.cookie = yield self.john()
        return service

    @inlineCallbacks
    def test_an_exception_of_any_kind_refuses(self) -> Any:
        yield self.serve()
        for setting in ("WS4REDIS_ALLOWED_CHANNELS", "WS4REDIS_PROCESS_REQUEST"):
            for error in ERRORS:
                callback = raising(error("deliberate"))
                yield self.assert_refused(500, setting, callback, error)

    @inlineCallbacks
    def test_an_answer_of_a_wrong_kind_refuses(self) -> Any:
        yield self.serve()
        for answer in (
            None, True, 7, object(), Exception("deliberate"), "subscribe-user", b"subscribe-user",
            {"subscribe-user": False}.get, ["subscribe-everything"], [None], [["subscribe-user"]],
            [b"subscribe-user"], ["*"], ["SUBSCRIBE-USER"], ["subscribe-user "], [""],
        ):  # fmt: skip
            callback = lambda request, channels, answer=answer: answer  # noqa: E731
            yield self.assert_refused(500, "WS4REDIS_ALLOWED_CHANNELS", callback, answer)
        yield self.assert_refused(
            500, "WS4REDIS_ALLOWED_CHANNELS", grants_and_raises, "a generator that raises"
        )

    @inlineCallbacks
    def test_a_lookup_that_leaves_nonsense_refuses(self) -> Any:
        yield self.serve()
        for name, value, status in (
            ("user", None, 403),  # an anonymous visitor, whom the default policy refuses
            ("user", "john", 500),
            ("user", True, 500),
            ("session", None, 403),
            ("session", "a session's key", 500),
        ):

            def process(request: Any, name: str = name, value: Any = value) -> None:
                setattr(request, name, value)

            yield self.assert_refused(status, "WS4REDIS_PROCESS_REQUEST", process, (name, value))
        self.override(WS4REDIS_ALLOWED_CHANNELS="ws4redis_tx.policies.allow_all")
        yield self.assert_refused(
            401, "WS4REDIS_PROCESS_REQUEST", lambda request: True, "says True, and sets nothing"
        )

    @inlineCallbacks
    def test_a_timeout_refuses_and_a_late_answer_changes_nothing(self) -> Any:
        service = yield self.serve()
        clock = Clock()
        deadlines = Timeouts(HANDSHAKE_TIMEOUT, Session.time_out, clock)
        self.patch(service.factory.session_server, "timeouts", deadlines)
        for setting in ("WS4REDIS_ALLOWED_CHANNELS", "WS4REDIS_PROCESS_REQUEST"):
            go_on = threading.Event()
            self.addCleanup(go_on.set)
            late: Deferred[None] = Deferred()

            def slow(
                request: Any,
                channels: Any = (),
                go_on: threading.Event = go_on,
                late: Deferred[None] = late,
            ) -> Any:
                reactor.callFromThread(clock.advance, HANDSHAKE_TIMEOUT)
                go_on.wait(TIMEOUT)
                reactor.callFromThread(late.callback, None)
                return channels

            yield self.assert_refused(503, setting, slow, "too late")
            go_on.set()
            yield late.addTimeout(TIMEOUT, reactor)
            yield self.drained(service)
            self.assert_nothing_was_had()

    @inlineCallbacks
    def test_by_default_clients_publish_to_nobody_but_themselves(self) -> Any:
        yield self.serve()
        for right in ("publish-broadcast", "publish-group", "PUBLISH-GROUP", "publish%2Dgroup=no"):
            status, _ = yield self.refusal(f"/ws/foobar?subscribe-user&{right}", Cookie=self.cookie)
            self.assertEqual(status, 403, right)
        self.assert_nothing_was_had()


class ControlChannelTests(SecurityTestCase):
    """No client writes or hears the servers' own messages."""

    @inlineCallbacks
    def test_clients_cannot_write_or_hear_the_control_channel(self) -> Any:
        for prefix, start in ((None, "ctl:"), ("site", "site:ctl:")):
            redis = valkey.Valkey(host="127.0.0.1", port=self.redis.port)
            self.addCleanup(redis.close)
            listening = redis.pubsub()
            self.addCleanup(listening.close)
            listening.psubscribe("*")
            self.assertEqual(listening.get_message(timeout=TIMEOUT)["type"], "psubscribe")
            yield self.serve(
                WS4REDIS_PREFIX=prefix, WS4REDIS_ALLOWED_CHANNELS="ws4redis_tx.policies.allow_all"
            )
            john = yield self.log_in("john")
            for facility in (
                f"{start}revoke", "ctl:", "site:ctl:x", "..%2F..%2Fctl:x", "%2e%2e/ctl:x", ":ctl:x",
                "*", "ctl", "ctl%3Ax",
            ):  # fmt: skip
                named = "" if ":" in facility or "%3A" in facility else f"&{PUBLISH_ALL}"
                client = yield self.open(
                    f"{facility}?publish-broadcast&subscribe-broadcast&echo{named}", cookies=john
                )
                client.sendMessage(b"attack")
                self.assertEqual((yield client.next()), "attack")
            self.redis.command("PUBLISH", "end", "end")
            written = []
            while not written or written[-1][0] != "end":
                message = yield deferToThread(listening.get_message, timeout=TIMEOUT)
                written.append((message["channel"].decode(), message["data"]))
            attacked = [channel for channel, data in written if data == b"attack"]
            self.assertGreaterEqual(len(attacked), 9)
            audience = re.compile(rf"{'site:' if prefix else ''}(broadcast|group|user|session):")
            for channel in attacked:
                self.assertRegex(channel, audience)
                self.assertFalse(channel.startswith(("ctl:", start)), channel)

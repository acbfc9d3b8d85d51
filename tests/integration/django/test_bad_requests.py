"""Where Django answers 400 to a page's request, a handshake gets 400, and no traceback."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.support.django import set_up_django
from tests.support.sites import ContractTestCase

set_up_django()

from django.core.exceptions import (
    BadRequest,
    DisallowedHost,
    RequestDataTooBig,
    SuspiciousOperation,
    TooManyFieldsSent,
)
from django.http.multipartparser import MultiPartParserError

from ws4redis_tx.subscriber import RedisSubscriber

# What Django itself answers with 400.
ERRORS: list[type[Exception]] = [
    BadRequest, DisallowedHost, MultiPartParserError, RequestDataTooBig, SuspiciousOperation,
    TooManyFieldsSent,
]  # fmt: skip

MANY = "/ws/foobar?subscribe-broadcast" + "&a" * 1001


def reads_parameters(request: Any, channels: list[str]) -> list[str]:
    assert "subscribe-broadcast" in request.GET
    return channels


class ReadsParameters(RedisSubscriber):
    def set_pubsub_channels(self, request: Any, channels: list[str]) -> None:
        assert "subscribe-broadcast" in request.GET
        super().set_pubsub_channels(request, channels)


class BadRequestTests(ContractTestCase):
    @inlineCallbacks
    def assert_bad_request(self, target: str = "/ws/foobar?subscribe-broadcast") -> Any:
        lines = self.log_lines()
        status, answer = yield self.refusal(target)
        self.assertEqual(status, 400)
        self.assertNotIn(b"deliberate", answer)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(len([line for line in lines if "with 400" in line]), 1, lines)

    @inlineCallbacks
    def test_too_many_parameters_for_a_callback(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=reads_parameters)
        yield self.assert_bad_request(MANY)
        yield self.open("foobar?subscribe-broadcast")

    @inlineCallbacks
    def test_too_many_parameters_for_a_subscriber(self) -> Any:
        yield self.serve(WS4REDIS_SUBSCRIBER=ReadsParameters)
        yield self.assert_bad_request(MANY)

    @inlineCallbacks
    def test_whatever_django_answers_with_400(self) -> Any:
        raised: Exception = Exception()

        def fail(request: Any, channels: list[str] | None = None) -> list[str]:
            raise raised

        for name in "WS4REDIS_ALLOWED_CHANNELS", "WS4REDIS_PROCESS_REQUEST":
            for kind in ERRORS:
                yield self.serve(**{name: fail})  # each time: the log sums up refusals
                raised = kind("deliberate")
                yield self.assert_bad_request()
            self.override(**{name: None})

    @inlineCallbacks
    def test_any_other_error_is_still_a_bug(self) -> Any:
        def fail(request: Any, channels: list[str]) -> list[str]:
            raise ValueError("deliberate")

        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=fail)
        status, _ = yield self.refusal()
        self.assertEqual(status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

"""The contract, section 2: flags, the subscription, the facility."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.support.django import set_up_django
from tests.support.memory import AllowAll, WebSocketTests
from tests.support.sites import ContractTestCase
from ws4redis_tx.subscriber import RedisSubscriber

set_up_django()


from ws4redis_tx.policies import allow_all


class FlagsTests(WebSocketTests):
    """2. Websocket: flags"""

    def test_flags_are_names_case_insensitive_in_any_order_collapsed_unknown_ignored(self) -> None:
        asked: list[Any] = []

        class Noting(AllowAll):
            def authorize(self, handshake: Any, rights: Any) -> Any:
                asked.append(list(rights))
                return super().authorize(handshake, [])

        self.use(authorizer=Noting())
        flags = [
            "subscribe-session", "subscribe-group", "subscribe-user", "subscribe-broadcast",
            "publish-session", "publish-group", "publish-user", "publish-broadcast",
        ]  # fmt: skip
        for query, expected in (
            ("&".join(flags), flags),
            ("&".join(reversed(flags)), flags[::-1]),
            ("SUBSCRIBE-Broadcast=no&echo=0", ["subscribe-broadcast"]),
            ("publish-user&x=1&publish-user=&nonsense", ["publish-user"]),
            ("x=subscribe-user", []),
            ("", []),
        ):
            client = self.connect(query)
            self.assertTrue(client.open)
            self.assertEqual(asked.pop(), expected)

    def test_a_subscriber_subclass_may_extend_the_two_class_lists(self) -> None:
        granted: list[Any] = []

        class Extended(RedisSubscriber):
            subscription_channels = [*RedisSubscriber.subscription_channels, "subscribe-server"]
            publish_channels = [*RedisSubscriber.publish_channels, "publish-server"]

            def set_pubsub_channels(self, request: Any, channels: Any) -> Any:
                granted.append(set(channels))
                return super().set_pubsub_channels(request, channels)

        self.use(subscriber=Extended)
        self.assertTrue(self.connect("subscribe-server&publish-server&other").open)
        self.assertEqual(granted, [{"subscribe-server", "publish-server"}])


class SubscriptionTests(ContractTestCase):
    """2. Websocket: the subscription stands before the 101 is sent"""

    @inlineCallbacks
    def test_what_is_published_after_the_client_sees_the_connection_open_reaches_it(self) -> Any:
        yield self.serve()
        for i in range(20):
            client = yield self.open(f"f{i}?subscribe-broadcast")
            self.assertEqual(self.redis.command("PUBLISH", f"broadcast:f{i}", i), 1)
            self.assertEqual((yield client.next()), str(i))

    @inlineCallbacks
    def test_without_flags_and_with_publish_flags_alone_it_is_subscribed_to_nothing(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        for flags in ("", "?", "?publish-broadcast", "?echo"):
            yield self.open("foobar" + flags)
            self.assertEqual(self.channels(), set())


class FacilityTests(ContractTestCase):
    """2. Websocket: the facility"""

    @inlineCallbacks
    def test_it_is_percent_decoded_utf_8_may_be_empty_and_may_hold_a_slash(self) -> Any:
        yield self.serve()
        for path, facility in (
            ("gr%C3%BC%C3%9Fe", "grüße"),
            ("a%20b", "a b"),
            ("a+b", "a+b"),
            ("a%2Fb/c", "a/b/c"),
            ("a//b/", "a//b/"),
            ("ws/ws/", "ws/ws/"),
            ("%25", "%"),
            ("", ""),
            ("x" * 255, "x" * 255),
            ("a:b", "a:b"),
        ):
            client = yield self.open(path + "?subscribe-broadcast")
            self.assertIn(f"broadcast:{facility}", self.channels())
            self.redis.command("PUBLISH", f"broadcast:{facility}", "hi")
            self.assertEqual((yield client.next()), "hi")

    @inlineCallbacks
    def test_not_utf_8_control_characters_and_more_than_255_bytes_are_refused(self) -> Any:
        yield self.serve()
        for facility in ("%FF", "%C3", "a%00b", "a%0D%0Ab", "%7F", "%C2%85", "x" * 256):
            status, _ = yield self.refusal(f"/ws/{facility}?subscribe-broadcast")
            self.assertEqual(status, 400, facility)
        status, _ = yield self.refusal(f"/ws/{'%C3%BC' * 128}?subscribe-broadcast")
        self.assertEqual(status, 400)

    @inlineCallbacks
    def test_a_colon_is_refused_for_group_user_and_session_and_legal_for_broadcast(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        john = yield self.log_in("john")
        cookie = f"sessionid={john['sessionid']}"
        for verb in ("subscribe", "publish"):
            for audience in ("group", "user", "session"):
                for colon in (":", "%3A"):
                    target = f"/ws/a{colon}b?{verb}-{audience}&{verb}-broadcast"
                    status, _ = yield self.refusal(target, Cookie=cookie)
                    self.assertEqual(status, 400, target)

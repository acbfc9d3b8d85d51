"""The control channel: the servers' messages to each other."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.revocation.site import RevocationTests
from ws4redis_tx.core.admission import Identity
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.revocation.control_channel import ControlChannel
from ws4redis_tx.revocation.messages import (
    DISCONNECT,
    LOGOUT,
    RECHECK,
    Revocation,
    digest,
    disconnection,
    read_revocation,
)
from ws4redis_tx.testing import MemoryBroker

TARGETS: list[dict[str, Any]] = [
    {"user": "john"}, {"session": "k"}, {"group": "g"}, {"facility": "chat"},
]  # fmt: skip


class RefusingBroker(MemoryBroker):
    """Lets nobody listen to the control channel."""

    def listen(self, channel: bytes, listener: Any) -> Deferred[None]:
        return fail(BrokerUnavailable("Redis did not subscribe: NOPERM"))


class StopTests(SynchronousTestCase):
    """The control channel may be stopped by those whom it tells of something."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.listened = 0

    def channel(self, broker: MemoryBroker) -> ControlChannel:
        return ControlChannel("", broker, self.clock, self.fail, self.listening, self.fail)

    def listening(self) -> Deferred[None]:
        self.listened += 1
        return succeed(None)

    def test_one_that_was_refused_does_not_try_again_after_its_stop(self) -> None:
        broker = RefusingBroker()
        broker.lose_connection()
        channel = self.channel(broker)
        channel.start()
        tried = channel.when_tried()
        tried.addCallback(lambda _: channel.stop())
        broker.restore()
        self.successResultOf(tried)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_that_listens_does_not_listen_after_its_stop_and_may_start_again(self) -> None:
        broker = MemoryBroker()
        channel = self.channel(broker)
        tried = channel.when_tried()
        tried.addCallback(lambda _: channel.stop())
        channel.start()
        self.successResultOf(tried)
        self.assertEqual(list(broker.control.channels), [])
        channel.start()
        self.assertEqual(list(broker.control.channels), [b"ctl:revoke"])
        self.assertEqual(self.listened, 2)
        channel.stop()
        channel.stop()
        self.assertEqual(list(broker.control.channels), [])


class ControlChannelTests(RevocationTests):
    def test_no_client_can_write_it(self) -> None:
        """Whatever it asks for, even if every right is granted."""
        heard: list[bytes] = []

        class Ear:
            def deliver(self, publication: Any) -> None:
                heard.append(publication.channel)

        self.broker.control.add(b"ctl:revoke", Ear())
        mary = self.connect("mary")
        payload = disconnection(user="mary").payload.decode()
        flags = "publish-broadcast&publish-group&publish-user&publish-session"
        self.site.visitors["odd"] = Identity("ctl:revoke", "ctl:revoke", ("ctl:revoke",), "3")
        for name in ("john", "odd", "nobody"):
            for facility in (
                "ctl:revoke", "revoke", "..%2Fctl:revoke", "%0actl:revoke", "ctl%3Arevoke", "",
                "/ctl:revoke", "*", "%00",
            ):  # fmt: skip
                for some in (flags, "publish-broadcast", "publish-ctl", "ctl:revoke"):
                    client = self.connect(name, some, facility)
                    if client.open:
                        client.send(payload)
        self.assertEqual(heard, [])
        self.assertIsNone(mary.close_code)

    def test_no_session_key_is_on_it(self) -> None:
        for revocation in (
            disconnection(session="secret"),
            Revocation(LOGOUT, "session", (digest("secret"),)),
        ):
            self.assertNotIn(b"secret", revocation.payload)

    def test_what_is_written_is_read(self) -> None:
        for revocation in (
            disconnection(user="jöhn"),
            disconnection(session="abc"),
            Revocation(RECHECK, "group", ("a", 'b"', "")),
            disconnection(user="jöhn", tenant="läden"),
            Revocation(LOGOUT, "session", (digest("abc", "a"),), "a"),
        ):
            self.assertEqual(read_revocation(revocation.payload), revocation)

    def test_a_message_of_a_later_edition_is_skipped_without_a_word(self) -> None:
        mary = self.connect("mary")
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        for payload in (b"4:whatever", b'7:{"disconnect": {"user": ["2"]}}', b"12:"):
            self.assertIsNone(read_revocation(payload))
            self.broker.publish([b"ctl:revoke"], payload, 0)
        self.assertIsNone(mary.close_code)
        self.assertEqual(events, [])

    def test_a_message_that_names_no_tenant_where_it_should_is_ignored(self) -> None:
        for payload in (
            b'2:{"disconnect": {"facility": ["chat"]}}', b"2:", b"2:[]",
            b'2:{"disconnect": {"facility": ["chat"]}, "tenant": ""}',
            b'2:{"disconnect": {"facility": ["chat"]}, "tenant": "a:b"}',
            b'{"disconnect": {"facility": ["chat"]}, "tenant": "a"}',
        ):  # fmt: skip
            self.assertRaises(ValueError, read_revocation, payload)

    def test_it_concerns_the_websockets_of_its_tenant(self) -> None:
        ours, theirs = (Identity("k", "john", ("g",), "1", tenant) for tenant in ("a", "b"))
        for revocation in (
            *(disconnection(**target, tenant="a") for target in TARGETS),
            Revocation(LOGOUT, "session", (digest("k", "a"),)),
            Revocation(RECHECK, "user", ("1",), "a"),
        ):
            self.assertTrue(revocation.concerns(ours, "chat"), revocation)
            self.assertFalse(revocation.concerns(theirs, "chat"), revocation)
        for kind, value in (("user", "1"), ("group", "g")):
            for identity in (ours, theirs):
                self.assertTrue(Revocation(RECHECK, kind, (value,)).concerns(identity, "chat"))

    def test_it_is_documented_as_it_is(self) -> None:
        self.assertEqual(
            Revocation(DISCONNECT, "facility", ("chat",)).payload,
            b'{"disconnect": {"facility": ["chat"]}}',
        )
        self.assertEqual(
            Revocation(DISCONNECT, "facility", ("chat",), "acme").payload,
            b'2:{"disconnect": {"facility": ["chat"]}, "tenant": "acme"}',
        )

"""Tokens that are void: whom a revocation concerns, and how long and how much is remembered."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.unit.revocation.site import RevocationTests, Site
from ws4redis_tx.core.admission import Admission, Identity
from ws4redis_tx.core.tokens import TokenExpired
from ws4redis_tx.revocation import void_tokens
from ws4redis_tx.revocation.void_tokens import (
    GROUP,
    KEPT_FOR,
    USER,
    USERNAME,
    Voiding,
    VoidTokens,
    read_voiding,
    token_digest,
    void_lists,
)
from ws4redis_tx.testing import MemoryBroker

NOW = 1_800_000_000.0
ANN = Identity(None, "ann", ("staff",), "7")


class Tokens(Site):
    """Visitors whose tokens were issued at ``NOW``."""

    issued: float | None = NOW

    def admit(self, identity: Any, handshake: Any, rights: Any) -> Admission:
        admission = super().admit(identity, handshake, rights)
        return Admission(
            admission.identity, admission.rights, admission.request, issued=self.issued
        )


class VoidTestCase(RevocationTests):
    def use(self, broker: MemoryBroker | None = None, **config: Any) -> None:
        super().use(broker, centrifuge_url="/connection/", **config)
        self.site = Tokens()
        self.site.visitors["ann"] = ANN
        self.factory.session_server.use(self.site)
        self.revocations = self.factory.session_server.revocations
        self.revocations.use_time(lambda: NOW)

    def void(self, kind: str, name: str, *, after: float = 1.0, tenant: str = "") -> Voiding:
        voiding = Voiding((token_digest(kind, name, tenant),), NOW + after)
        self.broker.publish([b"ctl:revoke"], voiding.payload, 0)
        self.clock.advance(0)
        return voiding


class VoidTests(VoidTestCase):
    def test_what_their_tokens_opened_is_closed_and_nothing_else(self) -> None:
        for kind, name in ((USER, "7"), (USERNAME, "ann"), (GROUP, "staff")):
            self.use()
            clients = {name: self.connect(name, "subscribe-broadcast") for name in ("ann", "mary")}
            self.void(kind, f"not {name}")
            self.assertIsNone(clients["ann"].close_code)
            self.void(kind, name)
            self.assertEqual(clients["ann"].close_code, 3005, kind)
            self.assertIsNone(clients["mary"].close_code)

    def test_what_a_session_opened_stays(self) -> None:
        self.site.issued = None
        client = self.connect("ann", "subscribe-user")
        self.void(USER, "7")
        self.assertIsNone(client.close_code)
        self.assertTrue(self.connect("ann", "subscribe-user").open)

    def test_an_older_token_opens_nothing_and_a_newer_one_does(self) -> None:
        self.void(USER, "7")
        self.assertEqual(self.connect("ann", "").refused, 401)
        with self.assertRaises(TokenExpired) as caught:
            self.revocations.check_token(ANN, NOW)
        self.assertEqual(caught.exception.claim, "iat")
        self.site.issued = NOW + 1
        client = self.connect("ann", "")
        self.assertTrue(client.open)
        self.void(USER, "7", after=0.5)  # it comes late
        self.assertIsNone(client.close_code)

    def test_one_that_is_being_looked_up_is_refused_too(self) -> None:
        self.site.visitors["ann"] = waiting = Deferred()
        client = self.connect("ann", "")
        self.void(USER, "7")
        waiting.callback(self.site.admit(ANN, self.site.handshakes[0], []))
        self.assertEqual(client.refused, 401)

    def test_a_server_that_is_started_later_knows_it_for_a_day(self) -> None:
        for after, refused in ((1.0, True), (-10.0, False)):
            broker = MemoryBroker()
            self.use()
            [(key, entry)] = self.void(USER, "7", after=after).entries("").items()
            self.assertIn(key, void_lists(""))
            broker.publish([key], b"2:another version\n" + entry + b"1:cut o", 60)
            self.use(broker)
            self.assertEqual(self.connect("ann", "").open, not refused)
        void = VoidTokens()
        void.add_lists([entry.replace(b"1799999990", b"1800000001")], NOW + KEPT_FOR)
        self.assertEqual(len(void), 1)
        void = VoidTokens()
        void.add_lists([entry.replace(b"1799999990", b"1800000001")], NOW + KEPT_FOR + 1)
        self.assertEqual(len(void), 0)

    def test_what_an_outage_swallowed_is_read_from_the_lists(self) -> None:
        client, mary = self.connect("ann", ""), self.connect("mary", "")
        self.broker.lose_connection()
        [(key, entry)] = Voiding((token_digest(USER, "7"),), NOW + 1).entries("").items()
        self.broker.restore()
        self.assertIsNone(client.close_code)
        self.broker.publish([key], entry, 60)
        self.outage()
        self.assertEqual(client.close_code, 3005)
        self.assertIsNone(mary.close_code)

    def test_a_server_without_tokens_reads_no_lists(self) -> None:
        read: list[bytes] = []

        class Noting(MemoryBroker):
            def get(self, channel: bytes) -> Deferred[Any]:
                read.append(channel)
                return super().get(channel)

        RevocationTests.use(self, Noting())
        self.assertEqual([key for key in read if b"void" in key], [])
        self.use(Noting())
        self.assertEqual(len([key for key in read if b"void" in key]), 64)

    def test_a_message_that_cannot_be_read_is_ignored(self) -> None:
        self.connect("ann", "")
        for payload in (
            b"3:", b"3:[]", b"3:{}", b'3:{"void": 7, "before": 1}',
            b'3:{"void": ["x"], "before": 1}', b'3:{"void": [7], "before": 1}',
            b'3:{"void": [], "before": "soon"}',
            b'3:{"void": [], "before": NaN}', b"3:" + b"[" * 10_000,
        ):  # fmt: skip
            self.assertRaises(ValueError, read_voiding, payload)
            self.broker.publish([b"ctl:revoke"], payload, 0)
        self.assertTrue(self.connect("ann", "").open)

    def test_no_log_line_names_anybody(self) -> None:
        events = self.logged()
        self.connect("ann", "")
        voiding = self.void(USERNAME, "ann")
        self.assertNotIn(b"ann", voiding.payload)
        self.assertIn("Revoked 1 connections or rights: their tokens are void", str(events))


class TenantTests(VoidTestCase):
    def test_one_tenants_revocation_concerns_that_tenant(self) -> None:
        acme, globex = (Identity(None, "ann", (), "7", tenant) for tenant in ("acme", "globex"))
        for kind, name in ((USER, "7"), (USERNAME, "ann")):
            for tenant, void in (("acme", [True, False]), ("", [True, True]), ("x", [False] * 2)):
                tokens = VoidTokens()
                tokens.add(Voiding((token_digest(kind, name, tenant),), NOW))
                found = [tokens.covers(identity, NOW - 1) for identity in (acme, globex)]
                self.assertEqual(found, void)

    def test_no_name_can_spell_another(self) -> None:
        digests = {
            token_digest(USER, "7"), token_digest(USERNAME, "7"), token_digest(GROUP, "7"),
            token_digest(USER, "7", "user"), token_digest(USER, "user:7"),
        }  # fmt: skip
        self.assertEqual(len(digests), 5)


class BoundTests(VoidTestCase):
    def test_memory_is_bounded_and_what_is_forgotten_is_void(self) -> None:
        self.patch(void_tokens, "MOST", 10)
        tokens = VoidTokens()
        for number in range(30):
            tokens.add(Voiding((token_digest(USER, str(number)),), NOW + number))
        self.assertEqual(len(tokens), 10)
        self.assertTrue(tokens.covers(Identity(None, "x", (), "0"), NOW - 1))
        self.assertTrue(tokens.covers(Identity(None, "stranger", (), "99"), NOW + 18))
        self.assertFalse(tokens.covers(Identity(None, "stranger", (), "99"), NOW + 19))
        self.assertFalse(tokens.covers(Identity(), NOW - 1), "nobody lost anything")

    def test_a_list_that_redis_has_cut_off_makes_older_tokens_void(self) -> None:
        entries = b""
        for number in range(900, 0, -1):
            voiding = Voiding((token_digest(USER, str(number)),), NOW + number)
            entries += b"".join(voiding.entries("").values())
        tokens = VoidTokens()
        tokens.add_lists([None, entries[: 32 * 1024]], NOW)
        self.assertTrue(tokens.covers(Identity(None, "x", (), "1"), NOW))
        self.assertFalse(tokens.covers(Identity(None, "x", (), "1"), NOW + 900))
        whole = VoidTokens()
        whole.add_lists([None, entries[: 31 * 1024]], NOW)
        self.assertFalse(whole.covers(Identity(None, "x", (), "1"), NOW))

    def test_a_later_time_wins(self) -> None:
        for times in ((5, 1), (1, 5)):
            tokens = VoidTokens()
            for after in times:
                tokens.add(Voiding((token_digest(USER, "7"),), NOW + after))
            self.assertTrue(tokens.covers(ANN, NOW + 4))
            self.assertFalse(tokens.covers(ANN, NOW + 5))


class RecheckTests(VoidTestCase):
    def test_a_recheck_that_finds_less_keeps_the_token_to_be_found(self) -> None:
        client = self.connect("ann", "subscribe-broadcast")
        self.site.visitors["ann"] = Identity(None, "ann", ("staff", "more"), "7")
        self.outage()
        self.void(GROUP, "more")
        self.assertEqual(client.close_code, 3005)

    def test_whoever_left_is_forgotten(self) -> None:
        index = self.revocations._index
        client = self.connect("ann", "")
        self.assertEqual(len(index._by_token), 3)
        client.close()
        self.assertEqual(len(index._by_token), 0)

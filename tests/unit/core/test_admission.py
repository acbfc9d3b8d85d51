"""The rights that an identity may get; anonymous visitors share no channel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.core.admission import (
    ANONYMOUS,
    Admission,
    AnonymousAuthorizer,
    Identity,
    check_admission,
    default_policy,
    lost,
)
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.names import PUBLISH_RIGHTS, SUBSCRIBE_RIGHTS

RIGHTS = (*SUBSCRIBE_RIGHTS, *PUBLISH_RIGHTS)
MARY = Identity("s3ss10n", "mary", ("staff",))


def handshake(facility: str = "foobar") -> Handshake:
    return Handshake(
        path=f"/ws/{facility}",
        query="",
        websocket_url="/ws/",
        flags=(),
        headers={"host": "localhost"},
        key="",
        subprotocols=(),
        secure=False,
        peer="",
    )


class AdmissionTestCase(SynchronousTestCase):
    def status(self, identity: Identity, rights: Iterable[str], facility: str = "foobar") -> int:
        try:
            check_admission(handshake(facility), Admission(identity, tuple(rights), None))
        except Denied as denied:
            return denied.status
        return 101


class CheckTests(AdmissionTestCase):
    def test_each_right_needs_what_its_audience_is_named_after(self) -> None:
        session, user = Identity(session_key="s3ss10n"), Identity(username="mary")
        for audience, statuses in (
            # anonymous, session alone, user alone, both
            ("broadcast", (101, 101, 101, 101)),
            ("session", (403, 101, 403, 101)),
            ("user", (401, 401, 101, 101)),
            ("group", (401, 401, 101, 101)),
        ):
            for action in ("subscribe", "publish"):
                with self.subTest(right=f"{action}-{audience}"):
                    rights = [f"{action}-{audience}"]
                    got = tuple(
                        self.status(identity, rights)
                        for identity in (ANONYMOUS, session, user, MARY)
                    )
                    self.assertEqual(got, statuses)

    def test_what_is_no_tuple_of_names_and_no_string_is_told(self) -> None:
        wrong: Any = {"groups": "staff"}, {"user_id": 5}
        remedies = "groups='staff' .* write groups=.'staff',", "user_id=5 .* write user_id='5'"
        for options, remedy in zip(wrong, remedies, strict=True):
            mary = Identity(username="mary", **options)
            with self.assertRaisesRegex(TypeError, remedy):
                check_admission(handshake(), Admission(mary, ("subscribe-group",), None))
        wrong = "subscribe-user"
        with self.assertRaisesRegex(TypeError, "write rights=.'subscribe-user',"):
            check_admission(handshake(), Admission(MARY, wrong, None))

    def test_no_rights_need_nothing(self) -> None:
        self.assertEqual(self.status(ANONYMOUS, ()), 101)

    def test_an_empty_name_is_no_identity(self) -> None:
        for identity in (Identity("", ""), Identity(username="")):
            self.assertEqual(self.status(identity, ["subscribe-user"]), 401)
        self.assertEqual(self.status(Identity("", "mary"), ["subscribe-session"]), 403)

    def test_a_user_in_no_group_may_have_the_right_and_gets_no_channel(self) -> None:
        self.assertEqual(self.status(Identity(username="mary"), ["subscribe-group"]), 101)

    def test_a_401_says_how_to_authenticate(self) -> None:
        denied = self.assertRaises(
            Denied,
            check_admission,
            handshake(),
            Admission(ANONYMOUS, ("publish-user",), None),
        )
        self.assertIn("WWW-Authenticate", dict(denied.headers))

    def test_a_login_is_asked_for_before_a_session_and_a_session_before_the_facility(self) -> None:
        rights = ["subscribe-session", "publish-group"]
        self.assertEqual(self.status(ANONYMOUS, rights, "a:b"), 401)
        self.assertEqual(self.status(Identity(username="mary"), rights, "a:b"), 403)
        self.assertEqual(self.status(MARY, rights, "a:b"), 400)
        self.assertEqual(self.status(MARY, rights, "a"), 101)

    def test_the_facility_is_judged_for_what_was_granted(self) -> None:
        for rights, status in (
            ((), 101),
            (("subscribe-broadcast", "publish-broadcast"), 101),
            (("subscribe-user",), 400),
            (("subscribe-broadcast", "publish-session"), 400),
            (("subscribe-group",), 400),
        ):
            with self.subTest(rights=rights):
                for colon in (":", "%3A", "%3a"):
                    self.assertEqual(self.status(MARY, rights, f"a{colon}b"), status)

    def test_a_facility_that_nobody_may_have_is_a_400_whatever_was_granted(self) -> None:
        for facility in ("%ff", "%00", "%0d%0a", "%7f", "%c2%85", "x" * 256, "%c3%a9" * 128):
            for rights in ((), ("subscribe-broadcast",), RIGHTS):
                with self.subTest(facility=facility, rights=rights):
                    self.assertEqual(self.status(MARY, rights, facility), 400)
        self.assertEqual(self.status(MARY, RIGHTS, "x" * 255), 101)

    @settings(deadline=None, max_examples=100)
    @given(
        st.lists(st.sampled_from(RIGHTS), unique=True),
        st.sampled_from([None, "s3ss10n"]),
        st.sampled_from([None, "mary"]),
    )
    def test_whoever_is_let_in_has_every_name_that_its_channels_need(
        self, rights: list[str], session_key: str | None, username: str | None
    ) -> None:
        status = self.status(Identity(session_key, username), rights)
        audiences = {right.partition("-")[2] for right in rights}
        if username is None and audiences & {"user", "group"}:
            self.assertEqual(status, 401)
        elif session_key is None and "session" in audiences:
            self.assertEqual(status, 403)
        else:
            self.assertEqual(status, 101)


class DefaultPolicyTests(SynchronousTestCase):
    def test_every_subscription_and_publishing_to_oneself_is_granted_as_asked(self) -> None:
        asked = ("publish-user", *SUBSCRIBE_RIGHTS, "publish-session")
        self.assertEqual(default_policy(asked), asked)
        self.assertEqual(default_policy(iter(asked)), asked)
        self.assertEqual(default_policy(()), ())

    def test_asking_to_publish_to_others_is_a_403_that_names_the_setting_in_the_log(self) -> None:
        for right in ("publish-broadcast", "publish-group"):
            with self.subTest(right=right):
                denied = self.assertRaises(Denied, default_policy, ["subscribe-user", right])
                self.assertEqual(denied.status, 403)
                for word in ("WS4REDIS_ALLOWED_CHANNELS", right, "allow_all"):
                    self.assertIn(word, denied.detail)
                self.assertNotIn("WS4REDIS", denied.reason)

    def test_a_publish_right_that_a_subclass_added_is_not_granted_unless_configured(self) -> None:
        try:
            granted = default_policy(["publish-everyone"])
        except Denied:
            return
        self.assertEqual(granted, ())


class AnonymousAuthorizerTests(AdmissionTestCase):
    def test_without_django_everyone_is_anonymous_and_may_subscribe_to_broadcast(self) -> None:
        asked = handshake()
        admission = AnonymousAuthorizer().authorize(asked, ["subscribe-broadcast"])
        self.assertEqual(admission.identity, ANONYMOUS)
        self.assertEqual(admission.rights, ("subscribe-broadcast",))
        check_admission(asked, admission)

    def test_nobody_may_publish_to_all(self) -> None:
        denied = self.assertRaises(
            Denied, AnonymousAuthorizer().authorize, handshake(), ["publish-broadcast"]
        )
        self.assertEqual(denied.status, 403)

    def test_a_right_of_ones_own_is_refused_because_nobody_is_logged_in(self) -> None:
        for right, status in (
            ("subscribe-user", 401),
            ("subscribe-group", 401),
            ("publish-user", 401),
            ("subscribe-session", 403),
            ("publish-session", 403),
        ):
            with self.subTest(right=right):
                admission = AnonymousAuthorizer().authorize(handshake(), [right])
                self.assertEqual(self.status(admission.identity, admission.rights), status)


class IdentityTests(SynchronousTestCase):
    def test_its_repr_tells_the_tenant_if_there_is_one(self) -> None:
        self.assertIn("tenant='acme'", repr(Identity(username="mary", tenant="acme")))
        self.assertNotIn("tenant", repr(MARY))

    def test_another_tenant_is_a_loss(self) -> None:
        for then, now in (("a", "b"), ("a", ""), ("", "a")):
            admission = Admission(Identity(tenant=now), (), None)
            self.assertEqual(lost(Identity(tenant=then), (), admission), "the tenant")

    def test_its_repr_holds_no_session_key_which_is_a_credential(self) -> None:
        for text in (repr(MARY), str(MARY), repr(Admission(MARY, (), None))):
            self.assertNotIn("s3ss10n", text)
            self.assertIn("mary", text)

    def test_nobody_has_nothing(self) -> None:
        self.assertEqual(
            (ANONYMOUS.session_key, ANONYMOUS.username, ANONYMOUS.groups), (None, None, ())
        )

"""Names: the layout in Redis that other programs share, and forbidden names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.core.admission import Identity
from ws4redis_tx.core.errors import AudienceError, ConfigError, WS4RedisError
from ws4redis_tx.core.names import (
    AUDIENCES,
    MAX_FACILITY_BYTES,
    PUBLISH_RIGHTS,
    SUBSCRIBE_RIGHTS,
    Namespace,
    channel_name,
    check_facility,
    check_prefix,
    check_tenant,
    check_within,
    control_channel,
    is_control_channel,
    namespace,
    read_stamp,
    split_tenant,
    stamp_key,
    ticket_key,
)
from ws4redis_tx.redis_store import SELF, RedisMessage, RedisStore, identity_of

NARROW = ("group", "user", "session")

# A prefix, name and facility that are allowed.
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), min_size=1, max_size=6)
OWN_WORDS = (
    "at", "ctl", "ticket", "t", "pos", "stream", "side", "last", "birth", "presence", "alive",
)  # fmt: skip
PREFIXES = st.one_of(
    st.just(""), WORDS.filter(lambda word: ":" not in word and word not in AUDIENCES + OWN_WORDS)
)
# Words that could be taken for another part of a name are tried too.
TENANTS = st.one_of(
    st.just(""), st.sampled_from(AUDIENCES + OWN_WORDS), WORDS.filter(lambda word: ":" not in word)
)
NAMESPACES = st.builds(namespace, PREFIXES, TENANTS)
FACILITIES = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc",), exclude_characters=":"), max_size=6
)
ADDRESSES = st.one_of(
    st.tuples(NAMESPACES, st.just("broadcast"), WORDS, st.none()),
    st.tuples(NAMESPACES, st.sampled_from(NARROW), FACILITIES, WORDS),
)


class LayoutTests(SynchronousTestCase):
    def test_channel_names_are_those_of_upstream(self) -> None:
        for prefix, start in (("", ""), ("shop", "shop:")):
            for audience, name, channel in (
                ("broadcast", None, "broadcast:foobar"),
                ("group", "staff", "group:staff:foobar"),
                ("user", "mary", "user:mary:foobar"),
                ("session", "wnqd0gbw5obpnj50zwh6yaq2yz4o8g9x", None),
            ):
                with self.subTest(prefix=prefix, audience=audience):
                    self.assertEqual(
                        channel_name(namespace(prefix), audience, "foobar", name),
                        start + (channel or f"session:{name}:foobar"),
                    )

    def test_an_empty_facility_and_one_with_slashes_keep_their_place(self) -> None:
        self.assertEqual(channel_name(namespace(""), "broadcast", ""), "broadcast:")
        self.assertEqual(channel_name(namespace(""), "user", "a/b/", "mary"), "user:mary:a/b/")

    def test_the_rights_are_the_eight_flags(self) -> None:
        self.assertEqual(
            {*SUBSCRIBE_RIGHTS, *PUBLISH_RIGHTS},
            {
                "subscribe-session",
                "subscribe-group",
                "subscribe-user",
                "subscribe-broadcast",
                "publish-session",
                "publish-group",
                "publish-user",
                "publish-broadcast",
            },
        )

    def test_the_stamp_of_a_channel_lives_under_at(self) -> None:
        self.assertEqual(stamp_key("", b"broadcast:f"), b"at:broadcast:f")
        self.assertEqual(stamp_key("shop", b"shop:broadcast:f"), b"shop:at:shop:broadcast:f")

    @settings(deadline=None, max_examples=150)
    @given(ADDRESSES, ADDRESSES)
    def test_two_different_addresses_under_one_prefix_never_share_a_channel(
        self, one: tuple[Namespace, str, str, Any], other: tuple[Namespace, str, str, Any]
    ) -> None:
        other = (one[0], *other[1:])
        self.assertEqual(channel_name(*one) == channel_name(*other), one == other)

    @settings(deadline=None, max_examples=300)
    @given(PREFIXES, TENANTS, TENANTS, ADDRESSES, ADDRESSES)
    def test_two_tenants_under_one_prefix_never_share_a_name(
        self, prefix: str, tenant: str, another: str, one: Any, other: Any
    ) -> None:
        if tenant == another:
            return
        ours = names_of(prefix, channel_name(namespace(prefix, tenant), *one[1:]))
        theirs = names_of(prefix, channel_name(namespace(prefix, another), *other[1:]))
        self.assertEqual(ours & theirs, set())
        tickets = {ticket_key(namespace(prefix, each), "d") for each in (tenant, another)}
        self.assertEqual(len(tickets), 2)

    @settings(deadline=None, max_examples=100)
    @given(PREFIXES, TENANTS, ADDRESSES, ADDRESSES)
    def test_no_stamp_is_the_channel_of_an_allowed_address(
        self, prefix: str, tenant: str, one: Any, other: Any
    ) -> None:
        ours = namespace(prefix, tenant)
        stamp = stamp_key(prefix, channel_name(ours, *one[1:]).encode())
        self.assertNotEqual(stamp, channel_name(ours, *other[1:]).encode())

    def test_no_prefix_makes_a_channel_of_what_is_kept_beside_the_layout(self) -> None:
        for prefix in OWN_WORDS:
            with self.subTest(prefix=prefix):
                error = self.assertRaises(ConfigError, check_prefix, prefix)
                self.assertIn(f"'{prefix}'", str(error))


def names_of(prefix: str, channel: str) -> set[bytes]:
    return {channel.encode(), stamp_key(prefix, channel.encode())}


class TenantTests(SynchronousTestCase):
    def test_each_name_of_a_tenant_has_it_after_the_prefix(self) -> None:
        for prefix, start in (("", ""), ("shop", "shop:")):
            ours = namespace(prefix, "acme")
            channel = channel_name(ours, "user", "f", "mary")
            self.assertEqual(channel, f"{start}t:acme:user:mary:f")
            self.assertEqual(
                stamp_key(prefix, channel.encode()), f"{start}t:acme:at:{channel}".encode()
            )
            self.assertEqual(ticket_key(ours, "d"), f"{start}t:acme:ticket:d".encode())

    def test_without_a_tenant_names_are_as_they_were(self) -> None:
        self.assertEqual(namespace(""), "")
        self.assertEqual(namespace("shop"), "shop")
        self.assertEqual(stamp_key("", b"t"), b"at:t")

    def test_a_tenant_is_1_to_64_bytes_without_a_colon(self) -> None:
        for tenant in ("a", "Läden-1", "a b", "x" * 64, "é" * 32, "ctl", "t", "None"):
            self.assertEqual(check_tenant(tenant), tenant)
        for tenant in ("x" * 65, "é" * 33, ":", "a:user", "a:", "\ud800"):
            self.assertIn(
                "WS4REDIS_TENANT", str(self.assertRaises(ValueError, check_tenant, tenant))
            )
        for nothing in ("", None, 7, b"a", ["a"], False):
            self.assertIn(
                "WS4REDIS_TENANT", str(self.assertRaises(TypeError, check_tenant, nothing))
            )

    def test_the_tenant_of_a_name(self) -> None:
        for prefix in ("", "shop", "t-shirts"):
            for tenant in ("", "acme", "ctl", "broadcast"):
                name = channel_name(namespace(prefix, tenant), "group", "f", "g")
                self.assertEqual(split_tenant(prefix, name), (tenant, "group:g:f"))
        self.assertEqual(split_tenant("", "t:acme"), ("", "t:acme"))
        self.assertEqual(split_tenant("shop", "broadcast:f"), ("", "broadcast:f"))

    def test_a_tenant_names_nothing_outside_its_namespace(self) -> None:
        for prefix in ("", "shop"):
            ours = namespace(prefix, "acme")
            check_within(ours, [channel_name(ours, "broadcast", "f"), f"{ours}:server:f"])
            for other in (namespace(prefix), namespace(prefix, "acm"), namespace(prefix, "acme2")):
                channel = channel_name(other, "broadcast", "f")
                self.assertRaises(ValueError, check_within, ours, [channel])

    def test_no_tenants_channel_is_a_control_channel(self) -> None:
        for prefix in ("", "shop"):
            self.assertTrue(is_control_channel(control_channel(prefix, "revoke")))
            for tenant in ("ctl", "acme"):
                name = channel_name(namespace(prefix, tenant), "broadcast", "f")
                self.assertFalse(is_control_channel(name.encode()))


class PrefixTests(SynchronousTestCase):
    def test_none_and_the_empty_string_are_no_prefix(self) -> None:
        self.assertEqual(check_prefix(None), "")
        self.assertEqual(check_prefix(""), "")

    def test_a_plain_word_is_kept_as_it_is(self) -> None:
        for prefix in ("shop", "Shop-1", "broadcasts", "läden"):
            with self.subTest(prefix=prefix):
                self.assertEqual(check_prefix(prefix), prefix)

    def test_an_audience_word_and_a_colon_are_refused_with_the_setting_and_the_remedy(self) -> None:
        for prefix in (*AUDIENCES, "a:b", "shop:", ":"):
            with self.subTest(prefix=prefix):
                error = self.assertRaises(ConfigError, check_prefix, prefix)
                self.assertEqual(error.setting, "WS4REDIS_PREFIX")
                self.assertIn("WS4REDIS_PREFIX", str(error))
                self.assertIn("Use a", error.remedy)

    def test_a_prefix_that_is_no_string_is_refused(self) -> None:
        for prefix in (b"shop", 7, ["shop"]):
            with self.subTest(prefix=prefix):
                self.assertRaises(ConfigError, check_prefix, prefix)


class FacilityTests(SynchronousTestCase):
    def test_an_ordinary_facility_is_allowed_for_every_audience(self) -> None:
        for facility in ("", "foobar", "a/b", "/", "grüße", "日本", "a b", "None"):
            with self.subTest(facility=facility):
                check_facility(facility, AUDIENCES)

    def test_255_bytes_are_allowed_and_256_are_not(self) -> None:
        self.assertEqual(MAX_FACILITY_BYTES, 255)
        check_facility("x" * 255, AUDIENCES)
        self.assertRaises(ValueError, check_facility, "x" * 256, AUDIENCES)

    def test_the_length_counts_utf8_bytes_and_not_characters(self) -> None:
        check_facility("é" * 127, ["broadcast"])
        self.assertRaises(ValueError, check_facility, "é" * 128, ["broadcast"])

    def test_control_characters_are_refused(self) -> None:
        for character in map(chr, (*range(0x20), *range(0x7F, 0xA0))):
            with self.subTest(character=character):
                self.assertRaises(ValueError, check_facility, f"a{character}b", ["broadcast"])

    def test_a_lone_surrogate_which_is_not_utf8_is_refused(self) -> None:
        self.assertRaises(ValueError, check_facility, "a\ud800", ["broadcast"])

    def test_a_colon_is_legal_in_a_broadcast_facility_alone(self) -> None:
        check_facility("a:b", ["broadcast"])
        check_facility("a:b", [])
        for audience in NARROW:
            with self.subTest(audience=audience):
                self.assertRaises(ValueError, check_facility, "a:b", [audience])
                self.assertRaises(ValueError, check_facility, "a:b", ["broadcast", audience])

    def test_whoever_is_refused_is_told_why_without_an_echo_of_the_facility(self) -> None:
        for facility in ("secret:x", "secret\0", "secret" * 50):
            with self.subTest(facility=facility):
                error = self.assertRaises(ValueError, check_facility, facility, AUDIENCES)
                self.assertTrue(str(error))
                self.assertNotIn("secret", str(error))


class _Groups:
    def __init__(self, *names: str) -> None:
        self.names = names

    def values_list(self, _field: str, *, flat: bool) -> tuple[str, ...]:
        return self.names


@dataclass
class _User:
    """The part of Django's user that a store may use."""

    username: str = "mary"
    is_authenticated: bool = True
    groups: _Groups = field(default_factory=lambda: _Groups("staff", "editors"))

    def get_username(self) -> str:
        return self.username


@dataclass
class _Session:
    session_key: str | None = "s3ss10n"


@dataclass
class _Request:
    user: _User | None = field(default_factory=_User)
    session: _Session | None = field(default_factory=_Session)


class _Store(RedisStore):
    def __init__(self, prefix: str = "") -> None:
        super().__init__(None)
        self.prefix = prefix

    def get_prefix(self) -> str:
        return f"{self.prefix}:" if self.prefix else ""

    def channels(self, request: object = None, **audience: Any) -> list[str]:
        return self._get_message_channels(request, "f", **audience)


class StoreTests(SynchronousTestCase):
    def test_each_audience_becomes_its_channels(self) -> None:
        self.assertEqual(
            sorted(_Store("p").channels(broadcast=True, groups=["g"], users=["u"], sessions=["s"])),
            ["p:broadcast:f", "p:group:g:f", "p:session:s:f", "p:user:u:f"],
        )

    def test_no_audience_is_no_channel(self) -> None:
        self.assertEqual(_Store().channels(), [])

    def test_nobody_is_no_channel(self) -> None:
        for nobody in (None, False, [], (), set(), iter(())):
            self.assertEqual(_Store().channels(users=nobody, groups=nobody, sessions=nobody), [])

    def test_any_iterable_of_names_is_fine(self) -> None:
        for names in (["a", "b"], ("a", "b"), {"a": 1, "b": 2}, iter(["a", "b"])):
            with self.subTest(names=type(names)):
                self.assertEqual(_Store().channels(users=names), ["user:a:f", "user:b:f"])
        self.assertEqual(_Store().channels(users={"a"}), ["user:a:f"])
        self.assertEqual(_Store().channels(users=(n for n in "ab")), ["user:a:f", "user:b:f"])

    def test_a_channel_named_twice_stands_once(self) -> None:
        self.assertEqual(
            _Store().channels(_Request(), users=["mary", SELF, "mary", SELF]), ["user:mary:f"]
        )

    def test_self_is_the_requests_own_user_groups_and_session(self) -> None:
        channels = _Store().channels(_Request(), users=[SELF], groups=[SELF], sessions=[SELF])
        self.assertEqual(
            sorted(channels),
            ["group:editors:f", "group:staff:f", "session:s3ss10n:f", "user:mary:f"],
        )

    def test_self_stands_among_names(self) -> None:
        self.assertEqual(
            _Store().channels(_Request(), users=["john", SELF]), ["user:john:f", "user:mary:f"]
        )

    def test_self_that_cannot_be_resolved_is_no_channel(self) -> None:
        nobody = _User("", is_authenticated=False)
        for request in (
            object(),
            _Request(None, None),
            _Request(nobody, _Session(None)),
            _Request(nobody, None),
            _Request(_User(groups=_Groups()), _Session(None)),
        ):
            with self.subTest(request=request):
                channels = _Store().channels(request, groups=[SELF], sessions=[SELF])
                self.assertEqual(channels, [])
        for request in (object(), _Request(nobody)):
            with self.subTest(request=request):
                self.assertEqual(_Store().channels(request, users=[SELF]), [])

    def test_an_empty_session_key_or_username_is_nobodys_own(self) -> None:
        request = _Request(_User(""), _Session(""))
        self.assertEqual(_Store().channels(request, users=[SELF], sessions=[SELF]), [])

    def test_an_identity_that_the_server_found_out_goes_before_user_and_session(self) -> None:
        request: Any = _Request()
        request.ws4redis_identity = Identity("k", "john", ("g",))
        self.assertEqual(
            _Store().channels(request, users=[SELF], groups=[SELF], sessions=[SELF]),
            ["group:g:f", "user:john:f", "session:k:f"],
        )

    def test_the_identity_of_a_request_is_found_without_django(self) -> None:
        self.assertEqual(identity_of(_Request()), Identity("s3ss10n", "mary", ("staff", "editors")))
        self.assertEqual(identity_of(None), Identity())

    def test_what_is_no_list_of_names_is_a_clear_error_and_never_silence(self) -> None:
        for audience in ("groups", "users", "sessions"):
            for names in ("mary", b"mary", "", True, 1, SELF, object()):
                with self.subTest(audience=audience, names=names):
                    error = self.assertRaises(
                        AudienceError, _Store().channels, _Request(), **{audience: names}
                    )
                    self.assertIn(audience, str(error))

    def test_a_list_that_holds_what_is_no_name_is_a_clear_error(self) -> None:
        for name in (b"mary", None, True, 1, ["mary"], _Groups()):
            with self.subTest(name=name):
                error = self.assertRaises(AudienceError, _Store().channels, users=[name])
                self.assertIn("users", str(error))

    def test_an_audience_error_is_a_type_error_and_a_value_error_and_ours(self) -> None:
        for kind in (TypeError, ValueError, WS4RedisError):
            self.assertRaises(kind, _Store().channels, users="mary")

    def test_the_names_that_users_import_are_there(self) -> None:
        self.assertEqual(repr(SELF), "SELF")
        self.assertTrue(issubclass(RedisMessage, bytes))


class StampTests(SynchronousTestCase):
    def test_a_stamp_is_a_number_and_whatever_else_stands_there_is_none(self) -> None:
        self.assertEqual(read_stamp(b"1700000000000000"), 1_700_000_000_000_000)
        for value in (b"", b"x", b"-1", b"1.5", b" 1", b"1_0", b"\xff", b"\xb2", b"9" * 5000):
            self.assertIsNone(read_stamp(value), value)

"""The rights of a client on the facilities of one frame: how often the authorizer is asked."""

from __future__ import annotations

from typing import Any

from tests.support.channels import ChannelsTestCase, John
from ws4redis_tx.core.admission import Admission, Identity, by_default_policy
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.protocols.centrifuge.rights import MOST_CHANNELS, MOST_TOGETHER
from ws4redis_tx.testing import CentrifugeError

RECHECK = 60


class Together(John):
    """Answers about several facilities together. ``together`` has those questions, each with
    whether the visitor was known.
    """

    def __init__(self) -> None:
        super().__init__()
        self.together: list[tuple[list[str], bool]] = []
        self.withheld: dict[str, Any] = {}
        """What it answers on some facilities."""

    def authorize_facilities(
        self, handshake: Any, asked: Any, known: Admission | None = None
    ) -> list[Admission | Exception]:
        self.together.append(([each.facility for each in asked], known is not None))
        answers = by_default_policy(known or self.authorize(handshake, ()), asked)
        return [
            self.withheld.get(each.facility, answer)
            for each, answer in zip(asked, answers, strict=True)
        ]


def no_rights(identity: Identity = John.identity) -> Admission:
    return Admission(identity, (), None)


class FrameTests(ChannelsTestCase):
    def setUp(self) -> None:
        self.john = Together()
        self.use(self.john, recheck=RECHECK)

    def outcomes(self, *names: str) -> list[int]:
        """Connect and subscribe in one frame. Return the code of each answer, 0 for a success."""
        self.client = client = self.open()
        requests = [("connect", {}), *[("subscribe", {"channel": name}) for name in names]]
        answers = [client.answers[number] for number in client.send_all(*requests)]
        codes = [each.code if isinstance(each, CentrifugeError) else 0 for each in answers]
        self.assertEqual(codes[0], 0)
        return codes[1:]

    def recheck(self) -> None:
        self.clock.pump([1.0] * RECHECK)

    def test_all_facilities_are_one_question_about_the_visitor_who_is_known(self) -> None:
        self.assertEqual(self.outcomes("broadcast:a", "user:b", "group:staff:c"), [0, 0, 0])
        self.assertEqual(self.john.asked, [("", ())])
        self.assertEqual(self.john.together, [(["a", "b", "c"], True)])
        for name in "abc":
            self.assertIn(name, self.state().session.grants)

    def test_a_later_frame_asks_who_it_is(self) -> None:
        self.outcomes("broadcast:a")
        self.client.subscribe("broadcast:b")
        self.assertEqual(self.john.together, [(["a"], True), (["b"], False)])

    def test_so_does_one_while_which_something_was_revoked(self) -> None:
        authorize = self.john.authorize

        def revoke_then_answer(handshake: Any, rights: Any) -> Any:
            self.take_away(facility="other")
            return authorize(handshake, rights)

        self.john.authorize = revoke_then_answer  # type: ignore[method-assign]
        self.assertEqual(self.outcomes("broadcast:a"), [0])
        self.assertEqual(self.john.together, [(["a"], False)])

    def test_a_crowd_of_facilities_is_asked_about_in_portions(self) -> None:
        names = [f"broadcast:{number}" for number in range(2 * MOST_TOGETHER + 1)]
        self.assertEqual(set(self.outcomes(*names)), {0})
        sizes = [len(facilities) for facilities, _ in self.john.together]
        self.assertEqual(sizes, [MOST_TOGETHER, MOST_TOGETHER, 1])

    def test_nothing_is_asked_about_beyond_the_128th_channel(self) -> None:
        self.outcomes("broadcast:first")
        names = [f"broadcast:{number}" for number in range(200)]
        self.client.send_all(*[("subscribe", {"channel": name}) for name in names])
        facilities = [each for asked, _ in self.john.together for each in asked]
        self.assertEqual(facilities, ["first", *map(str, range(MOST_CHANNELS - 1))])

    def test_each_facility_has_an_answer_of_its_own(self) -> None:
        self.john.withheld = {
            "refused": Denied(403, "No."),
            "failed": ZeroDivisionError(),
            "less": no_rights(),
            "another": no_rights(Identity("the key", "jane", (), "8")),
            "busy": Denied(503, "Later."),
        }
        names = [f"broadcast:{each}" for each in (*self.john.withheld, "open")]
        self.assertEqual(self.outcomes(*names), [103, 100, 103, 103, 111, 0])
        self.assertEqual(len(self.john.together), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_refusal_holds_for_the_frame_and_a_later_one_asks_again(self) -> None:
        self.john.withheld["a"] = no_rights()
        self.assertEqual(self.outcomes("broadcast:a", "broadcast:a"), [103, 103])
        self.assertEqual(len(self.john.together), 1)
        self.john.withheld.clear()
        self.client.subscribe("broadcast:a")

    def test_a_right_that_is_refused_takes_no_other_of_its_facility_with_it(self) -> None:
        def authorize_facilities(_: Any, asked: Any, known: Any = None) -> Any:
            if "subscribe-user" in asked[0].rights:
                return [Denied(401, "Log in first.")]
            return by_default_policy(known or no_rights(), asked)

        self.john.authorize_facilities = authorize_facilities  # type: ignore[method-assign]
        self.assertEqual(self.outcomes("broadcast:a", "user:a"), [0, 103])

    def test_a_recheck_asks_about_all_of_them_at_once(self) -> None:
        self.outcomes("broadcast:a", "broadcast:b")
        self.john.together.clear()
        self.recheck()
        self.assertEqual(self.john.asked, [("", ()), ("", ())])
        self.assertEqual(self.john.together, [(["a", "b"], True)])
        self.assertEqual(self.client.pushes, [])

    def test_what_it_finds_gone_is_taken_away(self) -> None:
        for answer in (Denied(403, "No."), no_rights()):
            self.use(self.john, recheck=RECHECK)
            self.john.withheld.clear()
            self.outcomes("broadcast:a", "broadcast:b")
            self.john.withheld["a"] = answer
            self.recheck()
            self.assertEqual(
                [(e.channel, e.code) for e in self.client.pushes], [("broadcast:a", 2000)]
            )
            self.assertEqual(list(self.state().session.grants), ["b"])
            self.assertTrue(self.client.connected)

    def test_one_that_keeps_failing_closes_the_connection(self) -> None:
        self.outcomes("broadcast:a", "broadcast:b")
        self.john.withheld["a"] = ZeroDivisionError()
        while len(self.john.together) < 2:
            self.clock.advance(1)
        self.clock.pump([1.0] * 29)
        self.assertTrue(self.client.connected)
        self.clock.pump([1.0] * 2)
        self.assertEqual(self.client.close_code, 3004)
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))

    def test_a_group_that_is_gone_takes_only_the_facilities_where_it_counts(self) -> None:
        self.outcomes("broadcast:a", "group:staff:b")
        self.john.identity = Identity("the key", "john", (), "7")  # type: ignore[misc]
        self.recheck()
        self.assertEqual([each.channel for each in self.client.pushes], ["group:staff:b"])

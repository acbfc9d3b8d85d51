"""The control channel: the servers' messages to each other."""

from __future__ import annotations

from typing import Any

from tests.unit.revocation.site import RevocationTests
from ws4redis_tx.core.admission import Identity
from ws4redis_tx.revocation.messages import (
    DISCONNECT,
    LOGOUT,
    RECHECK,
    Revocation,
    digest,
    disconnection,
    read_revocation,
)


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
        ):
            self.assertEqual(read_revocation(revocation.payload), revocation)

    def test_it_is_documented_as_it_is(self) -> None:
        self.assertEqual(
            Revocation(DISCONNECT, "facility", ("chat",)).payload,
            b'{"disconnect": {"facility": ["chat"]}}',
        )

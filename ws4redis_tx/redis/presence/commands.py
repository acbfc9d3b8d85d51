"""The commands of presence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger

from ws4redis_tx.core.messages import Announced, Occupant
from ws4redis_tx.redis.presence.scripts import (
    PORTION,
    alive_keys,
    announce_answer_fits,
    announce_command,
    online_command,
    present_answer_fits,
    present_command,
    read_entry,
    withdraw_command,
)

_log = Logger()


class PresenceCommands:
    """A part of ``Commands``, which asks Redis. An ``IPresence``."""

    prefix: str
    execute: Callable[..., Deferred[Any]]

    _complained = False

    def announce(
        self, server: str, lasting: float, occupants: Sequence[Occupant]
    ) -> Deferred[Announced]:
        command = announce_command(self.prefix, server, lasting, occupants)
        return self.execute(*command, fits=announce_answer_fits).addCallback(self._announced)

    def _announced(self, answer: list[Any]) -> Announced:
        known, trouble, *dead = answer
        if trouble and not self._complained:
            self._complained = True
            _log.warn(
                "Redis does not let presence be kept or told completely ({why}). Grant the "
                "permissions that docs/security.md lists to mend it.",
                why=trouble.decode(errors="replace"),
            )
        return Announced(known, [each.decode() for each in dead])

    def withdraw(
        self, server: str, occupants: Sequence[Occupant], *, dead: bool = False
    ) -> Deferred[int]:
        command = withdraw_command(self.prefix, server, occupants, dead=dead)
        return self.execute(*command, fits=lambda answer: type(answer) is int)

    def left_behind(self, server: str) -> Deferred[list[Occupant]]:
        command = ("SRANDMEMBER", alive_keys(self.prefix, server)[1], PORTION)
        found = self.execute(*command, fits=lambda answer: isinstance(answer, list))
        return found.addCallback(lambda entries: [read_entry(each) for each in entries])

    @inlineCallbacks
    def present(self, channel: bytes, infos: bool = True) -> Any:
        cursor, found = b"0", dict[str, Occupant]()
        width = 3 if infos else 2
        while True:
            answer = yield self.execute(
                *present_command(self.prefix, channel, cursor, infos=infos),
                fits=lambda answer: present_answer_fits(answer, infos=infos),
            )
            cursor, *page = answer
            for i in range(0, len(page), width):
                client, user = page[i].decode(), page[i + 1].decode()
                found[client] = Occupant(channel, client, user, page[i + 2] if infos else b"")
            if cursor == b"0":
                return list(found.values())

    def is_online(self, tenant: str, user: str) -> Deferred[bool]:
        command = online_command(self.prefix, tenant, user)
        return self.execute(*command, fits=lambda answer: type(answer) is int).addCallback(bool)

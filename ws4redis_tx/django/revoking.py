"""Telling the servers, from Django, that somebody lost something. Imports no reactor."""

from __future__ import annotations

import logging
from typing import Any

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.names import control_channel
from ws4redis_tx.revocation.messages import CONTROL_NAME, Revocation, disconnection
from ws4redis_tx.threads import bridge

_log = logging.getLogger(__name__)

PATIENCE = 0.5
"""Seconds that ``tell`` may hold up its caller; usually Redis has answered within one or two ms."""


def publish(**whom: Any) -> int:
    """As ``ws4redis_tx.disconnect``."""
    revocation = disconnection(**whom)
    instead = ("await ws4redis_tx.adisconnect(…)", "ws4redis_tx.service.disconnect")
    return bridge.redis().publish([_channel()], revocation.payload, 0, instead=instead)


def tell(revocation: Revocation) -> None:
    """Publish it if that can be done; never raises. Not at all without ``WS4REDIS_REVOKE``.

    While Redis is away that is logged once, and nobody waits.
    """
    try:
        if django_settings.get_flag("WS4REDIS_REVOKE"):
            _outage.tell(revocation)
    except Exception:
        _log.exception("The websocket servers could not be told of a change")


def _channel() -> bytes:
    return control_channel(django_settings.get_prefix(), CONTROL_NAME)


class _Outage:
    """Whether Redis is away, as far as this process knows. Without a lock, which a fork could
    inherit while it is held: the worst is a second line in the log.
    """

    _lasting = False

    def tell(self, revocation: Revocation) -> None:
        waits = not (self._lasting or bridge.on_event_loop() or bridge.in_reactor_thread())
        patience = PATIENCE if waits else 0.0
        done = bridge.redis().send([_channel()], revocation.payload, patience, self._done)
        if waits and not done:
            self._begin(f"Redis did not answer within {PATIENCE:g} s")

    def _done(self, result: Any) -> None:
        from twisted.python.failure import Failure

        if isinstance(result, Failure):
            self._begin(result.getErrorMessage() or type(result.value).__name__)
        else:
            self._lasting = False

    def _begin(self, problem: str) -> None:
        begins, self._lasting = not self._lasting, True
        if begins:
            _log.warning(
                "The websocket servers could not be told of a change to a user: %s Until Redis "
                "takes it again, such changes reach open websockets at their next recheck "
                "(WS4REDIS_RECHECK).",
                problem.rstrip(".") + ".",
            )


_outage = _Outage()

"""Tells the websocket servers, from Django, about revoked rights. Imports no reactor."""

from __future__ import annotations

import logging
from typing import Any

from asgiref.sync import sync_to_async

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.names import control_channel
from ws4redis_tx.revocation.messages import CONTROL_NAME, Revocation, disconnection, logout_entries
from ws4redis_tx.threads import bridge

_log = logging.getLogger(__name__)

TELL_TIMEOUT = 0.5
"""Seconds for which ``tell`` may block its caller. Redis usually answers within one or two ms."""


def publish(**target: Any) -> int:
    """Implements ``ws4redis_tx.disconnect``."""
    revocation = _disconnection(**target)
    instead = ("await ws4redis_tx.adisconnect(…)", "ws4redis_tx.service.disconnect")
    return bridge.redis().publish([_channel()], revocation.payload, 0, instead=instead)


async def apublish(**target: Any) -> int:
    """Implements ``ws4redis_tx.adisconnect``."""
    revocation = await sync_to_async(_disconnection)(**target)  # a lazy user is looked up
    return await bridge.redis().apublish([_channel()], revocation.payload, 0)


def _disconnection(tenant: str | None, **target: Any) -> Revocation:
    django_settings.get_namespace(tenant)  # raises if there must be a tenant, or must not
    return disconnection(tenant=tenant, **target)


def tell(revocation: Revocation) -> None:
    """Publish a revocation if possible. Never raises. Does nothing if ``WS4REDIS_REVOKE`` is off.

    The first failure is logged. After it, no caller waits until Redis has answered again.
    """
    try:
        if django_settings.get_flag("WS4REDIS_REVOKE"):
            _outage.tell(revocation)
    except Exception:
        _log.exception("The websocket servers could not be told of a change")


def _channel() -> bytes:
    return control_channel(django_settings.get_prefix(), CONTROL_NAME)


class _Outage:
    """Remembers whether Redis was unavailable at the last attempt.

    It has no lock, because a fork could inherit it while it is held. The worst result is a second
    log line.
    """

    _lasting = False

    def tell(self, revocation: Revocation) -> None:
        waits = not (self._lasting or bridge.on_event_loop() or bridge.in_reactor_thread())
        timeout = TELL_TIMEOUT if waits else 0.0
        entries = logout_entries(django_settings.get_prefix(), revocation)
        more = {"entries": entries} if entries else {}
        done = bridge.redis().send([_channel()], revocation.payload, timeout, self._done, **more)
        if waits and not done:
            self._begin(f"Redis did not answer within {TELL_TIMEOUT:g} s")

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
                "answers again, such changes take effect on open websockets only at their next "
                "recheck (WS4REDIS_RECHECK).",
                problem.rstrip(".") + ".",
            )


_outage = _Outage()

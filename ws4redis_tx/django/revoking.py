"""Tells the websocket servers, from Django, about revoked rights. Imports no reactor."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

from asgiref.sync import sync_to_async

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.names import control_channel
from ws4redis_tx.revocation.messages import CONTROL_NAME, Revocation, disconnection, logout_entries
from ws4redis_tx.revocation.void_tokens import (
    GROUP,
    KEPT_FOR,
    USER,
    USERNAME,
    Voiding,
    token_digest,
    void_by,
)
from ws4redis_tx.threads import bridge

_log = logging.getLogger(__name__)

TELL_TIMEOUT = 0.5
"""Seconds for which ``tell`` may block its caller. Redis usually answers within one or two ms."""


def publish(**target: Any) -> int:
    """Implements ``ws4redis_tx.disconnect``."""
    revocation = _disconnection(**target)
    _tell_void(void_by(revocation, time.time()))  # they must not come back with the same token
    instead = ("await ws4redis_tx.adisconnect(…)", "ws4redis_tx.service.disconnect")
    return bridge.redis().publish([_channel()], revocation.payload, 0, instead=instead)


async def apublish(**target: Any) -> int:
    """Implements ``ws4redis_tx.adisconnect``."""
    revocation = await sync_to_async(_disconnection)(**target)  # a lazy user is looked up
    _tell_void(void_by(revocation, time.time()))  # they must not come back with the same token
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
            entries = logout_entries(django_settings.get_prefix(), revocation)
            _outage.tell(revocation.payload, entries)
    except Exception:
        _log.exception("The websocket servers could not be told of a change")


def uses_tokens() -> bool:
    """Whether clients may show tokens that something makes void."""
    url = django_settings.get_checked("WS4REDIS_CENTRIFUGE_URL")
    return url is not None and django_settings.get_flag("WS4REDIS_REVOKE")


def void_tokens(
    *,
    users: Iterable[Any] = (),
    usernames: Iterable[str | None] = (),
    groups: Iterable[str] = (),
    tenant: str = "",
) -> None:
    """Make all tokens void that were issued by now for these ``users`` (by primary keys),
    ``usernames`` or members of ``groups``; in every tenant, unless one is given. As ``tell``: never
    raises, and does nothing where there are no tokens.
    """
    named = [(USER, str(key)) for key in users if key is not None]
    named += [(USERNAME, name) for name in usernames if name]
    named += [(GROUP, name) for name in groups]
    digests = tuple(token_digest(kind, name, tenant) for kind, name in named)
    _tell_void(Voiding(digests, time.time()) if digests else None)


def _tell_void(voiding: Voiding | None) -> None:
    try:
        if voiding is not None and uses_tokens():
            entries = voiding.entries(django_settings.get_prefix())
            _outage.tell(voiding.payload, entries, KEPT_FOR)
    except Exception:
        _log.exception("The websocket servers could not be told of void tokens")


def _channel() -> bytes:
    return control_channel(django_settings.get_prefix(), CONTROL_NAME)


class _Outage:
    """Remembers whether Redis was unavailable at the last attempt.

    It has no lock, because a fork could inherit it while it is held. The worst result is a second
    log line.
    """

    _lasting = False

    def tell(self, payload: bytes, entries: Mapping[bytes, bytes], seconds: int = 60) -> None:
        waits = not (self._lasting or bridge.on_event_loop() or bridge.in_reactor_thread())
        timeout = TELL_TIMEOUT if waits else 0.0
        more: Any = {"entries": entries, "seconds": seconds} if entries else {}
        done = bridge.redis().send([_channel()], payload, timeout, self._done, **more)
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

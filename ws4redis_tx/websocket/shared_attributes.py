"""What Autobahn keeps for each websocket, kept once for all of them. Knows Autobahn inside.

When a connection is made, Autobahn gives it some seventy attributes: a copy of each option, flags,
statistics, a queue, a validator, Deferreds. That takes longer than all the rest of a handshake, and
more memory than all the rest of a websocket. Hardly any of them ever changes. So they are taken
from one connection that is made for this, and given to a subclass; what would be changed in place
is made for a websocket when it first needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from types import FunctionType
from typing import Any

from autobahn.twisted.util import create_transport_details
from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.websocket.protocol import WebSocketProtocol as Common
from autobahn.websocket.utf8validator import Utf8Validator
from twisted.internet.defer import Deferred

_UNCHANGEABLE = (type(None), bool, int, float, str, bytes, tuple)

# What is read only, or whose sums nobody reads.
_SHARED = ("_valid_events", "_results", "trafficStats")

_MADE: dict[str, Callable[[Any], Any]] = {
    "_transport_details": lambda websocket: create_transport_details(websocket.transport, True),
    "is_closed": lambda _: Deferred(),
    "is_open": lambda _: Deferred(),
    "utf8validator": lambda _: Utf8Validator(),
}


def sharing(protocol: type, factory: Any) -> type:
    """A subclass of ``protocol`` for the websockets of ``factory``, as its options are now."""
    attributes: dict[str, Any] = {"factory": factory}
    for name, value in initial(factory).items():
        if name in _MADE:
            attributes[name] = _OnDemand(_MADE[name])
        elif name in _SHARED or isinstance(value, _UNCHANGEABLE):
            attributes[name] = value
        else:
            attributes[name] = _OnDemand(_copier(value))
    for name in WebSocketServerProtocol.CONFIG_ATTRS:
        if hasattr(protocol, name):
            attributes.pop(name, None)  # it has its own
        else:
            value = getattr(factory, name)
            # A function would become a method.
            attributes[name] = staticmethod(value) if isinstance(value, FunctionType) else value
    return type(protocol.__name__, (protocol,), attributes)


def initial(factory: Any) -> dict[str, Any]:
    """The attributes that Autobahn gives to a connection that was made."""
    connection: Any = _Untimed()
    connection.factory = factory
    Common._connectionMade(connection)
    attributes: dict[str, Any] = vars(connection)
    del attributes["factory"]
    return attributes


class _Untimed(WebSocketServerProtocol):
    openHandshakeTimeout = 0


def _copier(value: Any) -> Callable[[Any], Any]:
    return lambda _: copy(value)


class _OnDemand:
    """An attribute that each instance gets when it is first asked for it."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        value = self._make(instance)
        setattr(instance, self._name, value)
        return value

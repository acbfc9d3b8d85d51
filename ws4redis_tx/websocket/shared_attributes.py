"""Shares Autobahn's attributes among all websockets. Depends on Autobahn's internals.

Autobahn gives each new connection some seventy attributes: a copy of each option, flags,
statistics, a queue, a validator, Deferreds. That takes longer than the rest of a handshake, and
more memory than the rest of a websocket, although hardly any of them ever changes. So a subclass
gets them as class attributes, from one sample connection. An attribute that is changed in place is
made for a websocket when it first needs it.
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

_IMMUTABLE = (type(None), bool, int, float, str, bytes, tuple)

# Mutable, but never changed, or a statistic that nobody reads.
_SHARED = ("_valid_events", "_results", "trafficStats")

# Made for each websocket on first use.
_MAKERS: dict[str, Callable[[Any], Any]] = {
    "_transport_details": lambda websocket: create_transport_details(websocket.transport, True),
    "is_closed": lambda _: Deferred(),
    "is_open": lambda _: Deferred(),
    "utf8validator": lambda _: Utf8Validator(),
}


def sharing(protocol: type, factory: Any) -> type:
    """A subclass of ``protocol`` for the websockets of ``factory``, with its current options."""
    attributes: dict[str, Any] = {"factory": factory}
    for name, value in initial(factory).items():
        if name in _MAKERS:
            attributes[name] = _LazyAttribute(_MAKERS[name])
        elif name in _SHARED or isinstance(value, _IMMUTABLE):
            attributes[name] = value
        else:
            attributes[name] = _LazyAttribute(_copier(value))
    for name in WebSocketServerProtocol.CONFIG_ATTRS:
        if hasattr(protocol, name):
            attributes.pop(name, None)  # the class has its own
        else:
            value = getattr(factory, name)
            # A function would become a method.
            attributes[name] = staticmethod(value) if isinstance(value, FunctionType) else value
    return type(protocol.__name__, (protocol,), attributes)


def initial(factory: Any) -> dict[str, Any]:
    """The attributes that Autobahn gives to a new connection."""
    connection: Any = _WithoutTimeout()
    connection.factory = factory
    Common._connectionMade(connection)
    attributes: dict[str, Any] = vars(connection)
    del attributes["factory"]
    return attributes


class _WithoutTimeout(WebSocketServerProtocol):
    openHandshakeTimeout = 0


def _copier(value: Any) -> Callable[[Any], Any]:
    return lambda _: copy(value)


class _LazyAttribute:
    """An attribute that is made for each instance on first use."""

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

"""Django signals about websockets, sent by the process that serves them.

They are sent in a worker thread, so receivers may use the ORM and no websocket waits for them. The
signals of one websocket come in order. ``connection`` is the same object in all of them, and is
hashable.

- ``client_connected(connection)``: a websocket has opened.
- ``message_received(connection, message)``: a client sent ``message``, which is bytes. The server
  publishes it whatever the receiver does, possibly before the receiver runs. To change or reject
  messages, use ``IHooks``.
- ``client_subscribed(connection, channel)`` and ``client_unsubscribed(connection, channel)``: a
  client with many channels has subscribed to one, named as in Redis, or has left it.
- ``client_disconnected(connection, closing)``: a websocket has closed. ``closing`` has the code,
  the reason and the counts.

``connection`` is a ``ws4redis_tx.service.IConnection``. It has ``facility`` and ``identity``, and
receivers may call its ``send`` and ``close``.

Connect receivers in ``AppConfig.ready``: they are not told of websockets that opened earlier. At
most 10,000 events wait for slow receivers; at most half of them, and 16 MiB, may be messages.
Further events are dropped, and the log says how many.
"""

from __future__ import annotations

from django.dispatch import Signal

__all__ = [
    "client_connected",
    "client_disconnected",
    "client_subscribed",
    "client_unsubscribed",
    "message_received",
]

client_connected = Signal()
client_disconnected = Signal()
client_subscribed = Signal()
client_unsubscribed = Signal()
message_received = Signal()
